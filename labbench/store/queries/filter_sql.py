"""Compilation of filters to SQL.

Keys and values are bound parameters, so no user input becomes SQL. Every comparison becomes an expression that is 1 or
0, never NULL, so that `not` is the complement. A key is resolved for each run: a reserved word, else a key of the run's
config, else the last value of its metric.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from labbench.errors import InputError
from labbench.filters.parser import RESERVED, And, Comparison, Filter, Function, Not, Or, parse_timestamp, uses_key
from labbench.metrics import GOALS, Goal, default_goal
from labbench.store.queries.run_sql import ENDS_NOT_FINITE, HAS_DIVERGED, STATUS, storable_text
from labbench.store.row_checks import RowCheck

Metrics: TypeAlias = Mapping[str, tuple[int, Goal]]
"""Id and goal of each metric in the database, by name."""


@dataclass(frozen=True, slots=True)
class Sql:
    """SQL fragment with the values of its `?` parameters, in order."""

    text: str
    parameters: tuple[Any, ...] = ()


NEVER, ALWAYS = Sql("0"), Sql("1")
SMOOTHED_POINTS = 20
"""Number of last points that `smooth()` averages, ignoring NaN."""

TEXT_COLUMNS = {"name": "runs.name", "key": "runs.key", "experiment": "experiments.name", "status": STATUS}
SOURCE = "source"
"""Key of the database that a run is mirrored from."""
_WORD_COLUMNS = {
    SOURCE: "coalesce(runs.source, '')",
    "note": "coalesce(runs.note, '')",
    "id": "coalesce(runs.external_id, '')",
    "host": "coalesce(runs.node, runs.host, '')",
}
"""Columns of `RUN_WORDS`."""
_PLAIN_KEY = re.compile(r'[^"\\\x00-\x1f]+')


_check_metrics = RowCheck("metrics", ("name", "id", "goal"))


def read_metrics(connection: sqlite3.Connection) -> Metrics:
    """Return the metrics of a database, in the order in which they were first logged."""
    rows = _check_metrics(connection.execute("SELECT name, id, goal FROM metrics ORDER BY id"))
    return {name: (metric_id, goal if goal in GOALS else default_goal(name)) for name, metric_id, goal in rows}


def filter_condition(tree: Filter | None, metrics: Metrics) -> Sql:
    """Compile a filter to a condition on `runs` and `experiments`.

    Archived runs match only if the filter refers to `archived`.
    """
    condition = ALWAYS if tree is None else _compile(tree, metrics)
    if uses_key(tree, "archived"):
        return condition
    return Sql(f"runs.archived = 0 AND {condition.text}", condition.parameters)


def _compile(tree: Filter, metrics: Metrics) -> Sql:
    if isinstance(tree, Not):
        term = _compile(tree.term, metrics)
        return Sql(f"(NOT {term.text})", term.parameters)
    if isinstance(tree, And | Or):
        return _join_terms([_compile(term, metrics) for term in tree.terms], "AND" if isinstance(tree, And) else "OR")
    if tree.function is not None:
        return _metric_comparison(tree, tree.function, metrics)
    if tree.key in RESERVED:
        return _RESERVED[tree.key](tree)
    column = None if tree.key in metrics else _WORD_COLUMNS.get(tree.key)
    otherwise = _metric_comparison(tree, "last", metrics) if column is None else _text_comparison(tree, column)
    return _config_comparison(tree, otherwise=otherwise)


def _join_terms(terms: Sequence[Sql], word: str) -> Sql:
    """Join terms to a balanced tree.

    SQLite limits the depth of expressions, and `a AND b AND c` is parsed to a deep one.
    """
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    left, right = _join_terms(terms[:middle], word), _join_terms(terms[middle:], word)
    return Sql(f"({left.text} {word} {right.text})", (*left.parameters, *right.parameters))


# Reserved words.


def _text_comparison(compare: Comparison, column: str) -> Sql:
    """Compile a comparison with a text column that is never NULL."""
    texts = tuple(storable_text(text) for text in compare.texts)
    if compare.operator == "~":
        parts = _join_terms([Sql(f"has_part({column}, ?)", (text,)) for text in texts], "OR")
        return Sql(f"({parts.text})", parts.parameters)
    if compare.operator in ("=", "!="):
        negation = "NOT " if compare.operator == "!=" else ""
        return Sql(f"({column} {negation}IN ({_placeholders(texts)}))", texts)
    return Sql(f"({column} {compare.operator} ?)", texts) if isinstance(compare.values[0], str) else NEVER


def _tag_comparison(compare: Comparison) -> Sql:
    """Compile a comparison that holds if any tag matches (`!=`: if no tag does).

    `none` is a run without tags.
    """
    if compare.operator == "!=":
        positive = _tag_comparison(Comparison("tag", None, "=", compare.values, compare.texts))
        return Sql(f"(NOT {positive.text})", positive.parameters)
    matches = _text_comparison(compare, "tag")
    any_tag = Sql(f"EXISTS (SELECT 1 FROM tags WHERE run_id = runs.id AND {matches.text})", matches.parameters)
    if compare.operator != "=" or None not in compare.values:
        return any_tag
    return _join_terms([any_tag, Sql("NOT EXISTS (SELECT 1 FROM tags WHERE run_id = runs.id)")], "OR")


def _flag_comparison(compare: Comparison, column: str) -> Sql:
    flags = [value for value in compare.values if isinstance(value, bool)]
    if compare.operator not in ("=", "!="):
        return NEVER
    negation = "NOT " if compare.operator == "!=" else ""
    return Sql(f"({column} {negation}IN ({_placeholders(flags)}))", tuple(flags))


_LOCAL_TIME = "strftime('%Y-%m-%dT%H:%M:%S', runs.started, 'unixepoch', 'localtime')"


def _started_comparison(compare: Comparison) -> Sql:
    """Compile a comparison of the start time.

    A time in a filter denotes the whole day, hour, minute or second: `started>2026-11-30` starts on 1 December.
    `started~2026-11` matches a part of the local time in the form `2026-11-30T14:00:00`.
    """
    if compare.operator == "~":
        parts = [Sql(f"has_part({_LOCAL_TIME}, ?)", (storable_text(text).replace(" ", "T"),)) for text in compare.texts]
        return _join_terms(parts, "OR")
    spans = [_time_span(text) for value, text in zip(compare.values, compare.texts, strict=True) if value is not None]
    is_null = "runs.started IS NULL"
    if compare.operator in ("=", "!="):
        includes_null = None in compare.values
        within = [Sql("(runs.started >= ? AND runs.started < ?)", span) for span in spans]
        in_any = _join_terms(within, "OR") if within else NEVER
        if compare.operator == "=":
            return Sql(f"(CASE WHEN {is_null} THEN {includes_null:d} ELSE {in_any.text} END)", in_any.parameters)
        return Sql(f"(CASE WHEN {is_null} THEN 0 ELSE NOT {in_any.text} END)", in_any.parameters)
    if not spans:
        return NEVER
    begin, end = spans[0]
    operator, bound = {"<": ("<", begin), ">=": (">=", begin), "<=": ("<", end), ">": (">=", end)}[compare.operator]
    return Sql(f"coalesce(runs.started {operator} ?, 0)", (bound,))


def _time_span(text: str) -> tuple[float, float]:
    """Return start and end (excluded) of the day, hour, minute, second or instant that a text denotes."""
    begin = parse_timestamp(text)
    date, separator, clock = text.replace(" ", "T").partition("T")
    if not separator:
        try:  # a day of local time, which is not always 24 hours
            return begin, (datetime.fromisoformat(date) + timedelta(days=1)).timestamp()
        except OverflowError:  # the last day that datetime can represent
            return begin, math.inf
    if "." in clock or "," in clock:
        return begin, math.nextafter(begin, math.inf)
    digits = re.sub(r"\D", "", re.split(r"[Z+-]", clock)[0])
    return begin, begin + {2: 3600.0, 4: 60.0}.get(len(digits), 1.0)


_RESERVED: dict[str, Callable[[Comparison], Sql]] = {
    **{word: partial(_text_comparison, column=column) for word, column in TEXT_COLUMNS.items()},
    "tag": _tag_comparison,
    "started": _started_comparison,
    "archived": partial(_flag_comparison, column="runs.archived"),
    "older_code": partial(_flag_comparison, column="runs.older_code"),
}


# Config keys.

_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """SQL of a config value and of its JSON type (NULL if the key is missing).

    Both have the same `parameters`.
    """

    type: str
    value: str
    parameters: tuple[str]
    json_pair: str | None = None
    """SQL of the JSON array that has the value twice, with all digits of integers; it takes the parameters twice."""

    @classmethod
    def of(cls, key: str) -> ConfigValue:
        """Return the SQL of the value of a config key."""
        key = storable_text(key)
        if _PLAIN_KEY.fullmatch(key):
            return cls(
                "json_type(runs.config, ?)",
                "json_extract(runs.config, ?)",
                (f'$."{key}"',),
                "json_extract(runs.config, ?, ?)",
            )
        # a JSON path cannot express every key; json_each is slower
        lookup = "(SELECT {} FROM json_each(runs.config) WHERE key = ?)"
        return cls(lookup.format("type"), lookup.format("value"), (key,))


def config_values(keys: Sequence[str]) -> Sql:
    """Return SQL of a JSON array that starts with the values of these config keys, null for missing ones."""
    if keys and all(map(_PLAIN_KEY.fullmatch, keys)):  # for several paths json_extract distinguishes true from 1
        paths = [f'$."{storable_text(key)}"' for key in (*keys, *keys[:1])]
        return Sql(f"json_extract(runs.config, {_placeholders(paths)})", tuple(paths))
    configs = [ConfigValue.of(key) for key in keys]
    values = ", ".join(config.value for config in configs)
    return Sql(f"json_array({values})", tuple(parameter for config in configs for parameter in config.parameters))


def _config_comparison(compare: Comparison, *, otherwise: Sql) -> Sql:
    """Compile a comparison with a config value of any type.

    `otherwise` applies if the config has no such key.
    """
    config = ConfigValue.of(compare.key)
    on_text, on_number = _config_text_comparison(compare, config), _config_number_comparison(compare, config)
    cases = {
        **dict.fromkeys(("text", "array", "object"), on_text),  # arrays and objects compare as JSON text
        **dict.fromkeys(("integer", "real"), on_number),
        **{kind: _config_constant_comparison(compare, value) for kind, value in _CONSTANTS.items()},
    }
    whens = " ".join(f"WHEN '{json_type}' THEN {matches.text}" for json_type, matches in cases.items())
    parameters = [value for matches in cases.values() for value in matches.parameters]
    return Sql(
        f"(CASE {config.type} {whens} ELSE {otherwise.text} END)",
        (*config.parameters, *parameters, *otherwise.parameters),
    )


def _config_text_comparison(compare: Comparison, config: ConfigValue) -> Sql:
    if compare.operator == "~":
        part = f"has_part({config.value}, ?)"
        return _join_terms([Sql(part, (*config.parameters, storable_text(text))) for text in compare.texts], "OR")
    if compare.operator in ("=", "!="):
        return Sql(_is_among(compare, config.value), (*config.parameters, json.dumps(compare.texts)))
    if not isinstance(compare.values[0], str):
        return NEVER
    return Sql(f"{config.value} {compare.operator} ?", (*config.parameters, storable_text(compare.values[0])))


def _config_number_comparison(compare: Comparison, config: ConfigValue) -> Sql:
    """Compile a comparison with a number in the config.

    SQLite's JSON parser reads the numbers of both the filter and the config, because it may round differently
    than Python.
    """
    numbers = _numbers(compare)
    if compare.operator in ("=", "!="):
        long = [number for number in numbers if isinstance(number, int) and abs(number) >= 2**63]
        if long and config.json_pair is not None:
            return _long_integer_comparison(compare, config, long)
        return Sql(_is_among(compare, config.value), (*config.parameters, _json_numbers(numbers)))
    if compare.operator == "~" or not numbers:
        return NEVER
    text = f"{config.value} {compare.operator} json_extract(?, '$[0]')"
    return Sql(text, (*config.parameters, _json_numbers(numbers)))


def _long_integer_comparison(compare: Comparison, config: ConfigValue, long: Sequence[int]) -> Sql:
    """Compile an equality with integers that SQLite would round: these are compared by their digits."""
    others = [number for number in _numbers(compare) if number not in long]
    texts = [str(number) for number in long] + [repr(float(number)) for number in long if float(number) == number]
    pairs = json.dumps([f"[{text},{text}]" for text in texts])
    is_among = f"{config.value} IN (SELECT value FROM json_each(?))"
    is_long = f"{config.json_pair} IN (SELECT value FROM json_each(?))"
    negation = "NOT " if compare.operator == "!=" else ""
    parameters = (*config.parameters, _json_numbers(others), *config.parameters, *config.parameters, pairs)
    return Sql(f"{negation}({is_among} OR {is_long})", parameters)


def _config_constant_comparison(compare: Comparison, constant: bool | None) -> Sql:
    is_listed = any(value is constant for value in compare.values)
    return ALWAYS if (compare.operator, is_listed) in (("=", True), ("!=", False)) else NEVER


def _is_among(compare: Comparison, value: str) -> str:
    return f"{value} {'NOT ' if compare.operator == '!=' else ''}IN (SELECT value FROM json_each(?))"


def _json_numbers(numbers: Sequence[float]) -> str:
    texts = ["9e999" if number == math.inf else "-9e999" if number == -math.inf else repr(number) for number in numbers]
    return f"[{','.join(texts)}]"


# Metrics.


def _metric_comparison(compare: Comparison, function: Function, metrics: Metrics) -> Sql:
    """Compile a comparison with a statistic of a metric.

    NULL means NaN for `last` and `first`, and a missing value for other statistics.
    """
    if compare.key not in metrics or compare.operator == "~":
        return NEVER
    require_goal(compare.key, function, metrics)
    column = _metric_column(function, metrics[compare.key][1])
    numbers = _numbers(compare)
    if compare.operator in ("=", "!="):
        unequal = compare.operator == "!="
        numbers = [float(number) for number in numbers if float(number) == number]  # no value equals another integer
        among = f"{column} {'NOT ' if unequal else ''}IN ({_placeholders(numbers)})"
        on_nan = function in ("last", "first") and any(map(_is_nan, compare.values)) != unequal
        matches = Sql(f"CASE WHEN {column} IS NULL THEN {on_nan:d} ELSE {among} END", tuple(numbers))
    elif numbers:
        number = numbers[0]  # compared exactly by SQLite if it has 64 bits
        matches = Sql(f"{column} {compare.operator} ?", (number if abs(number) < 2**63 else float(number),))
    else:
        return NEVER
    value = _select_from_summary(matches, metrics[compare.key][0])
    return Sql(f"coalesce({value.text}, 0)", value.parameters)


def require_goal(metric: str, function: Function | None, metrics: Metrics) -> None:
    """Reject the best value of a metric whose high and low values are equally good.

    Raises:
        InputError: If the function is `best` and the goal of the metric is `none`.
    """
    if function == "best" and metric in metrics and metrics[metric][1] == "none":
        raise InputError(
            f"best({metric}): neither high nor low values of this metric are better; use min({metric}), max({metric}) "
            f"or last({metric}), or declare its goal with the command `define`"
        )


def metric_value(metric: str, function: Function, metrics: Metrics) -> Sql:
    """Return SQL of a statistic of a run's metric.

    It is NULL if there is no value, or if the last or first value is NaN.
    """
    if metric not in metrics:
        return Sql("NULL")
    metric_id, goal = metrics[metric]
    if function == "best" and goal == "none":
        return Sql("NULL")
    return _select_from_summary(Sql(_metric_column(function, goal)), metric_id)


def _select_from_summary(expression: Sql, metric_id: int) -> Sql:
    return Sql(
        f"(SELECT {expression.text} FROM summary AS s WHERE s.run_id = runs.id AND s.metric_id = ?)",
        (*expression.parameters, metric_id),
    )


def _metric_column(function: Function, goal: Goal) -> str:
    series = "SELECT p.value FROM points AS p WHERE p.run_id = s.run_id AND p.metric_id = s.metric_id ORDER BY p.step"
    if function == "first":
        return f"({series} LIMIT 1)"
    if function == "smooth":  # avg() ignores NaN, which is stored as NULL
        return f"(SELECT avg(value) FROM ({series} DESC LIMIT {SMOOTHED_POINTS}))"
    if function == "best":  # as RunRecord.best
        return f"(CASE WHEN NOT {ENDS_NOT_FINITE} AND NOT {HAS_DIVERGED} THEN s.{goal} END)"
    return f"s.{function}"


def _placeholders(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _numbers(compare: Comparison) -> list[float]:
    """Return the values that are numbers, without NaN, which equals nothing."""
    return [
        value
        for value in compare.values
        if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    ]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
