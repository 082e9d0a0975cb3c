"""Insert and delete points, keeping summaries, rollups and overviews consistent."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from itertools import repeat
from operator import lt

from labbench.store.revisions import mark_rewritten
from labbench.store.series import overview, rollup

_SERIES = "run_id = ? AND metric_id = ?"

_SELECT_SUMMARY = f"SELECT n, last_step FROM summary WHERE {_SERIES}"


# min(a, b) and max(a, b) are NULL if either argument is, hence the CASEs.
_MERGE = """
INSERT INTO summary
    (run_id, metric_id, n, n_nonfinite, first_nonfinite_step, last, last_step, min, min_step, max, max_step)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, metric_id) DO UPDATE SET
    n = n + excluded.n,
    n_nonfinite = n_nonfinite + excluded.n_nonfinite,
    first_nonfinite_step = coalesce(first_nonfinite_step, excluded.first_nonfinite_step),
    last = excluded.last,
    last_step = excluded.last_step,
    min = CASE WHEN min IS NULL OR excluded.min < min THEN excluded.min ELSE min END,
    min_step = CASE WHEN min IS NULL OR excluded.min < min THEN excluded.min_step ELSE min_step END,
    max = CASE WHEN max IS NULL OR excluded.max > max THEN excluded.max ELSE max END,
    max_step = CASE WHEN max IS NULL OR excluded.max > max THEN excluded.max_step ELSE max_step END
