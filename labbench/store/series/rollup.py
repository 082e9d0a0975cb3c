"""The rollup: every long series in buckets, each level 20 times as coarse as the one below.

A row holds one full chunk of 64 buckets, which fills a page of the file. Only full chunks are kept, and are never
written again while the series grows: what follows the last chunk of a level stands in the level below, and what
follows the last chunk of all in the points themselves. So a short series has none, and writing costs the same
however long a series is.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple, TypeAlias

FACTOR = 20
"""Points in a bucket of level 1; buckets of one level in a bucket of the next."""

BUCKETS = 64
"""In a chunk: 3,840 bytes, and a page of 4,096 holds a row of at most 4,061."""

CHUNK = FACTOR * BUCKETS
"""Points in a chunk of level 1."""

_FIELDS = {
    "first_step": "q", "last_step": "q", "first_time": "q", "last_time": "q",
    "low": "d", "high": "d", "mean": "d",
    "n_nonfinite": "I",
}  # fmt: skip
BUCKET = Struct("<" + "".join(_FIELDS.values()))
"""How a `Bucket` is packed; they follow each other in a chunk."""

BUCKET_FIELDS = [(name, f"<{code}") for name, code in _FIELDS.items()]
"""The same for numpy."""

LEAST_STEP, GREATEST_STEP = -(2**63), 2**63 - 1

_Fields: TypeAlias = tuple[int, int, int, int, float, float, float, int]
"""Of a bucket, without its names: writing is quicker so."""


class Bucket(NamedTuple):
    """Neighbouring points; their number is that of the level. Low, high and mean are NaN where none is finite."""

    first_step: int
    last_step: int
    first_time: int
    """Milliseconds since the run's start, as the next."""
    last_time: int
    low: float
    """Of the finite values, as the next two."""
    high: float
    mean: float
    n_nonfinite: int


class PointColumns(NamedTuple):
    """Points of a series, as sequences of one length."""

    steps: Sequence[int]
    times: Sequence[int]
    """Milliseconds since the run's start."""
    values: Sequence[float]


_SERIES = "run_id = ? AND metric_id = ?"

_COUNT_CHUNKS = "coalesce(value, 9e999)"  # what is not finite is only counted here: NaN, which is NULL, may be infinite


def append_chunks(
    connection: sqlite3.Connection,
    run_id: int,
    metric_id: int,
    points: PointColumns,
    *,
    chunks: int,
) -> None:
    """Add the chunks that become full with points just written behind all others, `chunks` of level 1 being there.

    As `extend`, but only what the caller does not hand over is read. The caller holds a transaction.
    """
    start = first_step_after_chunks(connection, run_id, metric_id) if chunks else LEAST_STEP
    steps, times, values = points
    query = (
        f"SELECT step, time_ms, {_COUNT_CHUNKS} FROM points WHERE {_SERIES} AND step >= ? AND step < ? ORDER BY step"
    )
    rows = connection.execute(query, (run_id, metric_id, start, steps[0])).fetchall()
    waiting = zip(*rows, strict=True) if rows else ((), (), ())
    counted = [math.inf if value != value else value for value in values]
    columns = [[*before, *new] for before, new in zip(waiting, (steps, times, counted), strict=True)]
    for end in range(CHUNK, len(columns[0]) + 1, CHUNK):
        _write_chunk(
            connection, run_id, metric_id, 1, chunks, _make_buckets(*(column[end - CHUNK : end] for column in columns))
        )
        chunks += 1


def extend_chunks(connection: sqlite3.Connection, run_id: int, metric_id: int, *, chunks: int) -> None:
    """Add the chunks that have become full, `chunks` of level 1 being there. The caller holds a transaction."""
    start = first_step_after_chunks(connection, run_id, metric_id) if chunks else LEAST_STEP
    query = f"SELECT step, time_ms, {_COUNT_CHUNKS} FROM points WHERE {_SERIES} AND step >= ? ORDER BY step"
    rows = connection.execute(query, (run_id, metric_id, start))
    while len(points := rows.fetchmany(CHUNK)) == CHUNK:
        _write_chunk(connection, run_id, metric_id, 1, chunks, _read_buckets(points))
        chunks += 1


def truncate_chunks(connection: sqlite3.Connection, run_id: int, metric_id: int, *, from_step: int) -> int:
    """Delete the chunks that reach a step; returns how many of level 1 are left. The caller holds a transaction."""
    level = top_level(connection, run_id, metric_id)
    for reaching in range(1, level + 1):
        # first_step is in the index: so only the chunk that may hold the step is looked into
        connection.execute(
            f"""
            DELETE FROM rollup WHERE {_SERIES} AND level = ? AND last_step >= ? AND first_step >= coalesce(
                (SELECT max(first_step) FROM rollup WHERE {_SERIES} AND level = ? AND first_step <= ?), ?)
            """,
            (run_id, metric_id, reaching, from_step, run_id, metric_id, reaching, from_step, from_step),
        )
    query = f"SELECT count(*) FROM rollup WHERE {_SERIES} AND level = 1"
    [left] = connection.execute(query, (run_id, metric_id)).fetchone() if level else (0,)
    return int(left)


