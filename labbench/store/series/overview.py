"""Overview of a series: at most 64 buckets of equal ranges of steps, packed into one small row.

Charts of very many runs read the overview of each series instead of its points. An overview covers the points up to
its `last_step`; readers add the newer points. So it may lag behind while a run is recorded, and rewriting it takes a
small share of the time of recording the points.
"""

from __future__ import annotations

import math
import sqlite3
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from struct import Struct
from typing import TypeAlias

from labbench.store.number_errors import number_errors
from labbench.store.series.rollup import GREATEST_STEP, LEAST_STEP

BUCKETS = 64
"""Maximum number of buckets; a series of at most as many points has no overview."""

MIN_BUCKETS = BUCKETS // 2
"""Minimum number of buckets of an overview that is good enough to be read."""

BUCKET = Struct("<fffH")
"""Binary format: minimum, maximum, mean and number of the finite values."""

BUCKET_FIELDS = [("low", "<f4"), ("high", "<f4"), ("mean", "<f4"), ("n", "<u2")]
"""The format as fields of a numpy dtype."""

REWRITE_MS = 1000
"""Milliseconds of a run between two writes of an overview, unless many points come at once."""

MAX_POINTS_AT_UPGRADE = 1_000_000
"""Number of points that are read to add overviews to a database of an older version, about a second."""

_MANY_POINTS = 512
"""Number of new points whose recording takes longer than rewriting the overview."""

_POINTS_PER_FETCH = 10_000

_MAX_COUNT = 2**16 - 1
"""Largest stored number of values; buckets with more have nearly equal weights."""

_MAX_FLOAT = 3.4028234663852886e38
"""Largest finite number of 32 bits."""

_SERIES = "run_id = ? AND metric_id = ?"

_Bucket: TypeAlias = tuple[float, float, float, int]
"""Minimum, maximum, mean and number of the finite values."""

_EMPTY: _Bucket = (math.inf, -math.inf, math.nan, 0)
"""Bucket without points."""

_GAP: _Bucket = (math.nan, math.nan, math.nan, 0)
"""Bucket without a finite point."""


@dataclass(slots=True)
class Overview:
    """Buckets of the steps from `first_step` on, `width` steps each."""

    n: int
    """Number of points up to `last_step`."""
    first_step: int
    last_step: int
    """Last step that is covered."""
    last_ms: int
    """Time of the last point in milliseconds since the start of the run."""
    width: int
    """Steps per bucket, a power of two."""
    buckets: list[_Bucket]

    def add(self, steps: Sequence[int], times: Sequence[int], values: Sequence[float]) -> None:
        """Add points, shape (N,) each, whose steps increase and come after `last_step`."""
        while (steps[-1] - self.first_step) // self.width >= BUCKETS:
            pairs = zip(self.buckets[::2], [*self.buckets[1::2], _EMPTY], strict=False)
            self.buckets = [_merge(left, right) for left, right in pairs]
            self.width *= 2
        start = 0
        while start < len(steps):
            index = (steps[start] - self.first_step) // self.width
            end = bisect_left(steps, self.first_step + (index + 1) * self.width, start)
            bucket = _summarize(values[start:end])
            if index < len(self.buckets):
                bucket = _merge(self.buckets.pop(), bucket)
            self.buckets += [_EMPTY] * (index - len(self.buckets))
            self.buckets.append(bucket)
            start = end
        self.n, self.last_step, self.last_ms = self.n + len(steps), steps[-1], times[-1]

    def packed(self) -> bytes:
        """Return the buckets in their binary format."""
        packing = Struct("<" + BUCKET.format.removeprefix("<") * len(self.buckets))
        try:
            return packing.pack(*chain.from_iterable(self.buckets))
        except (OverflowError, struct.error):  # numbers that the format cannot hold
            clipped = (
                (_clip(low), _clip(high), _clip(mean), min(n, _MAX_COUNT)) for low, high, mean, n in self.buckets
            )
            return packing.pack(*chain.from_iterable(clipped))


