"""Series as numpy arrays: whole, or in buckets for drawing. numpy is imported where it is used."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Curve:
    """A series in buckets of equal width in steps, empty ones left out; a short series has one bucket a point.

    All arrays are of one length. `low`, `high` and `mean` are of the finite values, NaN where a bucket has none.
    """

    run_id: int
    first_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    first_time: NDArray[np.int64]
    """Milliseconds since the run's start."""
    last_time: NDArray[np.int64]
    n: NDArray[np.int64]
    """Points in the bucket, NaN and infinities included."""
    n_nonfinite: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]


def read_series(
    connection: sqlite3.Connection, run_id: int, metric_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Steps, milliseconds since the run's start, and values, (N,) each, in the order of the steps."""
    import numpy as np  # 0.1 s, which listing runs need not pay

    query = "SELECT step, time_ms, value FROM points WHERE run_id = ? AND metric_id = ? ORDER BY step"
    columns = np.dtype([("step", np.int64), ("time", np.int64), ("value", np.float64)])
    rows = np.fromiter(connection.execute(query, (run_id, metric_id)), columns)  # numpy reads None as NaN
    return rows["step"].copy(), rows["time"].copy(), rows["value"].copy()


def read_curve(connection: sqlite3.Connection, run_id: int, metric_id: int, columns: int) -> Curve | None:
    """A series in at most `columns` buckets, None where the run has no point of it."""
    import numpy as np

    steps, times, values = read_series(connection, run_id, metric_id)  # (N,) each
    if not len(steps):
        return None
    starts = np.arange(len(steps))  # (B,): the first point of each bucket
    if len(steps) > columns:
        position = (steps - steps[0]) / (float(steps[-1] - steps[0]) + 1.0)  # within [0, 1)
        starts = np.flatnonzero(np.diff((position * columns).astype(np.int64), prepend=-1))
    ends = np.append(starts[1:], len(steps))
    finite = np.isfinite(values)
    n_finite = np.add.reduceat(finite, starts, dtype=np.int64)
    kept = np.where(finite, values, np.nan)
    # divided before they are added, for a sum of finite values may overflow
    parts = np.where(finite, values, 0.0) / np.repeat(np.maximum(n_finite, 1), ends - starts)
    return Curve(
        run_id,
        first_step=steps[starts],
        last_step=steps[ends - 1],
        first_time=np.minimum.reduceat(times, starts),
        last_time=np.maximum.reduceat(times, starts),
        n=ends - starts,
        n_nonfinite=ends - starts - n_finite,
        low=np.fmin.reduceat(kept, starts),
        high=np.fmax.reduceat(kept, starts),
        mean=np.where(n_finite > 0, np.add.reduceat(parts, starts), np.nan),
    )
