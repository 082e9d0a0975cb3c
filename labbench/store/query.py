"""Compiles a filter to SQL. Keys and values are bound parameters: no user's text becomes SQL.

Every compare becomes an expression that is 1 or 0, never NULL, so that `not` means what it says. What a key stands
for is found run by run: a reserved word, else a key of the run's config, else the last value of its metric.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from labbench.filters import RESERVED, And, Compare, Filter, Function, Not, Or, mentions, timestamp
from labbench.records import Goal, default_goal
from labbench.store.rows import STATUS, storable

Metrics: TypeAlias = Mapping[str, tuple[int, Goal]]
"""The id and the goal of every metric that the database has."""


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL and the values of its question marks, in order."""

    text: str
    parameters: tuple[Any, ...] = ()


NEVER, ALWAYS = Sql("0"), Sql("1")

TEXT_COLUMNS = {"name": "runs.name", "key": "runs.key", "experiment": "experiments.name", "status": STATUS}
_PLAIN_KEY = re.compile(r'[^"\\\x00-\x1f]+')


def read_metrics(connection: sqlite3.Connection) -> Metrics:
    """The metrics of a database, in the order they first came."""
    rows = connection.execute("SELECT name, id, goal FROM metrics ORDER BY id")
    return {name: (metric_id, goal or default_goal(name)) for name, metric_id, goal in rows}


def where(tree: Filter | None, metrics: Metrics) -> Sql:
    """The condition on `runs` and `experiments` that a filter means; archived runs only where the filter names them."""
    condition = ALWAYS if tree is None else _compiled(tree, metrics)
    if mentions(tree, "archived"):
        return condition
    return Sql(f"runs.archived = 0 AND {condition.text}", condition.parameters)


def _compiled(tree: Filter, metrics: Metrics) -> Sql:
    if isinstance(tree, Not):
        term = _compiled(tree.term, metrics)
        return Sql(f"(NOT {term.text})", term.parameters)
    if isinstance(tree, And | Or):
        return _joined([_compiled(term, metrics) for term in tree.terms], "AND" if isinstance(tree, And) else "OR")
    if tree.function is not None:
        return _of_metric(tree, tree.function, metrics)
    if tree.key in RESERVED:
        return _RESERVED[tree.key](tree)
    return _of_config(tree, otherwise=_of_metric(tree, "last", metrics))


