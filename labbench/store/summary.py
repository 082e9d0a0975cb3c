"""Points in, and the summary of their series with them: last, min and max with their steps, how many, how many bad.

A series that grows forward costs one upsert a batch. One that goes back or repeats a step, where the last write wins,
has its summary counted again from its points.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from itertools import repeat
from operator import lt

_INSERT = "INSERT OR REPLACE INTO points (run_id, metric_id, step, time_ms, value) VALUES (?, ?, ?, ?, ?)"

_LAST_STEP = "SELECT last_step FROM summary WHERE run_id = ? AND metric_id = ?"

# Two-argument min() and max() are NULL as soon as one argument is, hence the CASEs.
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

# `9e999` is SQLite's infinity; a comparison with NULL, which is NaN, is NULL.
_RECOUNT = """
INSERT INTO summary
    (run_id, metric_id, n, n_nonfinite, first_nonfinite_step, last, last_step, min, min_step, max, max_step)
SELECT
    s.run_id, s.metric_id, s.n, s.n_nonfinite, s.first_nonfinite_step,
    (SELECT value FROM points AS p WHERE p.run_id = s.run_id AND p.metric_id = s.metric_id AND p.step = s.last_step),
    s.last_step,
    s.low,
    (SELECT min(step) FROM points AS p WHERE p.run_id = s.run_id AND p.metric_id = s.metric_id AND p.value = s.low),
    s.high,
    (SELECT min(step) FROM points AS p WHERE p.run_id = s.run_id AND p.metric_id = s.metric_id AND p.value = s.high)
FROM (
    SELECT run_id, metric_id, count(*) AS n,
        count(*) - count(finite) AS n_nonfinite,
        min(CASE WHEN finite IS NULL THEN step END) AS first_nonfinite_step,
        max(step) AS last_step, min(finite) AS low, max(finite) AS high
    FROM (
        SELECT run_id, metric_id, step, CASE WHEN abs(value) < 9e999 THEN value END AS finite
        FROM points WHERE run_id = :run AND (:metric IS NULL OR metric_id = :metric)
    )
    GROUP BY run_id, metric_id
) AS s
"""


def add_points(
    connection: sqlite3.Connection,
    run_id: int,
    metric_id: int,
    steps: Sequence[int],
    times: Sequence[int],
    values: Sequence[float],
) -> None:
    """Append to a series, or set steps of it anew, and keep its summary right. The caller holds a transaction."""
    if not len(steps) == len(times) == len(values):
        raise ValueError(f"{len(steps)} steps, {len(times)} times and {len(values)} values: they belong together")
    if not steps:
        return
    known = connection.execute(_LAST_STEP, (run_id, metric_id)).fetchone()
    forward = (known is None or known[0] < steps[0]) and all(map(lt, steps, steps[1:]))
    connection.executemany(_INSERT, zip(repeat(run_id), repeat(metric_id), steps, times, values, strict=False))
    if forward:
        connection.execute(_MERGE, (run_id, metric_id, *_summarised(steps, values)))
    else:
        recount(connection, run_id, metric_id)


def forget_points(connection: sqlite3.Connection, run_id: int, *, after: int | None) -> None:
    """Delete the points of a run behind a step (all of them for None). The caller holds a transaction.

    At the step itself stand what was measured at the end of an epoch, before the boundary, and what the next epoch
    measured first: the next attempt measures that again, and its value replaces the old one.
    """
    if after is None:
        connection.execute("DELETE FROM points WHERE run_id = ?", (run_id,))
    else:
        connection.execute("DELETE FROM points WHERE run_id = ? AND step > ?", (run_id, after))
    recount(connection, run_id)


def recount(connection: sqlite3.Connection, run_id: int, metric_id: int | None = None) -> None:
    """Make the summary of one series, or of all of a run, again from its points."""
    series = {"run": run_id, "metric": metric_id}
    for table in ("summary", "rollup"):
        connection.execute(
            f"DELETE FROM {table} WHERE run_id = :run AND (:metric IS NULL OR metric_id = :metric)", series
        )
    connection.execute(_RECOUNT, series)


def _summarised(steps: Sequence[int], values: Sequence[float]) -> tuple[int | float | None, ...]:
    """The summary's columns from `n` on, for steps that increase."""
    n_nonfinite, first_nonfinite_step = 0, None
    finite_steps, finite = steps, values
    if not math.isfinite(sum(values)):  # a sum of finite values may overflow: then this only costs time
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
