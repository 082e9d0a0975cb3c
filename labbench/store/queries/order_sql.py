"""Sort order of runs: SQL of a run's value under a heading."""

from __future__ import annotations

import re
import sqlite3

from labbench.errors import InputError, did_you_mean
from labbench.filters.parser import FUNCTIONS, Function
from labbench.store.queries.filter_sql import TEXT_COLUMNS, ConfigValue, Metrics, Sql, metric_value, require_goal
from labbench.store.queries.run_records import compare_config_texts

_RUN_HEADINGS = {
    **TEXT_COLUMNS,
    "tag": "(SELECT min(tag) FROM tags WHERE run_id = runs.id)",
    "started": "runs.started",
    "archived": "runs.archived",
    "older_code": "runs.older_code",
}
_FACTS = {
    "source": "runs.source",
    "created": "runs.created",
    "finished": "runs.finished",
    "seconds": "max(0, coalesce(runs.finished, runs.heartbeat) - runs.started)",
}
"""Not reserved words: a config key or a metric of the same name takes precedence."""


WORD_HEADINGS = _RUN_HEADINGS.keys() | _FACTS.keys()
"""Headings that are words and exist in every database."""


def order_by(sort: str | None, *, descending: bool, metrics: Metrics) -> Sql:
    """Return the ORDER BY clause: NULL and NaN last in both directions, ties in queue order."""
    if sort is None:
        return Sql("runs.id DESC" if descending else "runs.id")
    value = heading_value(sort, metrics)
    return Sql(f"{value.text} {'DESC' if descending else 'ASC'} NULLS LAST, runs.id", value.parameters)


def heading_value(heading: str, metrics: Metrics) -> Sql:
    """Return SQL of a run's value under a heading.

    A heading is a reserved word, a config key, a metric (its last value) or a function of a metric.
    """
    if heading in _RUN_HEADINGS:
        return Sql(_RUN_HEADINGS[heading])
    metric, function = split_heading(heading)
    if function is not None:
        return metric_value(metric, function, metrics)
    config, last = ConfigValue.of(heading), metric_value(heading, "last", metrics)
    time = _FACTS.get(heading, "NULL")
    return Sql(f"coalesce({config.value}, {last.text}, {time})", (*config.parameters, *last.parameters))


def require_heading(connection: sqlite3.Connection, heading: str, metrics: Metrics) -> None:
    """Reject a heading that has no value in any run, probably a misspelling.

    Raises:
        InputError: If the database has runs but no such config key or metric.
    """
    metric, function = split_heading(heading)
    require_goal(metric, function, metrics)
    if metric in metrics or (function is None and heading in _RUN_HEADINGS | _FACTS):
        return
    config = ConfigValue.of(metric)
    has_key = f"SELECT 1 FROM runs WHERE {config.type} IS NOT NULL"
    if function is None and connection.execute(f"{has_key} LIMIT 1", config.parameters).fetchone():
        return
    configs = tuple(text for (text,) in connection.execute("SELECT config FROM runs"))
    if configs:  # without runs, every heading is accepted
        keys = compare_config_texts(configs).names
        headings = [*metrics] if function is not None else [*_RUN_HEADINGS, *_FACTS, *keys, *metrics]
        raise InputError(
            f"cannot sort by `{metric}`: no such column, config key or metric{did_you_mean(metric, headings)}"
        )


def split_heading(heading: str) -> tuple[str, Function | None]:
    """Return the metric or config key of a heading, and the function of the metric."""
    for function in FUNCTIONS:
        if match := re.fullmatch(rf"{function}\((.+)\)", heading):
            return match[1], function
    return heading, None