def top_level(connection: sqlite3.Connection, run_id: int, metric_id: int) -> int:
    """The coarsest level that a series has, 0 where it is its points alone."""
    query = f"SELECT level FROM rollup WHERE {_SERIES} ORDER BY level DESC LIMIT 1"
    row = connection.execute(query, (run_id, metric_id)).fetchone()
    return 0 if row is None else int(row[0])


def first_step_after_chunks(connection: sqlite3.Connection, run_id: int, metric_id: int) -> int:
    """Where the points begin that no chunk holds."""
    query = f"SELECT last_step FROM rollup WHERE {_SERIES} AND level = 1 ORDER BY first_step DESC LIMIT 1"
    row = connection.execute(query, (run_id, metric_id)).fetchone()
    return LEAST_STEP if row is None else int(row[0]) + 1


def read_cover(connection: sqlite3.Connection, run_id: int, metric_id: int) -> Iterator[tuple[int, Bucket]]:
    """The fewest buckets that hold all chunks of a series, in order, each after the number of its points."""
    start = LEAST_STEP
    for level in range(top_level(connection, run_id, metric_id), 0, -1):
        query = f"SELECT buckets FROM rollup WHERE {_SERIES} AND level = ? AND first_step >= ? ORDER BY first_step"
        for (chunk,) in connection.execute(query, (run_id, metric_id, level, start)).fetchall():
            buckets = [Bucket._make(fields) for fields in BUCKET.iter_unpack(chunk)]
            yield from ((FACTOR**level, bucket) for bucket in buckets)
            start = buckets[-1].last_step + 1


def _write_chunk(
    connection: sqlite3.Connection, run_id: int, metric_id: int, level: int, number: int, buckets: list[_Fields]
) -> None:
    """Write the chunk with this number, counted from 0, and the chunk of the next level that it fills."""
    connection.execute(
        "INSERT INTO rollup (run_id, metric_id, level, first_step, last_step, buckets) VALUES (?, ?, ?, ?, ?, ?)",
        (run_id, metric_id, level, buckets[0][0], buckets[-1][1], b"".join(BUCKET.pack(*bucket) for bucket in buckets)),
    )
    if (number + 1) % FACTOR == 0:
        query = f"SELECT buckets FROM rollup WHERE {_SERIES} AND level = ? ORDER BY first_step DESC LIMIT {FACTOR}"
        chunks = connection.execute(query, (run_id, metric_id, level)).fetchall()
        finer = [bucket for (chunk,) in reversed(chunks) for bucket in BUCKET.iter_unpack(chunk)]
        coarser = [_merge_buckets(finer[at : at + FACTOR], FACTOR**level) for at in range(0, len(finer), FACTOR)]
        _write_chunk(connection, run_id, metric_id, level + 1, number // FACTOR, coarser)


def _read_buckets(points: Sequence[tuple[int, int, float]]) -> list[_Fields]:
    return _make_buckets(*zip(*points, strict=True))


def _make_buckets(steps: Sequence[int], times: Sequence[int], values: Sequence[float]) -> list[_Fields]:
    """Points in buckets of level 1."""
    buckets = []
    for start in range(0, len(steps), FACTOR):
        end = start + FACTOR
        inside = times[start:end]
        buckets.append((steps[start], steps[end - 1], min(inside), max(inside), *_extent(values[start:end])))
    return buckets


def _extent(values: Sequence[float]) -> tuple[float, float, float, int]:
    """Low, high and mean of the finite values, and how many are not."""
    low, high = min(values), max(values)
    finite = values
    if high == math.inf or low == -math.inf:
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return math.nan, math.nan, math.nan, len(values)
        low, high = min(finite), max(finite)
    # fsum, for its result does not depend on the version of Python: it can be compared with what another wrote
    try:
        mean = math.fsum(finite) / len(finite)
    except OverflowError:
        mean = _weighted_mean([(value, 1 / len(finite)) for value in finite], low, high)
    return low, high, mean, len(values) - len(finite)


def _merge_buckets(buckets: Sequence[_Fields], size: int) -> _Fields:
    """Neighbouring buckets of `size` points each as one."""
    first_steps, last_steps, first_times, last_times, lows, highs, means, bad = zip(*buckets, strict=True)
    steps_and_times = first_steps[0], last_steps[-1], min(first_times), max(last_times)
    n_nonfinite = sum(bad)
    n_finite = size * len(buckets) - n_nonfinite
    if not n_finite:
        return *steps_and_times, math.nan, math.nan, math.nan, n_nonfinite
    low = min(low for low in lows if low == low)  # NaN is unlike itself
    high = max(high for high in highs if high == high)
    known = [(mean, (size - count) / n_finite) for mean, count in zip(means, bad, strict=True) if count < size]
    mean = _weighted_mean(known, low, high)
    return *steps_and_times, low, high, mean, n_nonfinite


def _weighted_mean(values: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """The mean of values between low and high, each with its share; the shares add up to one.

    Never infinite: the sum of the halves cannot overflow, and what rounding adds to the largest number is taken off.
    """
    half = math.fsum(value * share / 2 for value, share in values)
    return min(max(2 * half, low), high)
