"""Overviews of many series as numpy arrays, read with one query.

numpy is imported inside the functions, because importing it takes 0.1 s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from labbench.store.number_errors import number_errors
from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list
from labbench.store.row_checks import RowCheck
from labbench.store.series.buckets import BucketedSeries, bucket_per_point, concatenate
from labbench.store.series.overview import BUCKET, BUCKET_FIELDS, MIN_BUCKETS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Grid: TypeAlias = tuple[int, int, int, int]
"""First step, last step, steps per bucket and number of buckets: most runs of a grid share them."""

_QUERY = f"""
    SELECT run_id, o.n, first_step, o.last_step, last_ms, width, buckets, s.n
    FROM summary AS s JOIN overview AS o USING (run_id, metric_id)
    WHERE metric_id = ? AND run_id {IN_JSON_LIST} AND s.n BETWEEN o.n AND 2 * o.n
        AND abs(max) < 3e38 AND (min = 0 OR abs(min) BETWEEN 1e-37 AND 3e38) -- numbers that 32 bits can hold
"""

_check_rows = RowCheck("overview", ("run_id", "n", "first_step", "last_step", "last_ms", "width", "buckets", "n"))


def read_overviews(
    connection: sqlite3.Connection, run_ids: Sequence[int], metric_id: int
) -> Iterator[tuple[int, BucketedSeries]]:
    """Yield (run id, series) in at most 64 buckets and the points after them, for series with a good overview.

    Times are not read. A good overview has at least half of the buckets, and most of the points.

    Raises:
        StoreError: A row has values that labbench does not write.
    """
    rows_of_grid: dict[_Grid, list[tuple[int, bytes]]] = {}
    late = {}
    for run_id, n, first, last, _, width, packed, total in _check_rows(
        connection.execute(_QUERY, (metric_id, as_json_list(run_ids)))
    ):
        count = len(packed) // BUCKET.size
        if count >= MIN_BUCKETS and len(packed) % BUCKET.size == 0 and width > 0:
            rows_of_grid.setdefault((first, last, width, count), []).append((run_id, packed))
            if total > n:
                late[run_id] = last
    with number_errors("overview"):
        for grid, rows in rows_of_grid.items():
            for series in _decode(grid, rows):
                if series.run_id in late:
                    tail = _read_tail(connection, series.run_id, metric_id, late[series.run_id])
                    series = concatenate([series, tail])
                yield series.run_id, series


def _decode(grid: _Grid, rows: Sequence[tuple[int, bytes]]) -> Iterator[BucketedSeries]:
    """Yield the series of rows with the same steps, skipping those with few buckets with points."""
    import numpy as np

    first, last, width, count = grid
    starts = first + width * np.arange(count, dtype=np.int64)  # (B,)
    ends = np.append(starts[1:] - 1, last)
    packed = np.frombuffer(b"".join(packed for _, packed in rows), np.dtype(BUCKET_FIELDS)).reshape(-1, count)
    low, high, mean = (packed[field].astype(np.float64) for field in ("low", "high", "mean"))  # (R, B)
    n, n_nonfinite = np.maximum(packed["n"], 1).astype(np.int64), (packed["n"] == 0).astype(np.int64)
    with_points = low != np.inf
    for row, (run_id, _) in enumerate(rows):
        arrays: list[NDArray[Any]] = [starts, ends, n[row], n_nonfinite[row], low[row], high[row], mean[row]]
        if not with_points[row].all():
            arrays = [array[with_points[row]] for array in arrays]
        if len(arrays[0]) >= MIN_BUCKETS:
            yield _series(run_id, *arrays)


def _series(
    run_id: int, starts: NDArray[np.int64], ends: NDArray[np.int64], n: NDArray[np.int64], *values: NDArray[Any]
) -> BucketedSeries:
    return BucketedSeries(run_id, starts, ends, None, None, n, *values)


def _read_tail(connection: sqlite3.Connection, run_id: int, metric_id: int, last_step: int) -> BucketedSeries:
    """Return the points after a step, one bucket per point."""
    import numpy as np

    query = "SELECT step, value FROM points WHERE run_id = ? AND metric_id = ? AND step > ? ORDER BY step"
    columns = np.dtype([("step", np.int64), ("value", np.float64)])
    points = np.fromiter(connection.execute(query, (run_id, metric_id, last_step)), columns)  # None becomes NaN
    return bucket_per_point(run_id, points["step"].copy(), {"value": points["value"].copy()})