def _joined(terms: Sequence[Sql], word: str) -> Sql:
    """The terms as a balanced tree: SQLite bounds how deep an expression may be, and `a AND b AND c` is deep."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    left, right = _joined(terms[:middle], word), _joined(terms[middle:], word)
    return Sql(f"({left.text} {word} {right.text})", (*left.parameters, *right.parameters))


# A run's own words.


def _of_text(compare: Compare, column: str) -> Sql:
    """A compare with a column that is text and never NULL."""
    texts = tuple(storable(text) for text in compare.texts)
    if compare.operator == "~":
        parts = _joined([Sql(f"has_part({column}, ?)", (text,)) for text in texts], "OR")
        return Sql(f"({parts.text})", parts.parameters)
    if compare.operator in ("=", "!="):
        negation = "NOT " if compare.operator == "!=" else ""
        return Sql(f"({column} {negation}IN ({_marks(texts)}))", texts)
    return Sql(f"({column} {compare.operator} ?)", texts) if isinstance(compare.values[0], str) else NEVER


def _of_tag(compare: Compare) -> Sql:
    """Some tag fits (`!=`: none does, as where there are no tags); `none` is a run without any."""
    if compare.operator == "!=":
        positive = _of_tag(Compare("tag", None, "=", compare.values, compare.texts))
        return Sql(f"(NOT {positive.text})", positive.parameters)
    fits = _of_text(compare, "tag")
    some = Sql(f"EXISTS (SELECT 1 FROM tags WHERE run_id = runs.id AND {fits.text})", fits.parameters)
    if compare.operator != "=" or None not in compare.values:
        return some
    return _joined([some, Sql("NOT EXISTS (SELECT 1 FROM tags WHERE run_id = runs.id)")], "OR")


def _of_archived(compare: Compare) -> Sql:
    flags = [value for value in compare.values if isinstance(value, bool)]
    if compare.operator not in ("=", "!="):
        return NEVER
    negation = "NOT " if compare.operator == "!=" else ""
    return Sql(f"(runs.archived {negation}IN ({_marks(flags)}))", tuple(flags))


def _of_started(compare: Compare) -> Sql:
    """A time means all of the day, minute or second that was written: `started>2026-11-30` begins on 1 December."""
    spans = [_span(text) for value, text in zip(compare.values, compare.texts, strict=True) if value is not None]
    is_null = "runs.started IS NULL"
    if compare.operator in ("=", "!="):
        never_begun = None in compare.values
        within = [Sql("(runs.started >= ? AND runs.started < ?)", span) for span in spans]
        some = _joined(within, "OR") if within else NEVER
        if compare.operator == "=":
            return Sql(f"(CASE WHEN {is_null} THEN {never_begun:d} ELSE {some.text} END)", some.parameters)
        return Sql(f"(CASE WHEN {is_null} THEN 0 ELSE NOT {some.text} END)", some.parameters)
    if compare.operator == "~" or not spans:
        return NEVER
    begin, end = spans[0]
    operator, bound = {"<": ("<", begin), ">=": (">=", begin), "<=": ("<", end), ">": (">=", end)}[compare.operator]
    return Sql(f"coalesce(runs.started {operator} ?, 0)", (bound,))


def _span(text: str) -> tuple[float, float]:
    """From when to when (excluded) a time as written may mean: a day, a minute, a second, or a moment."""
    begin = timestamp(text)
    if re.fullmatch(r"\d{4}-?(\d{2}-?\d{2}|W\d{2}(-?\d)?)", text):
        # a day of local time, which is not always 24 hours
        return begin, (datetime.fromisoformat(text) + timedelta(days=1)).timestamp()
    if "." in text or "," in text:
        return begin, math.nextafter(begin, math.inf)
    clock = re.split(r"[T ]", text)[-1]
    return begin, begin + (1.0 if clock.count(":") >= 2 and not re.search(r"[+-]", clock) else 60.0)


_RESERVED: dict[str, Callable[[Compare], Sql]] = {
    **{key: lambda compare, column=column: _of_text(compare, column) for key, column in TEXT_COLUMNS.items()},  # type: ignore[misc]
    "tag": _of_tag,
    "started": _of_started,
    "archived": _of_archived,
}


# Config keys.


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """SQL for the JSON type of one config value (NULL: no such key), and for the value; both take `parameters`."""

    type: str
    value: str
    parameters: tuple[str]

    @classmethod
    def of(cls, key: str) -> ConfigValue:
        key = storable(key)
        if _PLAIN_KEY.fullmatch(key):
            return cls("json_type(runs.config, ?)", "json_extract(runs.config, ?)", (f'$."{key}"',))
        # a path cannot say every key; this way is slower
        lookup = "(SELECT {} FROM json_each(runs.config) WHERE key = ?)"
        return cls(lookup.format("type"), lookup.format("value"), (key,))


def _of_config(compare: Compare, *, otherwise: Sql) -> Sql:
    """A compare with a config value of whatever type, and what holds where the config has no such key."""
    config = ConfigValue.of(compare.key)
    numbers = _numbers(compare)
    on_text, on_number = NEVER, NEVER
    on_other = {"true": False, "false": False, "null": False}
    if compare.operator == "~":
        on_text = _joined(
            [Sql(f"has_part({config.value}, ?)", (*config.parameters, text)) for text in compare.texts], "OR"
        )
    elif compare.operator in ("=", "!="):
        unequal = compare.operator == "!="
        among = f"{config.value} {'NOT ' if unequal else ''}IN (SELECT value FROM json_each(?))"
        on_text = Sql(among, (*config.parameters, json.dumps(compare.texts)))
        on_number = Sql(among, (*config.parameters, _json_numbers(numbers)))
        on_other = {
            name: any(value is constant for value in compare.values) != unequal
            for name, constant in (("true", True), ("false", False), ("null", None))
        }
    elif numbers:
        # the bound goes through SQLite's JSON like the config: it need not read every number as Python does
        bound = f"{config.value} {compare.operator} json_extract(?, '$[0]')"
        on_number = Sql(bound, (*config.parameters, _json_numbers(numbers)))
    elif isinstance(compare.values[0], str):
        on_text = Sql(f"{config.value} {compare.operator} ?", (*config.parameters, compare.values[0]))
    cases = [Sql(f"WHEN '{name}' THEN {fits:d}") for name, fits in on_other.items()]
    cases += [Sql(f"WHEN '{name}' THEN {on_text.text}", on_text.parameters) for name in ("text", "array", "object")]
    cases += [Sql(f"WHEN '{name}' THEN {on_number.text}", on_number.parameters) for name in ("integer", "real")]
    return Sql(
        f"(CASE {config.type} {' '.join(case.text for case in cases)} ELSE {otherwise.text} END)",
        (*config.parameters, *(value for case in cases for value in case.parameters), *otherwise.parameters),
    )


def _json_numbers(numbers: Sequence[float]) -> str:
    texts = ["9e999" if number == math.inf else "-9e999" if number == -math.inf else repr(number) for number in numbers]
    return f"[{','.join(texts)}]"


# Metrics.


def _of_metric(compare: Compare, function: Function, metrics: Metrics) -> Sql:
    """A compare with a number of a metric; NULL is NaN for `last` and `first`, otherwise that there is none."""
    if compare.key not in metrics or compare.operator == "~":
        return NEVER
    column = _metric_column(function, metrics[compare.key][1])
    numbers = _numbers(compare)
    if compare.operator in ("=", "!="):
        unequal = compare.operator == "!="
        among = f"{column} {'NOT ' if unequal else ''}IN ({_marks(numbers)})"
        on_nan = function in ("last", "first") and any(map(_is_nan, compare.values)) != unequal
        fits = Sql(f"CASE WHEN {column} IS NULL THEN {on_nan:d} ELSE {among} END", tuple(numbers))
    elif numbers:
        fits = Sql(f"{column} {compare.operator} ?", (numbers[0],))
    else:
        return NEVER
    value = _from_summary(fits, metrics[compare.key][0])
    return Sql(f"coalesce({value.text}, 0)", value.parameters)


def metric_value(metric: str, function: Function, metrics: Metrics) -> Sql:
    """A number of a metric of a run: NULL where there is none, and for a last or first value that is NaN."""
    if metric not in metrics:
        return Sql("NULL")
    metric_id, goal = metrics[metric]
    return _from_summary(Sql(_metric_column(function, goal)), metric_id)


def _from_summary(expression: Sql, metric_id: int) -> Sql:
    return Sql(
        f"(SELECT {expression.text} FROM summary AS s WHERE s.run_id = runs.id AND s.metric_id = ?)",
        (*expression.parameters, metric_id),
    )


def _metric_column(function: Function, goal: Goal) -> str:
    if function == "first":
        of_series = "p.run_id = s.run_id AND p.metric_id = s.metric_id"
        return f"(SELECT p.value FROM points AS p WHERE {of_series} ORDER BY p.step LIMIT 1)"
    return f"s.{goal}" if function == "best" else f"s.{function}"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _numbers(compare: Compare) -> list[float]:
    """The values that are numbers; NaN equals nothing."""
    return [value for value in compare.values if isinstance(value, float) and not math.isnan(value)]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