def append_points(
    connection: sqlite3.Connection,
    run_id: int,
    metric_id: int,
    points: tuple[Sequence[int], Sequence[int], Sequence[float]],
    *,
    n: int,
) -> None:
    """Update the overview after points were appended to a series, if that is due.

    The caller holds a transaction.

    Args:
        points: The appended steps, times in milliseconds and values, shape (N,) each.
        n: Number of points before.
    """
    steps, times, _ = points
    total = n + len(steps)
    if total <= BUCKETS:
        return
    overview = _read(connection, run_id, metric_id)
    if overview is not None:
        fills_bucket = BUCKETS * (total - overview.n) >= overview.n
        if not fills_bucket or (times[-1] - overview.last_ms < REWRITE_MS and len(steps) < _MANY_POINTS):
            return
    if n == 0:
        overview = _begin(steps)
    if overview is None or overview.n != n:
        _extend(connection, run_id, metric_id, overview)
        return
    overview.add(*points)
    _write(connection, run_id, metric_id, overview)


def complete(connection: sqlite3.Connection, run_id: int) -> None:
    """Add the missing points to all overviews of a run, and the missing overviews.

    The caller holds a transaction.
    """
    query = f"""
        SELECT metric_id FROM summary LEFT JOIN overview USING (run_id, metric_id)
        WHERE run_id = ? AND summary.n > {BUCKETS} AND overview.n IS NOT summary.n
    """
    for (metric_id,) in connection.execute(query, (run_id,)).fetchall():
        _extend(connection, run_id, metric_id, _read(connection, run_id, metric_id))


def truncate(connection: sqlite3.Connection, run_id: int, metric_id: int, *, from_step: int) -> None:
    """Remove the bucket of a step and later ones; remove the whole overview if few buckets would be left.

    The caller holds a transaction, and has deleted or changed the points from the step on.
    """
    overview = _read(connection, run_id, metric_id)
    if overview is not None and overview.last_step < from_step:
        return
    remaining = 0 if overview is None else (from_step - overview.first_step) // overview.width
    if overview is None or remaining < MIN_BUCKETS:
        connection.execute(f"DELETE FROM overview WHERE {_SERIES}", (run_id, metric_id))
        return
    overview.buckets = overview.buckets[:remaining]
    while overview.buckets[-1][0] == math.inf:  # without points
        overview.buckets.pop()
    overview.last_step = overview.first_step + remaining * overview.width - 1
    query = f"SELECT count(*) FROM points WHERE {_SERIES} AND step <= ?"
    [overview.n] = connection.execute(query, (run_id, metric_id, overview.last_step)).fetchone()
    _write(connection, run_id, metric_id, overview)


def add_missing(connection: sqlite3.Connection, max_points: int | None = None) -> None:
    """Add the missing overviews, the newest runs first, until `max_points` points have been read.

    The caller holds a transaction.
    """
    query = f"""
        SELECT run_id, metric_id, summary.n FROM summary LEFT JOIN overview USING (run_id, metric_id)
        WHERE summary.n > {BUCKETS} AND overview.n IS NULL ORDER BY run_id DESC
    """
    for run_id, metric_id, n in connection.execute(query).fetchall():
        if max_points is not None:
            if n > max_points:
                continue
            max_points -= n
        _extend(connection, run_id, metric_id, None)


def agrees_with_points(connection: sqlite3.Connection, run_id: int, metric_id: int) -> bool:
    """Return True if the series has no overview, or one that agrees with the points that it covers."""
    query = f"SELECT 1 FROM main.overview WHERE {_SERIES}"
    overview = _read(connection, run_id, metric_id, table="main.overview")
    if overview is None:
        return connection.execute(query, (run_id, metric_id)).fetchone() is None
    expected = Overview(0, overview.first_step, overview.first_step, 0, overview.width, [])
    for points in _read_points(connection, run_id, metric_id, LEAST_STEP, overview.last_step):
        if points[0][0] < overview.first_step:
            return False
        expected.add(*points)
    return (overview.n, overview.width, len(overview.buckets)) == (
        expected.n,
        expected.width,
        len(expected.buckets),
    ) and all(map(_is_close, overview.buckets, BUCKET.iter_unpack(expected.packed())))


