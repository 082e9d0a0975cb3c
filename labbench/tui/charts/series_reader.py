"""Reading of series for charts, in thread workers, as fine as the screen can show.

A long series is read as buckets. Zooming in rereads the part in the window with more points, which replace its
buckets; the rest stays, so that smoothing always uses the whole series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.store.series.curves import CurveRequest

if TYPE_CHECKING:  # numpy is not imported before the first paint
    import numpy as np
    from numpy.typing import NDArray

    from labbench.charts.series import ExactPoints, Floats, Series
    from labbench.charts.view import Range, XAxis
    from labbench.store.series.buckets import BucketedSeries

_StepsTimesValues: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]"

Epochs: TypeAlias = "Mapping[int, BucketedSeries]"
"""Epochs that runs had reached at their steps, by the run's id."""

MAX_BUCKETS = 1600
"""Buckets of a whole series: more than the dot columns of a wide screen; a shorter series is exact."""

RUNS_IN_FULL = 128
"""Maximum number of runs on a chart that are all read in full; of more, only those with a colour are."""

MAX_FINER_POINTS = 400_000
"""Points that are read at once for a zoomed window; a wider window of very many runs keeps its buckets."""

_RUNS_PER_BATCH = 128
"""Runs read at once; reading a run takes several times the memory of its series."""
_READER_THREADS = 2
"""Threads that read more than one batch of runs: SQLite works without the GIL, unpacking the points holds it."""


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """Runs whose series of a metric are to be read."""

    metric: str
    runs: Sequence[RunRecord]
    """Runs to read in full: every point, or as many buckets as a wide screen has dot columns."""
    coarse_runs: Sequence[RunRecord] = ()
    """Runs for which an overview is enough."""

    def batches(self) -> list[tuple[Sequence[RunRecord], bool]]:
        """Return the runs in batches with True if an overview is enough."""
        return [
            (runs[start : start + _RUNS_PER_BATCH], is_coarse)
            for runs, is_coarse in ((self.coarse_runs, True), (self.runs, False))
            for start in range(0, len(runs), _RUNS_PER_BATCH)
        ]


def read_series(
    path: Path, request: SeriesRequest, x_axis: XAxis, epochs: Epochs | None = None
) -> dict[str, Series | None]:
    """Return the whole series of each run, by key; None if a run has no points.

    A run that has not logged the axis is drawn by step. `epochs` come from `read_epochs`; without them they are read.

    Raises InputError and StoreError as `Reader` does.
    """
    batches = request.batches()
    if x_axis == "epoch" and epochs is None:
        epochs = read_epochs(path, [*request.runs, *request.coarse_runs])
    read = partial(_read_batch, path, request.metric, x_axis, epochs or {})
    if len(batches) <= 1:
        return {key: series for batch in batches for key, series in read(*batch).items()}
    with ThreadPoolExecutor(_READER_THREADS) as threads:
        results = threads.map(read, *zip(*batches, strict=True))
        return {key: series for result in results for key, series in result.items()}


def read_epochs(path: Path, runs: Sequence[RunRecord]) -> Epochs:
    """Return the epochs that runs had reached at their steps, by the run's id.

    Raises InputError and StoreError as `Reader` does.
    """
    with Reader(path) as reader:
        return _read_epochs(reader, [run.id for run in runs])


def _read_batch(
    path: Path, metric: str, x_axis: XAxis, epochs: Epochs, runs: Sequence[RunRecord], is_coarse: bool
) -> dict[str, Series | None]:
    times, ids = x_axis in ("time", "clock"), [run.id for run in runs]
    with Reader(path) as reader:
        curves = reader.curves(ids, metric, CurveRequest(MAX_BUCKETS, times=times, coarse=is_coarse))
        exact = {} if is_coarse else _read_exact(reader, runs, curves, metric)
    series: dict[str, Series | None] = dict.fromkeys(run.key for run in runs)
    before = None
    for run in runs:
        if run.id in curves:
            made = _make_series(run, curves.pop(run.id), x_axis, epochs.get(run.id))
            made = replace(made, is_coarse=is_coarse and made.buckets is not None)
            if run.id in exact:
                made = replace(made, exact=_exact_points(run, exact[run.id], x_axis, epochs.get(run.id)))
            series[run.key] = before = _share_x(made, before)
    return series


def _read_epochs(reader: Reader, run_ids: Sequence[int]) -> Epochs:
    return reader.curves(run_ids, "epoch", CurveRequest(MAX_BUCKETS, times=False))


def _read_exact(
    reader: Reader, runs: Sequence[RunRecord], curves: Mapping[int, BucketedSeries], metric: str
) -> dict[int, _StepsTimesValues]:
    """Return the first, last, lowest and highest point of each series of buckets, by the run's id."""
    steps = {}
    for run in runs:
        curve, summary = curves.get(run.id), run.summary.get(metric)
        if curve is not None and summary is not None and (curve.n > 1).any():
            ends = int(curve.first_step[0]), int(curve.last_step[-1])
            steps[run.id] = [step for step in (*ends, summary.min_step, summary.max_step) if step is not None]
    return reader.points_at(metric, steps) if steps else {}


def _exact_points(
    run: RunRecord, points: _StepsTimesValues, x_axis: XAxis, epochs: BucketedSeries | None
) -> ExactPoints:
    from labbench.charts.series import ExactPoints

    steps, times, values = points
    return ExactPoints(steps, _axis_values(run, steps, times, x_axis, epochs)[0], values)


