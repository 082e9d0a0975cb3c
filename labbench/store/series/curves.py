"""Series as numpy arrays: whole, or in buckets for drawing. numpy is imported where it is used: it takes 0.1 s."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from labbench.errors import InputError
from labbench.store.queries.run_rows import IN_JSON_LIST, as_json_list
from labbench.store.series import rollup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Columns: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Of points: their `value`, and what else of `step` and `time_ms` was asked for."""

_SERIES = "run_id = ? AND metric_id = ?"

_TOGETHER = 64
"""Short series that are read at once: so many that their points fit into the CPU's cache."""

_ROWS = 512
"""Taken from SQLite at once: so few that their memory is used again for the next."""


@dataclass(frozen=True, slots=True)
class BucketedSeries:
    """A series, or the part of one between two steps, in buckets; a short one has a bucket a point.

    All arrays are of one length. `low`, `high` and `mean` are of the finite values, NaN where a bucket has none.
    """

    run_id: int
    first_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    first_time: NDArray[np.int64] | None
    """Milliseconds since the run's start; None where times were not asked for."""
    last_time: NDArray[np.int64] | None
    n: NDArray[np.int64]
    """Points in the bucket, NaN and infinities included."""
    n_nonfinite: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CurveRequest:
    """Part of a series to read for drawing, and in what detail."""

    columns: int
    """Maximum number of buckets."""
    first_step: int | None = None
    """First step to read, included; None: the first one."""
    last_step: int | None = None
    """Last step to read, included; None: the last one."""
    times: bool = True
    """Read times too; without them reading takes two thirds of the time."""
    rounded: bool = False
    """Read values rounded to 15 digits, which are enough for any picture, in two thirds of the time, most of it
    without Python's lock; a float at the very end of its range becomes infinite."""

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise InputError(f"a curve is drawn in at least one column, not {self.columns}")