def _read(connection: sqlite3.Connection, run_id: int, metric_id: int, *, table: str = "overview") -> Overview | None:
    """Return the overview of a series; None if it has none, or one that another program has changed."""
    query = f"SELECT n, first_step, last_step, last_ms, width, buckets FROM {table} WHERE {_SERIES}"
    row = connection.execute(query, (run_id, metric_id)).fetchone()
    if row is None or not all(isinstance(number, int) for number in row[:-1]) or row[4] <= 0:
        return None
    n, first_step, last_step, last_ms, width, packed = row
    if not isinstance(packed, bytes) or len(packed) % BUCKET.size or len(packed) > BUCKETS * BUCKET.size:
        return None
    return Overview(n, first_step, last_step, last_ms, width, list(BUCKET.iter_unpack(packed)))


def _begin(steps: Sequence[int]) -> Overview:
    """Return an empty overview that begins with the first of the steps, shape (N,)."""
    return Overview(0, steps[0], steps[0], 0, 1, [])


def _extend(connection: sqlite3.Connection, run_id: int, metric_id: int, overview: Overview | None) -> None:
    """Add the stored points after the last step of the overview, and write it. Raises StoreError for other values."""
    first_step = LEAST_STEP if overview is None else overview.last_step + 1
    with number_errors("points"):
        for points in _read_points(connection, run_id, metric_id, first_step, GREATEST_STEP):
            if overview is None:
                overview = _begin(points[0])
            overview.add(*points)
    if overview is not None:
        _write(connection, run_id, metric_id, overview)


def _read_points(
    connection: sqlite3.Connection, run_id: int, metric_id: int, first_step: int, last_step: int
) -> Iterator[tuple[Sequence[int], Sequence[int], Sequence[float]]]:
    """Yield steps, times and values, shape (N,) each, in parts; NaN becomes infinity."""
    query = f"""
        SELECT step, time_ms, coalesce(value, 9e999) FROM points
        WHERE {_SERIES} AND step BETWEEN ? AND ? ORDER BY step
    """
    rows = connection.execute(query, (run_id, metric_id, first_step, last_step))
    while part := rows.fetchmany(_POINTS_PER_FETCH):
        steps, times, values = zip(*part, strict=True)
        yield steps, times, values


def _write(connection: sqlite3.Connection, run_id: int, metric_id: int, overview: Overview) -> None:
    connection.execute(
        """
        INSERT OR REPLACE INTO overview (run_id, metric_id, n, first_step, last_step, last_ms, width, buckets)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            run_id, metric_id, overview.n, overview.first_step, overview.last_step, overview.last_ms, overview.width,
            overview.packed(),
        ),
    )  # fmt: skip


def _summarize(values: Sequence[float]) -> _Bucket:
    """Return the bucket of at least one value."""
    total = sum(values)
    if not math.isfinite(total):
        values = [value for value in values if math.isfinite(value)]
        if not values:
            return _GAP
        return min(values), max(values), sum(value / len(values) for value in values), len(values)
    return min(values), max(values), total / len(values), len(values)


def _merge(left: _Bucket, right: _Bucket) -> _Bucket:
    n = left[3] + right[3]
    if not left[3] or not right[3]:
        with_values = left if left[3] else right
        return with_values if n else _EMPTY if left[0] == right[0] == math.inf else _GAP
    mean = left[2] * (left[3] / n) + right[2] * (right[3] / n)
    return min(left[0], right[0]), max(left[1], right[1]), mean, n


def _clip(value: float) -> float:
    """Return the number of 32 bits that is nearest to a value; infinities and NaN mark empty buckets and gaps."""
    return min(max(value, -_MAX_FLOAT), _MAX_FLOAT) if math.isfinite(value) else value


def _is_close(stored: _Bucket, expected: _Bucket) -> bool:
    """Compare two buckets; the mean depends on the order in which points and buckets were added."""
    if stored[3] != expected[3] or not stored[3]:
        return BUCKET.pack(*stored) == BUCKET.pack(*expected)
    if stored[:2] != expected[:2]:
        return False
    tolerance = 1e-3 * (stored[1] - stored[0]) + 1e-6 * max(abs(stored[0]), abs(stored[1]))
    return stored[3] == _MAX_COUNT or abs(stored[2] - expected[2]) <= tolerance
