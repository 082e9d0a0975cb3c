"""Series as numpy arrays, in full or in buckets for drawing.

numpy is imported inside the functions, because importing it takes 0.1 s.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labbench.errors import InputError
from labbench.store.number_errors import number_errors
from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list
from labbench.store.row_checks import RowCheck
from labbench.store.series import rollup
from labbench.store.series.buckets import (
    BucketedSeries,
    Columns,
    bucket_per_point,
    column_of_steps,
    concatenate,
    merge_groups,
    reduce_to_columns,
    slice_buckets,
)
from labbench.store.series.overview_reader import read_overviews
from labbench.store.series.series_query import SeriesQuery, read_packed_rows, read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SERIES = "run_id = ? AND metric_id = ?"

_SERIES_PER_QUERY = 64
"""Number of short series per query: few enough that their points fit into the CPU's cache."""


@dataclass(frozen=True, slots=True)
class CurveRequest:
    """Range and resolution of a series to read for drawing."""

    columns: int
    """Maximum number of buckets."""
    first_step: int | None = None
    """First step to read, included; None: the first one."""
    last_step: int | None = None
    """Last step to read, included; None: the last one."""
    times: bool = True
    """Read times too; a read without times takes two thirds of the time."""
    coarse: bool = False
    """Read what is enough for a chart of very many runs: the overview of a whole series if it has one.

    It has at most 64 buckets, without times. Values of other series are rounded to 15 digits: a read then takes two
    thirds of the time, mostly without holding the GIL, and a float close to the maximum becomes infinite.
    """

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise InputError(f"a curve needs at least one column, not {self.columns}")


_check_spans = RowCheck("summary", ("run_id", "n", "last_step"))