def read_series(
    connection: sqlite3.Connection,
    run_id: int,
    metric_id: int,
    *,
    first_step: int | None = None,
    last_step: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Steps, milliseconds since the run's start, and values, (N,) each, in the order of the steps."""
    import numpy as np

    query = f"SELECT step, time_ms, value FROM points WHERE {_SERIES} AND step BETWEEN ? AND ? ORDER BY step"
    left = rollup.LEAST_STEP if first_step is None else first_step
    right = rollup.GREATEST_STEP if last_step is None else last_step
    columns = np.dtype([("step", np.int64), ("time", np.int64), ("value", np.float64)])
    rows = np.fromiter(connection.execute(query, (run_id, metric_id, left, right)), columns)  # numpy reads None as NaN
    return rows["step"].copy(), rows["time"].copy(), rows["value"].copy()


def read_curves(
    connection: sqlite3.Connection, run_ids: Sequence[int], metric_id: int, request: CurveRequest
) -> Iterator[BucketedSeries]:
    """Yield each run's series in buckets; none for a run that has no point there.

    A bucket holds the points of a column of the screen, give or take a bucket of the rollup, which is narrower.
    """
    query = f"""
        SELECT run_id, n, last_step,
            (SELECT min(step) FROM points WHERE run_id = s.run_id AND metric_id = s.metric_id)
        FROM summary AS s WHERE metric_id = ? AND run_id {IN_JSON_LIST}
    """
    spans = {
        run_id: _Window(run_id, n, first, last, request.first_step, request.last_step)
        for run_id, n, last, first in connection.execute(query, (metric_id, as_json_list(run_ids)))
    }
    columns, times = request.columns, request.times
    read = _packed_rows if request.rounded else _rows
    short = dict(_read_together(connection, list(spans.values()), metric_id, columns, times, read))
    for run_id in run_ids:
        if run_id in short:
            yield short[run_id]
        elif run_id in spans:
            yield from _read_one(connection, spans[run_id], metric_id, columns, times)


@dataclass(frozen=True, slots=True)
class _Window:
    """A series, and the steps between which it is wanted."""

    run_id: int
    n: int
    first: int
    last: int
    first_wanted: int | None
    last_wanted: int | None

    @property
    def is_dense(self) -> bool:
        """Whether there is a point at every step from the first to the last: then the steps need not be read."""
        return self.last - self.first + 1 == self.n

    @property
    def left(self) -> int:
        return self.first if self.first_wanted is None else self.first_wanted

    @property
    def right(self) -> int:
        return self.last if self.last_wanted is None else self.last_wanted

    @property
    def n_wanted(self) -> int | None:
        """How many of its points lie in the range; None where only the points can tell."""
        if self.left <= self.first and self.last <= self.right:
            return self.n
        return max(0, min(self.right, self.last) - max(self.left, self.first) + 1) if self.is_dense else None


def _read_one(
    connection: sqlite3.Connection, span: _Window, metric_id: int, columns: int, times: bool
) -> Iterator[BucketedSeries]:
    column = (span.right - span.left + 1) / columns
    reading = _SeriesQuery(connection, span.run_id, metric_id, column, times, span.is_dense)
    level = rollup.top_level(connection, span.run_id, metric_id) if span.n >= rollup.CHUNK else 0
    within = max(span.left, span.first), min(span.right, span.last)
    parts = [part for part in reading.between(*within, level) if len(part.n)]
    if parts:
        yield _reduce_to_columns(_concatenate(parts), span.left, span.right, columns)


def _read_together(
    connection: sqlite3.Connection,
    spans: Iterable[_Window],
    metric_id: int,
    columns: int,
    times: bool,
    read: Callable[[sqlite3.Connection, str, tuple[Any, ...], bool, bool], _Columns],
) -> Iterator[tuple[int, BucketedSeries]]:
    """The curves, by run, of series too short for a rollup: a query and a pass of numpy for many of them.

    Those of which only the points can tell how many there are, or of which the summary tells wrong, are left out.
    """
    import numpy as np

    for is_dense in (True, False):
        alike = [span for span in spans if span.n < rollup.CHUNK and span.is_dense == is_dense and span.n_wanted]
        alike.sort(key=lambda span: span.run_id)  # as the rows come
        for start in range(0, len(alike), _TOGETHER):
            some = alike[start : start + _TOGETHER]
            counts = np.array([span.n_wanted for span in some])
            ids = as_json_list(span.run_id for span in some)
            query = f"FROM points WHERE run_id {IN_JSON_LIST} AND metric_id = ? AND step BETWEEN ? AND ?"
            within = min(max(span.left, span.first) for span in some), max(min(span.right, span.last) for span in some)
            rows = read(connection, query, (ids, metric_id, *within), times, is_dense)
            if len(rows["value"]) == counts.sum():
                yield from _split(rows, some, counts, columns)


def _split(
    rows: _Columns, spans: Sequence[_Window], counts: NDArray[np.int64], columns: int
) -> Iterator[tuple[int, BucketedSeries]]:
    """The points of several series, one behind the other, as a curve for each."""
    import numpy as np

    begins = np.cumsum(counts) - counts  # (R,): where each series begins
    number = np.arange(len(rows["value"])) - np.repeat(begins, counts)  # (P,): of a point in its series
    firsts = np.array([max(span.left, span.first) for span in spans])
    steps = rows["step"] if "step" in rows else number + np.repeat(firsts, counts)
    together, ends = _bucket_per_point(0, steps, rows), np.cumsum(counts)
    if (counts > columns).any():  # otherwise a bucket a point
        lefts = np.array([span.left for span in spans])
        widths = np.array([float(span.right - span.left) + 1.0 for span in spans])
        column = _column_of_steps(steps - np.repeat(lefts, counts), np.repeat(widths, counts), columns)
        column = np.where(np.repeat(counts <= columns, counts), number, column)
        owner = np.repeat(np.arange(len(spans)), counts)
        is_start = np.append(True, (column[1:] != column[:-1]) | (owner[1:] != owner[:-1]))
        starts = np.flatnonzero(is_start)
        together, ends = _reduce_groups(together, starts), np.cumsum(np.bincount(owner[starts], minlength=len(spans)))
    for span, start, end in zip(spans, [0, *ends.tolist()], ends.tolist(), strict=False):
        yield span.run_id, _slice(together, span.run_id, start, end)


@dataclass(frozen=True, slots=True)
class _SeriesQuery:
    """One series, and how finely it is wanted."""

    connection: sqlite3.Connection
    run_id: int
    metric_id: int
    column: float
    """How many steps a column of the screen is wide."""
    times: bool
    is_dense: bool

    def between(self, left: int, right: int, level: int) -> Iterator[BucketedSeries]:
        """Consecutive parts, in buckets no wider than a column and none reaching out, down to single points."""
        if left > right:
            return
        if level == 0:
            yield self._points(left, right)
            return
        buckets = self._buckets(left, right, level)
        if not len(buckets):
            yield from self.between(left, right, level - 1)
            return
        first, last = buckets["first_step"], buckets["last_step"]
        fits = (last.astype(float) - first < self.column) & (first >= left) & (last <= right)
        ends = [*((fits[1:] != fits[:-1]).nonzero()[0] + 1).tolist(), len(fits)]
        start = 0
        for end in ends:
            if fits[start]:
                yield self._curve(buckets[start:end], rollup.FACTOR**level)
            else:
                yield from self.between(max(left, int(first[start])), min(right, int(last[end - 1])), level - 1)
            start = end
        yield from self.between(int(last[-1]) + 1, right, level - 1)  # behind the last full chunk

    def _buckets(self, left: int, right: int, level: int) -> NDArray[np.void]:
        """Those of a level that reach into a range, in order; none of the level below may lie before them."""
        import numpy as np

        chunks = f"FROM rollup WHERE {_SERIES} AND level = ? AND first_step"
        query = f"""
            SELECT buckets {chunks} BETWEEN coalesce((SELECT max(first_step) {chunks} <= ?), ?) AND ?
            ORDER BY first_step
        """
        series = (self.run_id, self.metric_id, level)
        rows = self.connection.execute(query, (*series, *series, left, left, right))
        buckets = np.frombuffer(b"".join(chunk for (chunk,) in rows), np.dtype(rollup.BUCKET_FIELDS))
        return buckets[(buckets["last_step"] >= left) & (buckets["first_step"] <= right)]

    def _curve(self, buckets: NDArray[np.void], size: int) -> BucketedSeries:
        import numpy as np

        return BucketedSeries(
            self.run_id,
            buckets["first_step"],
            buckets["last_step"],
            buckets["first_time"] if self.times else None,
            buckets["last_time"] if self.times else None,
            np.full(len(buckets), size),
            buckets["n_nonfinite"].astype(np.int64),
            buckets["low"],
            buckets["high"],
            buckets["mean"],
        )

    def _points(self, left: int, right: int) -> BucketedSeries:
        """A bucket a point."""
        import numpy as np

        query = f"FROM points WHERE {_SERIES} AND step BETWEEN ? AND ?"
        parameters = (self.run_id, self.metric_id, left, right)
        rows = _rows(self.connection, query, parameters, self.times, self.is_dense)
        steps = np.arange(left, left + len(rows["value"])) if self.is_dense else rows["step"]
        return _bucket_per_point(self.run_id, steps, rows)


def _rows(
    connection: sqlite3.Connection, query: str, parameters: tuple[Any, ...], times: bool, is_dense: bool
) -> _Columns:
    """The columns of the points that a query finds: each that is not read saves a fifth or more of the time.

    What is not finite is infinite, as in `_packed_rows`.
    """
    import numpy as np

    wanted = _column_sql(times, is_dense)
    columns = [array("d" if name == "value" else "q") for name in wanted]
    found = connection.execute(f"SELECT {', '.join(wanted.values())} {query} ORDER BY run_id, step", parameters)
    while rows := found.fetchmany(_ROWS):
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            column.extend(values)
    return dict(zip(wanted, map(np.asarray, columns), strict=True))


def _packed_rows(
    connection: sqlite3.Connection, query: str, parameters: tuple[Any, ...], times: bool, is_dense: bool
) -> _Columns:
    """The same with values to 15 digits, as SQLite writes numbers.

    It puts each column of a series into one text, in the order of the primary key. Python takes longer over a row than
    SQLite over its point, and needs its lock for each.
    """
    import numpy as np

    wanted = _column_sql(times, is_dense)
    texts = ", ".join(f"group_concat({column})" for column in wanted.values())
    found = connection.execute(f"SELECT {texts} {query} GROUP BY run_id", parameters).fetchall()
    return {
        name: np.fromstring(",".join(texts), np.float64 if name == "value" else np.int64, sep=",")
        for name, *texts in zip(wanted, *found, strict=True)
    }


def _column_sql(times: bool, is_dense: bool) -> dict[str, str]:
    """The columns to read, by name, in SQL."""
    return {
        **({} if is_dense else {"step": "step"}),
        **({"time_ms": "time_ms"} if times else {}),
        "value": "coalesce(value, 9e999)",
    }


def _bucket_per_point(run_id: int, steps: NDArray[np.int64], rows: _Columns) -> BucketedSeries:
    """A bucket a point."""
    import numpy as np

    times = rows.get("time_ms")
    finite = np.isfinite(rows["value"])
    values = np.where(finite, rows["value"], np.nan)
    ones = np.ones(len(values), np.int64)
    return BucketedSeries(run_id, steps, steps, times, times, ones, ones - finite, values, values, values)


def _concatenate(parts: Sequence[BucketedSeries]) -> BucketedSeries:
    """Consecutive parts as one curve."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]

    def joined(field: str) -> Any:
        arrays = [getattr(part, field) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    return BucketedSeries(parts[0].run_id, *(joined(field) for field in BucketedSeries.__slots__[1:]))


def _slice(curve: BucketedSeries, run_id: int, start: int, end: int) -> BucketedSeries:
    def part(field: str) -> Any:
        array = getattr(curve, field)
        return None if array is None else array[start:end]

    return BucketedSeries(run_id, *(part(field) for field in BucketedSeries.__slots__[1:]))


def _reduce_to_columns(curve: BucketedSeries, left: int, right: int, columns: int) -> BucketedSeries:
    """Buckets put together that begin in the same column of the range from `left` to `right`."""
    import numpy as np

    if len(curve.n) <= columns:
        return curve
    column = _column_of_steps(curve.first_step - left, float(right - left) + 1.0, columns)
    return _reduce_groups(curve, np.flatnonzero(np.diff(column, prepend=-1)))


def _column_of_steps(offsets: NDArray[np.int64], width: float | NDArray[np.float64], columns: int) -> NDArray[np.int64]:
    """The column, of those into which a range of steps is divided, of each offset from its left end."""
    import numpy as np

    return np.minimum((offsets / width * columns).astype(np.int64), columns - 1)


def _reduce_groups(curve: BucketedSeries, starts: NDArray[np.int64]) -> BucketedSeries:
    """Neighbouring buckets put together; (B,) `starts` says where each group begins."""
    import numpy as np

    ends = np.append(starts[1:], len(curve.n))
    n_finite = curve.n - curve.n_nonfinite
    n_finite_in_column = np.add.reduceat(n_finite, starts)
    # divided before they are added, and halved, for a sum of finite values may overflow
    shares = 0.5 * n_finite / np.repeat(np.maximum(n_finite_in_column, 1), ends - starts)
    parts = np.where(n_finite > 0, curve.mean, 0.0) * shares
    low, high = np.fmin.reduceat(curve.low, starts), np.fmax.reduceat(curve.high, starts)
    half_mean = np.clip(np.add.reduceat(parts, starts), low / 2, high / 2)
    return BucketedSeries(
        curve.run_id,
        first_step=curve.first_step[starts],
        last_step=curve.last_step[ends - 1],
        first_time=None if curve.first_time is None else np.minimum.reduceat(curve.first_time, starts),
        last_time=None if curve.last_time is None else np.maximum.reduceat(curve.last_time, starts),
        n=np.add.reduceat(curve.n, starts),
        n_nonfinite=np.add.reduceat(curve.n_nonfinite, starts),
        low=low,
        high=high,
        mean=np.where(n_finite_in_column > 0, 2 * half_mean, np.nan),
    )