"""


def add_points(
    connection: sqlite3.Connection,
    run_id: int,
    metric_id: int,
    steps: Sequence[int],
    times: Sequence[int],
    values: Sequence[float],
) -> None:
    """Append points to a series or replace points of the same steps, and update what is derived from them.

    The caller holds a transaction. Every write of points goes through this function.

    Args:
        steps: Steps, shape (N,).
        times: Milliseconds since the start of the run, shape (N,).
        values: Values, shape (N,).

    Raises:
        ValueError: If the lengths differ.
    """
    if not len(steps) == len(times) == len(values):
        raise ValueError(f"{len(steps)} steps, {len(times)} times and {len(values)} values: the lengths must be equal")
    if not steps:
        return
    n, last_step = connection.execute(_SELECT_SUMMARY, (run_id, metric_id)).fetchone() or (0, None)
    insert_points(connection, run_id, metric_id, steps, times, values)
    if n == 0 or not _follow(last_step, steps):
        mark_rewritten(connection, run_id, metric_id)
    if not _follow(last_step, steps):
        rebuild_series(connection, run_id, metric_id, from_step=min(steps))
        return
    connection.execute(_MERGE, (run_id, metric_id, *_summarize(steps, values)))
    if rollup.is_chunk_due(run_id, metric_id, n, n + len(steps)):
        new = rollup.PointColumns(steps, times, values)
        rollup.append_chunks(connection, run_id, metric_id, new, n_before=n)
    overview.append_points(connection, run_id, metric_id, (steps, times, values), n=n)


def is_append(connection: sqlite3.Connection, run_id: int, metric_id: int, steps: Sequence[int]) -> bool:
    """Return True if the steps, shape (N,), increase and come after all steps of the series."""
    row = connection.execute(_SELECT_SUMMARY, (run_id, metric_id)).fetchone()
    return _follow(None if row is None else row[1], steps)


def _follow(last_step: int | None, steps: Sequence[int]) -> bool:
    return (last_step is None or last_step < steps[0]) and all(map(lt, steps, steps[1:]))


def delete_points(connection: sqlite3.Connection, run_id: int, *, after: int | None) -> None:
    """Delete the points of a run after a step, or all points if it is None.

    The caller holds a transaction. Points at the step itself are kept: the last ones of the epoch that ended there, and
    the first ones of the next epoch, which the next attempt replaces. System metrics after the step are kept too: no
    later attempt can measure them again.
    """
    if after is None:
        mark_rewritten(connection, run_id)
        for table in ("points", "summary", "rollup", "overview"):
            connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))
        return
    query = """
        SELECT metric_id FROM summary JOIN metrics ON metrics.id = metric_id
        WHERE run_id = ? AND last_step > ? AND metrics.name NOT GLOB 'system/*'
    """
    for (metric_id,) in connection.execute(query, (run_id, after)).fetchall():
        query = f"DELETE FROM points WHERE {_SERIES} AND step > ?"
        connection.execute(query, (run_id, metric_id, after))
        mark_rewritten(connection, run_id, metric_id)
        rebuild_series(connection, run_id, metric_id, from_step=after + 1)


def delete_series(connection: sqlite3.Connection, run_id: int, metric_id: int) -> None:
    """Delete all points of a series.

    The caller holds a transaction.
    """
    connection.execute(f"DELETE FROM points WHERE {_SERIES}", (run_id, metric_id))
    mark_rewritten(connection, run_id, metric_id)
    rebuild_series(connection, run_id, metric_id)


def rebuild_series(
    connection: sqlite3.Connection, run_id: int, metric_id: int, *, from_step: int = rollup.LEAST_STEP
) -> None:
    """Recompute summary and rollup of a series whose points have changed from `from_step` on.

    The overview loses these points; the next points, the end of the run or `overview.complete` add them again. The
    caller holds a transaction.
    """
    overview.truncate(connection, run_id, metric_id, from_step=from_step)
    chunks = rollup.truncate_chunks(connection, run_id, metric_id, from_step=from_step)
    rollup.extend_chunks(connection, run_id, metric_id, chunks=chunks)
    connection.execute(f"DELETE FROM summary WHERE {_SERIES}", (run_id, metric_id))
    if columns := _summarize_chunks(connection, run_id, metric_id):
        connection.execute(_MERGE, (run_id, metric_id, *columns))
    query = f"SELECT step, value FROM points WHERE {_SERIES} AND step >= ? ORDER BY step"
    start = rollup.first_step_after_chunks(connection, run_id, metric_id)
    tail = connection.execute(query, (run_id, metric_id, start)).fetchall()
    if tail:
        values = [math.nan if value is None else value for _, value in tail]
        connection.execute(_MERGE, (run_id, metric_id, *_summarize([step for step, _ in tail], values)))


def _summarize_chunks(
    connection: sqlite3.Connection, run_id: int, metric_id: int
) -> tuple[int | float | None, ...] | None:
    """Return the columns of the summary from `n` on, for the points in chunks.

    Returns None if there are no chunks.
    """
    cover = list(rollup.read_cover(connection, run_id, metric_id))
    if not cover:
        return None

    def first_step(bucket: rollup.Bucket, condition: str, *values: float) -> int:
        """Return the first step in a bucket whose point meets a condition; there must be one."""
        query = f"SELECT min(step) FROM points WHERE {_SERIES} AND step BETWEEN ? AND ? AND {condition}"
        parameters = (run_id, metric_id, bucket.first_step, bucket.last_step, *values)
        row: tuple[int] = connection.execute(query, parameters).fetchone()
        return row[0]

    first_bad = next((bucket for _, bucket in cover if bucket.n_nonfinite), None)
    bad_step = first_bad and first_step(first_bad, "(value IS NULL OR abs(value) = 9e999)")
    extremes: tuple[int | float | None, ...] = (None, None, None, None)
    if finite := [bucket for size, bucket in cover if bucket.n_nonfinite < size]:
        lowest = min(finite, key=lambda bucket: bucket.low)  # the first one if several are equal
        highest = max(finite, key=lambda bucket: bucket.high)
        low_step = first_step(lowest, "value = ?", lowest.low)
        high_step = first_step(highest, "value = ?", highest.high)
        extremes = lowest.low, low_step, highest.high, high_step
    n, n_nonfinite = sum(size for size, _ in cover), sum(bucket.n_nonfinite for _, bucket in cover)
    last_step = cover[-1][1].last_step
    query = f"SELECT value FROM points WHERE {_SERIES} AND step = ?"
    [last] = connection.execute(query, (run_id, metric_id, last_step)).fetchone()
    return n, n_nonfinite, bad_step, last, last_step, *extremes


def _summarize(steps: Sequence[int], values: Sequence[float]) -> tuple[int | float | None, ...]:
    """Return the columns of the summary from `n` on, for increasing steps."""
    n_nonfinite, first_nonfinite_step = 0, None
    finite_steps, finite = steps, values
    if not math.isfinite(sum(values)):  # a sum of finite values may overflow, which only costs time
        finite_pairs = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
        n_nonfinite = len(steps) - len(finite_pairs)
        finite_steps, finite = [step for step, _ in finite_pairs], [value for _, value in finite_pairs]
        bad = (step for step, value in zip(steps, values, strict=True) if not math.isfinite(value))
        first_nonfinite_step = next(bad, None)
    lowest: tuple[float | None, int | None] = (None, None)
    highest = lowest
    if finite:
        low, high = min(finite), max(finite)
        lowest, highest = (low, finite_steps[finite.index(low)]), (high, finite_steps[finite.index(high)])
    return (len(steps), n_nonfinite, first_nonfinite_step, values[-1], steps[-1], *lowest, *highest)


_INTO = "INSERT OR REPLACE INTO points (run_id, metric_id, step, time_ms, value) VALUES"

_ROWS = 50
"""Rows per statement; more rows are not faster. SQLite's limit is 32,766 parameters, 999 before version 3.32."""

_MANY = f"{_INTO} {', '.join(f'(?1, ?2, ?{3 * row}, ?{3 * row + 1}, ?{3 * row + 2})' for row in range(1, _ROWS + 1))}"

_ONE = f"{_INTO} (?, ?, ?, ?, ?)"


def insert_points(
    connection: sqlite3.Connection,
    run_id: int,
    metric_id: int,
    steps: Sequence[int],
    times: Sequence[int],
    values: Sequence[float],
) -> None:
    """Insert points of a series, or replace points of the same steps.

    The caller holds a transaction. `steps`, `times` (milliseconds) and `values` have shape (N,).
    """
    whole = len(steps) - len(steps) % _ROWS
    parameters: list[int | float] = [run_id, metric_id, *repeat(0, 3 * _ROWS)]
    for start in range(0, whole, _ROWS):
        end = start + _ROWS
        parameters[2::3], parameters[3::3], parameters[4::3] = steps[start:end], times[start:end], values[start:end]
        connection.execute(_MANY, parameters)
    rest = zip(repeat(run_id), repeat(metric_id), steps[whole:], times[whole:], values[whole:], strict=False)
    connection.executemany(_ONE, rest)