def _share_x(series: Series, other: Series | None) -> Series:
    """Return the series with the x arrays of the other if they are equal: most runs of a grid log at the same steps."""
    if other is None or len(series) != len(other) or not (series.x == other.x).all():
        return series
    if series.buckets is None or other.buckets is None or not (series.buckets.end == other.buckets.end).all():
        return replace(series, x=other.x)
    n = other.buckets.n if (series.buckets.n == other.buckets.n).all() else series.buckets.n
    return replace(series, x=other.x, buckets=replace(series.buckets, end=other.buckets.end, n=n))


def read_finer(
    path: Path, runs: Mapping[str, tuple[RunRecord, Series]], metric: str, x_axis: XAxis, window: Range
) -> dict[str, Series]:
    """Return the series by key with more points in the window and half a window around it.

    Raises InputError and StoreError as `Reader` does.
    """
    finer = {}
    ranges: dict[tuple[int, int], list[str]] = {}
    """Keys of the runs by the range of steps to read: one query for all runs that log at the same steps."""
    for key, (_, series) in runs.items():
        first, last = _bucket_range(series, _widen_window(window))
        if series.buckets is not None and first < last:
            steps = int(series.buckets.first_step[first]), int(series.buckets.last_step[last - 1])
            ranges.setdefault(steps, []).append(key)
    with Reader(path) as reader:
        for (left, right), keys in ranges.items():
            records = {key: runs[key][0] for key in keys}
            times = x_axis in ("time", "clock")
            request = CurveRequest(MAX_BUCKETS, first_step=left, last_step=right, times=times)
            curves = reader.curves([run.id for run in records.values()], metric, request)
            epochs = _read_epochs(reader, [run.id for run in records.values()]) if x_axis == "epoch" else {}
            for key, run in records.items():
                if run.id in curves:
                    series, inner = runs[key][1], _make_series(run, curves[run.id], x_axis, epochs.get(run.id))
                    finer[key] = _splice(series, *_bucket_range(series, _widen_window(window)), inner)
    return finer


def count_points(series: Series, window: Range) -> int:
    """Return the number of points or buckets that `read_finer` reads of a series of buckets."""
    if series.buckets is None:
        return 0
    first, last = _bucket_range(series, _widen_window(window))
    return min(int(series.buckets.n[first:last].sum()), MAX_BUCKETS)


def is_coarse(series: Series, window: Range, dots: int) -> bool:
    """Return True if the window shows buckets, and fewer of them than the screen has dot columns."""
    if series.buckets is None:
        return False
    first, last = _bucket_range(series, window)
    return last - first < dots and bool((series.buckets.n[first:last] > 1).any())


def _widen_window(window: Range) -> Range:
    """Return the window with a margin of half its width on either side, so that small pans need no reading."""
    width = window[1] - window[0]
    return window[0] - width / 2, window[1] + width / 2


def _bucket_range(series: Series, window: Range) -> tuple[int, int]:
    """Return the index of the first bucket in the window and of the first after it."""
    if series.buckets is None:
        return 0, 0
    first = int(series.buckets.end.searchsorted(window[0]))
    return first, max(first, int(series.x.searchsorted(window[1], side="right")))


def _make_series(run: RunRecord, curve: BucketedSeries, x_axis: XAxis, epochs: BucketedSeries | None) -> Series:
    import numpy as np  # here, to keep it out of the first paint

    from labbench.charts.series import Buckets, Series

    x, is_by_step = _axis_values(run, curve.first_step, curve.first_time, x_axis, epochs)
    y = curve.mean
    if (curve.n == 1).all():
        if x_axis == "epoch" and (x[1:] < x[:-1]).any():
            order = np.argsort(x, kind="stable")  # a logged epoch need not grow with the step
            x, y = x[order], y[order]
        return Series(x, y, is_by_step=is_by_step)
    end, _ = _axis_values(run, curve.last_step, curve.last_time, x_axis, epochs)
    x = np.maximum.accumulate(x)
    buckets = Buckets(
        np.maximum.accumulate(np.maximum(x, end)), curve.low, curve.high, curve.n, curve.first_step, curve.last_step
    )
    return Series(x, y, buckets, is_by_step=is_by_step)


def _axis_values(
    run: RunRecord,
    steps: NDArray[np.int64],
    times: NDArray[np.int64] | None,
    x_axis: XAxis,
    epochs: BucketedSeries | None,
) -> tuple[Floats, bool]:
    """Return x on the axis for steps and times in milliseconds, all (N,); True if by step, for lack of the axis."""
    if x_axis == "step":
        return _to_floats(steps), False
    if x_axis == "epoch":
        from labbench.charts.series import join_by_step

        x = None if epochs is None else join_by_step(steps, epochs.last_step, epochs.mean)
        return (_to_floats(steps), True) if x is None or (x != x).any() else (x, False)
    assert times is not None
    start = (run.started or 0.0) if x_axis == "clock" else 0.0
    return start + times / 1000, False


def _to_floats(steps: NDArray[np.int64]) -> Floats:
    return steps.astype("float64")


def _splice(series: Series, first: int, last: int, inner: Series) -> Series:
    """Return the series with its buckets [first, last) replaced by the points or buckets of `inner`."""
    import numpy as np

    from labbench.charts.series import Buckets

    def replace_part(outer: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([outer[:first], part, outer[last:]])

    assert series.buckets is not None
    inner_buckets = inner.buckets
    if inner_buckets is None:
        ones = np.ones(len(inner), dtype=np.int64)
        inner_buckets = Buckets(inner.x, inner.y, inner.y, ones, ones, ones)  # the steps of single points are not shown
    parts = {
        field.name: replace_part(getattr(series.buckets, field.name), getattr(inner_buckets, field.name))
        for field in fields(inner_buckets)
    }
    x, y = replace_part(series.x, inner.x), replace_part(series.y, inner.y)
    return replace(series, x=x, y=y, buckets=Buckets(**parts))