def read_series(
    connection: sqlite3.Connection,
    run_id: int,
    metric_id: int,
    *,
    first_step: int | None = None,
    last_step: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return steps, milliseconds since the start of the run, and values of a series, shape (N,) each, by step."""
    import numpy as np

    query = f"SELECT step, time_ms, value FROM points WHERE {_SERIES} AND step BETWEEN ? AND ? ORDER BY step"
    left = rollup.LEAST_STEP if first_step is None else first_step
    right = rollup.GREATEST_STEP if last_step is None else last_step
    columns = np.dtype([("step", np.int64), ("time", np.int64), ("value", np.float64)])
    with number_errors("points"):
        rows = np.fromiter(connection.execute(query, (run_id, metric_id, left, right)), columns)  # None becomes NaN
    return rows["step"].copy(), rows["time"].copy(), rows["value"].copy()


def read_points_at(
    connection: sqlite3.Connection, metric_id: int, steps: Mapping[int, Iterable[int]]
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Return (steps, milliseconds since the start of the run, values) of single points, shape (P,) each, by run id.

    Args:
        steps: Steps of the points to read, by run id; steps without a point are skipped.
    """
    import numpy as np

    pairs = json.dumps([(run_id, step) for run_id, of_run in steps.items() for step in sorted(set(of_run))])
    query = """
        SELECT run_id, step, time_ms, points.value FROM json_each(?) AS pair CROSS JOIN points
        ON run_id = json_extract(pair.value, '$[0]') AND metric_id = ? AND step = json_extract(pair.value, '$[1]')
    """
    rows_of_run: dict[int, list[tuple[int, int, float]]] = {}
    for run_id, *point in connection.execute(query, (pairs, metric_id)):
        rows_of_run.setdefault(run_id, []).append(tuple(point))
    columns = np.dtype([("step", np.int64), ("time", np.int64), ("value", np.float64)])
    points = {run_id: np.fromiter(rows, columns) for run_id, rows in rows_of_run.items()}  # numpy reads None as NaN
    return {run_id: (part["step"].copy(), part["time"].copy(), part["value"].copy()) for run_id, part in points.items()}


def read_curves(
    connection: sqlite3.Connection, run_ids: Sequence[int], metric_id: int, request: CurveRequest
) -> Iterator[BucketedSeries]:
    """Yield the series of each run in at most `request.columns` buckets, in arrays of shape (B,).

    Skips runs without points in the range. A bucket holds the points of one screen column; its edges may be off by one
    rollup bucket, which is narrower than a column.
    """
    overviews = {}
    if request.coarse and not request.times and request.first_step is None and request.last_step is None:
        overviews = dict(read_overviews(connection, run_ids, metric_id))
    query = f"""
        SELECT run_id, n, last_step,
            (SELECT min(step) FROM points WHERE run_id = s.run_id AND metric_id = s.metric_id)
        FROM summary AS s WHERE metric_id = ? AND run_id {IN_JSON_LIST}
    """
    others = [run_id for run_id in run_ids if run_id not in overviews]
    rows = connection.execute(query, (metric_id, as_json_list(others)))
    spans = {
        run_id: _StepRange(run_id, n, first, last, request.first_step, request.last_step)
        for run_id, n, last, first in _check_spans(rows)
        if isinstance(first, int)  # else the summary is that of a series without points
    }
    columns, times = request.columns, request.times
    read = read_packed_rows if request.coarse else read_rows
    with number_errors("points"):
        short = overviews | dict(_read_together(connection, list(spans.values()), metric_id, columns, times, read))
        for run_id in run_ids:
            if run_id in short:
                yield short[run_id]
            elif run_id in spans:
                yield from _read_one(connection, spans[run_id], metric_id, columns, times)


@dataclass(frozen=True, slots=True)
class _StepRange:
    """Steps of a series, and the requested range of steps."""

    run_id: int
    n: int
    """Number of points of the series."""
    first: int
    """First step of the series."""
    last: int
    """Last step of the series."""
    first_requested: int | None
    last_requested: int | None

    @property
    def is_dense(self) -> bool:
        """True if the series has a point at every step from the first to the last.

        The steps of such a series need not be read.
        """
        return self.last - self.first + 1 == self.n

    @property
    def left(self) -> int:
        return self.first if self.first_requested is None else self.first_requested

    @property
    def right(self) -> int:
        return self.last if self.last_requested is None else self.last_requested

    @property
    def n_requested(self) -> int | None:
        """Number of points in the requested range.

        None if it cannot be derived from the summary.
        """
        if self.left <= self.first and self.last <= self.right:
            return self.n
        return max(0, min(self.right, self.last) - max(self.left, self.first) + 1) if self.is_dense else None


def _read_one(
    connection: sqlite3.Connection, span: _StepRange, metric_id: int, columns: int, times: bool
) -> Iterator[BucketedSeries]:
    column = (span.right - span.left + 1) / columns
    query = SeriesQuery(connection, span.run_id, metric_id, column, times, span.is_dense)
    level = rollup.top_level(connection, span.run_id, metric_id) if span.n >= rollup.CHUNK else 0
    limits = max(span.left, span.first), min(span.right, span.last)
    parts = [part for part in query.between(*limits, level) if len(part.n)]
    if parts:
        yield reduce_to_columns(concatenate(parts), span.left, span.right, columns)


def _read_together(
    connection: sqlite3.Connection,
    spans: Iterable[_StepRange],
    metric_id: int,
    columns: int,
    times: bool,
    read: Callable[[sqlite3.Connection, str, tuple[Any, ...], bool, bool], Columns],
) -> Iterator[tuple[int, BucketedSeries]]:
    """Yield (run id, curve) of series too short for a rollup.

    Many series are read with one query and one pass of numpy. Skips series whose number of points in the range is
    unknown or differs from the summary.
    """
    import numpy as np

    for is_dense in (True, False):
        short = [span for span in spans if span.n < rollup.CHUNK and span.is_dense == is_dense and span.n_requested]
        short.sort(key=lambda span: span.run_id)  # the order of the rows
        for start in range(0, len(short), _SERIES_PER_QUERY):
            group = short[start : start + _SERIES_PER_QUERY]
            counts = np.array([span.n_requested for span in group])
            ids = as_json_list(span.run_id for span in group)
            query = f"FROM points WHERE run_id {IN_JSON_LIST} AND metric_id = ? AND step BETWEEN ? AND ?"
            first = min(max(span.left, span.first) for span in group)
            last = max(min(span.right, span.last) for span in group)
            rows = read(connection, query, (ids, metric_id, first, last), times, is_dense)
            if len(rows["value"]) == counts.sum():
                yield from _split(rows, group, counts, columns)


def _split(
    rows: Columns, spans: Sequence[_StepRange], counts: NDArray[np.int64], columns: int
) -> Iterator[tuple[int, BucketedSeries]]:
    """Yield (run id, curve) of several series whose P points are concatenated in `rows`.

    `counts` is the number of points of each of the R series, shape (R,).
    """
    import numpy as np

    begins = np.cumsum(counts) - counts  # (R,): index of the first point of each series
    number = np.arange(len(rows["value"])) - np.repeat(begins, counts)  # (P,): index of each point in its series
    firsts = np.array([max(span.left, span.first) for span in spans])
    steps = rows["step"] if "step" in rows else number + np.repeat(firsts, counts)
    all_buckets, ends = bucket_per_point(0, steps, rows), np.cumsum(counts)
    if (counts > columns).any():  # otherwise one bucket per point
        lefts = np.array([span.left for span in spans])
        widths = np.array([float(span.right - span.left) + 1.0 for span in spans])
        column = column_of_steps(steps - np.repeat(lefts, counts), np.repeat(widths, counts), columns)
        column = np.where(np.repeat(counts <= columns, counts), number, column)
        owner = np.repeat(np.arange(len(spans)), counts)
        is_start = np.append(True, (column[1:] != column[:-1]) | (owner[1:] != owner[:-1]))
        starts = np.flatnonzero(is_start)
        all_buckets = merge_groups(all_buckets, starts)
        ends = np.cumsum(np.bincount(owner[starts], minlength=len(spans)))
    for span, start, end in zip(spans, [0, *ends.tolist()], ends.tolist(), strict=False):
        yield span.run_id, slice_buckets(all_buckets, span.run_id, start, end)
