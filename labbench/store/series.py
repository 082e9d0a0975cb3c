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


_OF_SERIES = "run_id = ? AND metric_id = ?"


def read_series(
    connection: sqlite3.Connection, run_id: int, metric_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Steps, milliseconds since the run's start, and values, (N,) each, in the order of the steps."""
    import numpy as np  # 0.1 s, which listing runs need not pay

    query = f"SELECT step, time_ms, value FROM points WHERE {_OF_SERIES} ORDER BY step"
    columns = np.dtype([("step", np.int64), ("time", np.int64), ("value", np.float64)])
    rows = np.fromiter(connection.execute(query, (run_id, metric_id)), columns)  # numpy reads None as NaN
    return rows["step"].copy(), rows["time"].copy(), rows["value"].copy()


def read_curve(connection: sqlite3.Connection, run_id: int, metric_id: int, columns: int) -> Curve | None:
    """A series in at most `columns` buckets, None where the run has no point of it."""
    import numpy as np

    bounds = f"SELECT n, last_step, (SELECT min(step) FROM points WHERE {_OF_SERIES}) FROM summary WHERE {_OF_SERIES}"
    row = connection.execute(bounds, (run_id, metric_id) * 2).fetchone()
    if row is None:
        return None
    n, last, first = row
    bucket = "step" if n <= columns else f"(step - {first:d}) * {columns:d} / {last - first + 1:d}"
    query = f"""
        SELECT min(step), max(step), min(time_ms), max(time_ms), count(*), count(*) - count(finite),
            min(finite), max(finite), avg(finite)
        FROM (SELECT step, time_ms, CASE WHEN abs(value) < 9e999 THEN value END AS finite
            FROM points WHERE {_OF_SERIES})
        GROUP BY {bucket} ORDER BY 1
    """
    names = ("first_step", "last_step", "first_time", "last_time", "n", "n_nonfinite", "low", "high", "mean")
    kinds = [(name, np.float64 if name in ("low", "high", "mean") else np.int64) for name in names]
    rows = np.fromiter(connection.execute(query, (run_id, metric_id)), np.dtype(kinds))
    return Curve(run_id, *(rows[name].copy() for name in names))
