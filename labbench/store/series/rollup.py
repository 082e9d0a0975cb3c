"""Rollup of long series into buckets on several levels, each 20 times as coarse as the level below.

A row holds a chunk of 64 buckets, which fills a page of the file. Only full chunks are stored, and they never change
while the series grows: the range after the last chunk of a level is covered by the level below, and the range after the
last chunk of level 1 only by the points themselves. So a short series has no chunks, and the cost of an append does not
depend on the length of the series.

The series of a stack grow together and fill their chunks at the same moment. A full chunk is written some points later,
a different number for each series, so that no transaction has to write the chunks of all of them.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple, TypeAlias

from labbench.store.number_errors import number_errors

FACTOR = 20
"""Points per bucket of level 1, and buckets of one level per bucket of the next level."""

BUCKETS = 64
"""Buckets per chunk: they take 3,840 bytes, and a page of 4,096 bytes holds a row of at most 4,061."""

CHUNK = FACTOR * BUCKETS
"""Points per chunk of level 1."""

MAX_DELAY = CHUNK // 4
"""Number of points before which a full chunk is written."""

_FIELDS = {
    "first_step": "q", "last_step": "q", "first_time": "q", "last_time": "q",
    "low": "d", "high": "d", "mean": "d",
    "n_nonfinite": "I",
}  # fmt: skip
BUCKET = Struct("<" + "".join(_FIELDS.values()))
"""Binary format of a `Bucket`; a chunk is a sequence of packed buckets."""

BUCKET_FIELDS = [(name, f"<{code}") for name, code in _FIELDS.items()]
"""The format as fields of a numpy dtype."""

LEAST_STEP, GREATEST_STEP = -(2**63), 2**63 - 1

_Fields: TypeAlias = tuple[int, int, int, int, float, float, float, int]
"""Fields of a `Bucket` as a plain tuple, which is faster to create."""


class Bucket(NamedTuple):
    """Summary of FACTOR ** level consecutive points.

    `low`, `high` and `mean` are NaN if no value is finite.
    """

    first_step: int
    last_step: int
    first_time: int
    """Smallest time, in milliseconds since the start of the run."""
    last_time: int
    """Largest time, in milliseconds since the start of the run."""
    low: float
    """Minimum of the finite values."""
    high: float
    """Maximum of the finite values."""
    mean: float
    """Mean of the finite values."""
    n_nonfinite: int
    """Number of NaN and infinite values."""


class PointColumns(NamedTuple):
    """Points of a series as three sequences, shape (N,) each."""

    steps: Sequence[int]
    times: Sequence[int]
    """Milliseconds since the start of the run."""
    values: Sequence[float]


_SERIES = "run_id = ? AND metric_id = ?"

_VALUE = "coalesce(value, 9e999)"
"""The value, with infinity for NaN (stored as NULL): the rollup only counts non-finite values."""


def is_chunk_due(run_id: int, metric_id: int, n_before: int, n: int) -> bool:
    """Return True if a series that grows from `n_before` to `n` points has chunks to write."""
    delay = (run_id * 97 + metric_id * 61) % MAX_DELAY  # factors without common divisor: delays are spread evenly
    return (n - delay) // CHUNK > max(0, n_before - delay) // CHUNK


def append_chunks(
    connection: sqlite3.Connection, run_id: int, metric_id: int, points: PointColumns, *, n_before: int
) -> None:
    """Add all full chunks of a series whose newest points are the appended ones.

    The caller holds a transaction. Like `extend_chunks`, but reads only the points before the appended ones.

    Args:
        points: The appended points.
        n_before: Number of points of the series before them.
    """
    start = first_step_after_chunks(connection, run_id, metric_id) if n_before >= CHUNK else LEAST_STEP
    steps, times, values = points
    query = f"SELECT step, time_ms, {_VALUE} FROM points WHERE {_SERIES} AND step >= ? AND step < ? ORDER BY step"
    rows = connection.execute(query, (run_id, metric_id, start, steps[0])).fetchall()
    chunks = (n_before - len(rows)) // CHUNK
    tail = zip(*rows, strict=True) if rows else ((), (), ())
    no_nan = [math.inf if value != value else value for value in values]
    columns = [[*before, *new] for before, new in zip(tail, (steps, times, no_nan), strict=True)]
    for end in range(CHUNK, len(columns[0]) + 1, CHUNK):
        _write_chunk(
            connection, run_id, metric_id, 1, chunks, _make_buckets(*(column[end - CHUNK : end] for column in columns))
        )
        chunks += 1


def extend_chunks(connection: sqlite3.Connection, run_id: int, metric_id: int, *, chunks: int) -> None:
    """Add the chunks that have become full.

    `chunks` is the number of existing chunks of level 1. The caller holds a transaction.
    """
    start = first_step_after_chunks(connection, run_id, metric_id) if chunks else LEAST_STEP
    query = f"SELECT step, time_ms, {_VALUE} FROM points WHERE {_SERIES} AND step >= ? ORDER BY step"
    rows = connection.execute(query, (run_id, metric_id, start))
    while len(points := rows.fetchmany(CHUNK)) == CHUNK:
        _write_chunk(connection, run_id, metric_id, 1, chunks, _read_buckets(points))
        chunks += 1


def truncate_chunks(connection: sqlite3.Connection, run_id: int, metric_id: int, *, from_step: int) -> int:
    """Delete the chunks that contain a step or come after it; return the number of remaining chunks of level 1.

    The caller holds a transaction.
    """
    top = top_level(connection, run_id, metric_id)
    for level in range(1, top + 1):
        # first_step is in the index, so only the chunk that may hold the step is read
        connection.execute(
            f"""
            DELETE FROM rollup WHERE {_SERIES} AND level = ? AND last_step >= ? AND first_step >= coalesce(
                (SELECT max(first_step) FROM rollup WHERE {_SERIES} AND level = ? AND first_step <= ?), ?)
            """,
            (run_id, metric_id, level, from_step, run_id, metric_id, level, from_step, from_step),
        )
    query = f"SELECT count(*) FROM rollup WHERE {_SERIES} AND level = 1"
    [remaining] = connection.execute(query, (run_id, metric_id)).fetchone() if top else (0,)
    return int(remaining)


def top_level(connection: sqlite3.Connection, run_id: int, metric_id: int) -> int:
    """Return the coarsest level of a series, 0 if it has no chunks."""
    query = f"SELECT level FROM rollup WHERE {_SERIES} ORDER BY level DESC LIMIT 1"
    row = connection.execute(query, (run_id, metric_id)).fetchone()
    return 0 if row is None else int(row[0])


def first_step_after_chunks(connection: sqlite3.Connection, run_id: int, metric_id: int) -> int:
    """Return the first step after all chunks; the points from this step on are in no chunk."""
    query = f"SELECT last_step FROM rollup WHERE {_SERIES} AND level = 1 ORDER BY first_step DESC LIMIT 1"
    row = connection.execute(query, (run_id, metric_id)).fetchone()
    return LEAST_STEP if row is None else int(row[0]) + 1


def read_cover(connection: sqlite3.Connection, run_id: int, metric_id: int) -> Iterator[tuple[int, Bucket]]:
    """Yield (number of points, bucket) for the fewest buckets that cover all chunks of a series, in order."""
    start = LEAST_STEP
    for level in range(top_level(connection, run_id, metric_id), 0, -1):
        query = f"SELECT buckets FROM rollup WHERE {_SERIES} AND level = ? AND first_step >= ? ORDER BY first_step"
        for (chunk,) in connection.execute(query, (run_id, metric_id, level, start)).fetchall():
            with number_errors("rollup"):
                buckets = [Bucket._make(fields) for fields in BUCKET.iter_unpack(chunk)]
            yield from ((FACTOR**level, bucket) for bucket in buckets)
            start = buckets[-1].last_step + 1


def _write_chunk(
    connection: sqlite3.Connection, run_id: int, metric_id: int, level: int, number: int, buckets: list[_Fields]
) -> None:
    """Write chunk `number` (from 0) of a level, and the chunk of the next level if this one fills it."""
    connection.execute(
        "INSERT INTO rollup (run_id, metric_id, level, first_step, last_step, buckets) VALUES (?, ?, ?, ?, ?, ?)",
        (run_id, metric_id, level, buckets[0][0], buckets[-1][1], b"".join(BUCKET.pack(*bucket) for bucket in buckets)),
    )
    if (number + 1) % FACTOR == 0:
        query = f"SELECT buckets FROM rollup WHERE {_SERIES} AND level = ? ORDER BY first_step DESC LIMIT {FACTOR}"
        chunks = connection.execute(query, (run_id, metric_id, level)).fetchall()
        finer = [bucket for (chunk,) in reversed(chunks) for bucket in BUCKET.iter_unpack(chunk)]
        coarser = [
            _merge_buckets(finer[start : start + FACTOR], FACTOR**level) for start in range(0, len(finer), FACTOR)
        ]
        _write_chunk(connection, run_id, metric_id, level + 1, number // FACTOR, coarser)


def _read_buckets(points: Sequence[tuple[int, int, float]]) -> list[_Fields]:
    return _make_buckets(*zip(*points, strict=True))


def _make_buckets(steps: Sequence[int], times: Sequence[int], values: Sequence[float]) -> list[_Fields]:
    """Return the points in buckets of level 1."""
    buckets = []
    for start in range(0, len(steps), FACTOR):
        end = start + FACTOR
        bucket_times = times[start:end]
        buckets.append(
            (steps[start], steps[end - 1], min(bucket_times), max(bucket_times), *_extent(values[start:end]))
        )
    return buckets


def _extent(values: Sequence[float]) -> tuple[float, float, float, int]:
    """Return minimum, maximum and mean of the finite values, and the number of other values."""
    low, high = min(values), max(values)
    finite = values
    if high == math.inf or low == -math.inf:
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return math.nan, math.nan, math.nan, len(values)
        low, high = min(finite), max(finite)
    # fsum, because its result does not depend on the version of Python: `diagnose` compares stored means exactly
    try:
        mean = math.fsum(finite) / len(finite)
    except OverflowError:
        mean = _weighted_mean([(value, 1 / len(finite)) for value in finite], low, high)
    return low, high, mean, len(values) - len(finite)


def _merge_buckets(buckets: Sequence[_Fields], size: int) -> _Fields:
    """Merge consecutive buckets of `size` points each."""
    first_steps, last_steps, first_times, last_times, lows, highs, means, bad = zip(*buckets, strict=True)
    steps_and_times = first_steps[0], last_steps[-1], min(first_times), max(last_times)
    n_nonfinite = sum(bad)
    n_finite = size * len(buckets) - n_nonfinite
    if not n_finite:
        return *steps_and_times, math.nan, math.nan, math.nan, n_nonfinite
    low = min(low for low in lows if low == low)  # skips NaN, which does not equal itself
    high = max(high for high in highs if high == high)
    shares = [(mean, (size - count) / n_finite) for mean, count in zip(means, bad, strict=True) if count < size]
    mean = _weighted_mean(shares, low, high)
    return *steps_and_times, low, high, mean, n_nonfinite


def _weighted_mean(values: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """Return the mean of (value, share) pairs.

    Values lie between `low` and `high`, and shares add up to 1. The result is never infinite: the sum of halves cannot
    overflow, and the result is clipped to the range.
    """
    half = math.fsum(value * share / 2 for value, share in values)
    return min(max(2 * half, low), high)
