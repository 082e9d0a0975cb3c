"""Check that the names in a filter, in columns or in a sort order exist in a database, and the values in a filter."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labbench.errors import InputError, did_you_mean
from labbench.filters.parser import (
    FUNCTIONS,
    RESERVED,
    RUN_WORDS,
    And,
    Comparison,
    Filter,
    Not,
    Or,
    comparisons,
    unknown_function,
)
from labbench.metrics import unknown_metric
from labbench.spelling import spell_value
from labbench.store.queries.filter_sql import SOURCE, ConfigValue, Metrics, filter_condition, read_metrics
from labbench.store.queries.order_sql import WORD_HEADINGS, split_heading
from labbench.store.queries.run_records import compare_config_texts
from labbench.store.queries.run_sql import FROM_RUNS, STATUS

_MAX_VALUES = 8
"""Number of values of a key that a note lists."""

_OTHER_WORDS = {
    "state": "status", "project": "experiment", "sweep": "experiment", "group_name": "experiment", "tags": "tag",
    "notes": "note", "comment": "note", "run": "name", "run_name": "name", "display_name": "name", "run_id": "id",
    "hostname": "host", "machine": "host", "created": "started", "created_at": "started", "start_time": "started",
}  # fmt: skip
"""Words of other tools for what a run has here."""
_PREFIXES = ("config.", "params.", "hparams.", "summary.", "summary_metrics.", "metrics.")
"""Beginnings of names of configuration keys and metrics in other tools."""
_REGULAR_EXPRESSION = re.compile(r"\^|\$$|\.[*+]|\*|\\[dws.]|^/.+/$|\[.+\]")


@dataclass(frozen=True, slots=True)
class Names:
    """Names that a command uses, besides those in its filter."""

    columns: Sequence[str] = ()
    """Config keys, metrics, or functions of metrics."""
    metrics: Sequence[str] = ()
    sort: str | None = None
    """Sort expression."""


@dataclass(frozen=True, slots=True)
class NameNotes:
    """Notes on names, as sentences."""

    missing: Sequence[str] = ()
    """Names that exist nowhere, but that runs in progress may still record."""
    ambiguous: Sequence[str] = ()
    """Names of a config key and of a metric."""
    unmatched: Sequence[str] = ()
    """Values that no run has, if the filter matches none."""


def check_names(connection: sqlite3.Connection, tree: Filter | None, names: Names) -> NameNotes:
    """Return notes on names that have two meanings, or that only runs in progress may still record.

    A name exists if it is a config key, a parameter of a built-in task or of the training loop, or a metric that was
    logged or declared.

    Raises:
        InputError: If a name exists nowhere, the database has runs, and no selected run is queued or running.
    """
    metrics = read_metrics(connection)
    unknown = list(_unknown_names(connection, tree, names, metrics))
    if not unknown:
        unmatched = [] if _has_match(connection, tree, metrics) else _unmatched_values(connection, tree, metrics)
        return NameNotes(ambiguous=_ambiguous_names(connection, tree, metrics), unmatched=unmatched)
    condition = filter_condition(_without(tree, connection, metrics), metrics)
    query = f"SELECT DISTINCT {STATUS} {FROM_RUNS} WHERE {condition.text}"
    statuses = {status for (status,) in connection.execute(query, condition.parameters)}
    if statuses.isdisjoint(("queued", "running")):
        if connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is None:
            return NameNotes()
        raise unknown[0]
    return NameNotes(missing=[f"{error} (queued and running runs may still record it)" for error in unknown])


def _unknown_names(
    connection: sqlite3.Connection, tree: Filter | None, names: Names, metrics: Metrics
) -> Iterator[InputError]:
    """Yield an error for each name that exists nowhere. Raises InputError for a function that does not exist."""
    for heading in filter(None, (*names.columns, names.sort)):
        _require_function(heading, metrics)
    terms = [] if tree is None else comparisons(tree)
    for term in terms:
        if not _is_known(connection, term, metrics):
            yield _unknown_name(connection, term.key, metrics, is_metric=term.function is not None)
    for column in names.columns:
        name, function = split_heading(column)
        if name not in metrics and (function is not None or not _is_config_key(connection, name)):
            yield _unknown_name(connection, name, metrics, is_metric=function is not None)
    for name in names.metrics:
        if name not in metrics:
            yield _unknown_name(connection, name, metrics, is_metric=True)
    if names.sort is not None and names.sort not in WORD_HEADINGS:
        metric, function = split_heading(names.sort)
        if metric not in metrics and (function is not None or not _is_config_key(connection, metric)):
            yield _unknown_name(connection, metric, metrics, is_metric=function is not None)


def _require_function(heading: str, metrics: Metrics) -> None:
    """Reject a heading such as `mean(val/loss)`. Raises InputError."""
    call = re.fullmatch(r"(\w+)\((.+)\)", heading)
    if call is not None and call[2] in metrics and call[1] not in FUNCTIONS:
        raise InputError(unknown_function(call[1]))


def _is_known(connection: sqlite3.Connection, term: Comparison, metrics: Metrics) -> bool:
    if term.key in metrics or (term.function is None and term.key in RESERVED):
        return True
    if term.key in RUN_WORDS and term.function is None and (term.key != SOURCE or _has_mirrored_runs(connection)):
        return True
    return term.function is None and _is_config_key(connection, term.key)


def _has_mirrored_runs(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM runs WHERE source IS NOT NULL LIMIT 1").fetchone() is not None


def _is_config_key(connection: sqlite3.Connection, name: str) -> bool:
    from labbench.params.builtin import BUILTIN
    from labbench.params.param import TRAINING

    return _is_recorded_key(connection, name) or name in TRAINING or any(name in params for params in BUILTIN.values())


def _unknown_name(
    connection: sqlite3.Connection, name: str, metrics: Metrics, *, is_metric: bool = False
) -> InputError:
    if is_metric:
        return unknown_metric(name, metrics)
    configs = tuple(text for (text,) in connection.execute("SELECT config FROM runs"))
    candidates = [*compare_config_texts(configs).names, *metrics, *sorted(RESERVED), *RUN_WORDS]
    here = _OTHER_WORDS.get(name.lower()) or next((name[len(p) :] for p in _PREFIXES if name.startswith(p)), name)
    hint = f"; did you mean `{here}`?" if here != name and here in candidates else did_you_mean(here, candidates)
    return InputError(f"no run has a config key or a metric `{name}`{hint}")


def _without(tree: Filter | None, connection: sqlite3.Connection, metrics: Metrics) -> Filter | None:
    """Return the filter without the terms whose names are unknown, which may become true."""
    if tree is None or isinstance(tree, Comparison):
        return tree if tree is None or _is_known(connection, tree, metrics) else None
    if isinstance(tree, Not):
        term = _without(tree.term, connection, metrics)
        return None if term is None else tree
    terms = [_without(term, connection, metrics) for term in tree.terms]
    known_terms = tuple(term for term in terms if term is not None)
    if isinstance(tree, Or) and len(known_terms) < len(terms):
        return None
    return None if not known_terms else And(known_terms) if isinstance(tree, And) else Or(known_terms)


def _ambiguous_names(connection: sqlite3.Connection, tree: Filter | None, metrics: Metrics) -> list[str]:
    """Return a note for each comparison of a config key that is also the name of a metric."""
    return [
        f"`{term.key}` is a config key and a metric, and the filter compares the config key; for the metric write "
        f"last({term.key}){term.operator}{','.join(term.texts)}"
        for term in ([] if tree is None else comparisons(tree))
        if term.function is None
        and term.key in metrics
        and term.key not in RESERVED
        and any(isinstance(value, int | float) and not isinstance(value, bool) for value in term.values)
        and _is_recorded_key(connection, term.key)
    ]


def _is_recorded_key(connection: sqlite3.Connection, name: str) -> bool:
    config = ConfigValue.of(name)
    query = f"SELECT 1 FROM runs WHERE {config.type} IS NOT NULL LIMIT 1"
    return connection.execute(query, config.parameters).fetchone() is not None


def _has_match(connection: sqlite3.Connection, tree: Filter | None, metrics: Metrics) -> bool:
    condition = filter_condition(tree, metrics)
    query = f"SELECT 1 {FROM_RUNS} WHERE {condition.text} LIMIT 1"
    return connection.execute(query, condition.parameters).fetchone() is not None


def _unmatched_values(connection: sqlite3.Connection, tree: Filter | None, metrics: Metrics) -> list[str]:
    """Return a note for each setting, experiment or tag in a filter that no run has, with those that runs have."""
    notes = []
    for term in [] if tree is None else comparisons(tree):
        if term.function is not None or term.operator not in ("=", "~") or _has_match(connection, term, metrics):
            continue
        if note := _regular_expression_note(term):
            notes.append(note)
            continue
        if term.operator == "~":
            continue
        values = _values_of(connection, term.key)
        listed = ", ".join(values[:_MAX_VALUES]) + ", ..." * (len(values) > _MAX_VALUES)
        nearest = did_you_mean(term.texts[0], values) if term.texts[0][:1].isalpha() else ""
        hint = nearest or f"; runs have {listed}"
        if values:
            notes.append(f"no run has {term.key}={','.join(term.texts)}{hint}")
    return notes


def _regular_expression_note(term: Comparison) -> str | None:
    """Return a note for a value that looks like a regular expression, of a text that has no such characters."""
    texts = [text for text in term.texts if _REGULAR_EXPRESSION.search(text)]
    if not texts or texts[0].startswith("["):  # a list
        return None
    part = max(re.findall(r"[\w./ =-]+", texts[0].strip("/").replace(".*", "*")), key=len, default="TEXT").strip(".")
    return (
        f"{term.key}{term.operator}{texts[0]} matches no run: `~` searches for a part of the text, without regular "
        f"expressions, as in {term.key}~{part}"
    )


def _values_of(connection: sqlite3.Connection, key: str) -> list[str]:
    """Return the values of a config key as a filter has them, the experiments or the tags; none for other keys."""
    if key == "experiment":
        return [str(name) for (name,) in connection.execute("SELECT name FROM experiments ORDER BY id")]
    if key == "tag":
        return [str(tag) for (tag,) in connection.execute("SELECT DISTINCT tag FROM tags ORDER BY tag")]
    if key in RESERVED:
        return []
    config = ConfigValue.of(key)
    query = f"SELECT DISTINCT {config.type}, {config.value} FROM runs WHERE {config.type} IS NOT NULL ORDER BY 2"
    rows = connection.execute(query, config.parameters * 3)
    return [str(value) if kind in ("text", "array") else _as_word(kind, value) for kind, value in rows]


def _as_word(kind: str, value: float | str | None) -> str:
    """Return a number, truth value or null of SQLite's JSON as a filter has it."""
    return {"true": "true", "false": "false", "null": "none"}.get(kind) or spell_value(value)
