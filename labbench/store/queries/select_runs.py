"""Queries over the runs that match a filter: sorted columns and logged metrics."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from labbench.filters.parser import Filter, RunFilter, parse
from labbench.metrics import Goal
from labbench.records import require_key
from labbench.store.queries.filter_sql import Sql, config_values, filter_condition, read_metrics
from labbench.store.queries.order_sql import WORD_HEADINGS, heading_value, order_by, require_heading, split_heading
from labbench.store.queries.run_sql import FROM_RUNS
from labbench.store.row_checks import (
    COLUMNS,
    OPTIONAL_NUMBER,
    SORTABLE,
    RowCheck,
    ValueKind,
    require_shallow_json,
)


@dataclass(frozen=True, slots=True)
class Page:
    """Sort order of runs and the range to read."""

    sort: str | None = None
    """Column, config key, metric or function of a metric; None keeps the order in which runs were queued."""
    descending: bool = False
    limit: int | None = None
    """Maximum number of runs; None: all."""
    offset: int = 0
    """Number of runs to skip."""


def filter_tree(runs: RunFilter) -> Filter | None:
    """Parse a filter.

    Raises:
        InputError: If the filter is invalid.
    """
    return parse(runs) if isinstance(runs, str) else runs


def select_columns(connection: sqlite3.Connection, columns: str, runs: RunFilter, rest: str = "") -> list[Any]:
    """Return rows of SQL columns of the matching runs.

    `rest` follows the WHERE clause.
    """
    condition = filter_condition(filter_tree(runs), read_metrics(connection))
    query = f"SELECT {columns} {FROM_RUNS} WHERE {condition.text} {rest}"
    return connection.execute(query, condition.parameters).fetchall()


def select_page(connection: sqlite3.Connection, columns: Sql, runs: RunFilter, page: Page) -> list[tuple[Any, ...]]:
    """Return rows of SQL columns of one page of the matching runs.

    Raises:
        InputError: If the filter is invalid, or no run has a value to sort by.
    """
    metrics = read_metrics(connection)
    condition = filter_condition(filter_tree(runs), metrics)
    if page.sort is not None:
        require_heading(connection, page.sort, metrics)
    by = order_by(page.sort, descending=page.descending, metrics=metrics)
    query = f"SELECT {columns.text} {FROM_RUNS} WHERE {condition.text} ORDER BY {by.text} LIMIT ? OFFSET ?"
    limit = -1 if page.limit is None else page.limit
    parameters = (*columns.parameters, *condition.parameters, *by.parameters, limit, page.offset)
    return connection.execute(query, parameters).fetchall()


def select_values(
    connection: sqlite3.Connection, headings: Sequence[str], by: Sequence[str], runs: RunFilter, page: Page
) -> list[tuple[Any, ...]]:
    """Return (key, settings, value, value, ...) of the matching runs; see `Reader.values`."""
    metrics = read_metrics(connection)
    parts = [Sql("runs.key"), config_values(by), *(heading_value(heading, metrics) for heading in headings)]
    columns = Sql(", ".join(part.text for part in parts), tuple(chain(*(part.parameters for part in parts))))
    rows = select_page(connection, columns, runs, page)
    kinds = {f"{heading} ": _heading_kind(heading) for heading in headings}
    for key, settings, *_ in RowCheck("runs", ["key", "config", *kinds], kinds)(rows):
        require_key(key)
        require_shallow_json(settings, "runs", "config")
    return rows


def _heading_kind(heading: str) -> ValueKind:
    """Return the values that may be under a heading."""
    if split_heading(heading)[1] is not None:
        return OPTIONAL_NUMBER
    return COLUMNS["runs"].get(heading, SORTABLE) if heading in WORD_HEADINGS else SORTABLE


def select_logged_metrics(connection: sqlite3.Connection, runs: RunFilter) -> dict[str, Goal]:
    """Return the goals of the metrics that the matching runs have logged, in the order they were first logged."""
    metrics = read_metrics(connection)
    condition = filter_condition(filter_tree(runs), metrics)
    logged = f"""
        SELECT m.name FROM metrics AS m WHERE EXISTS (
            SELECT 1 {FROM_RUNS} CROSS JOIN summary AS s ON s.run_id = runs.id AND s.metric_id = m.id
            WHERE {condition.text}
        ) ORDER BY m.id
    """
    return {name: metrics[name][1] for (name,) in connection.execute(logged, condition.parameters)}
