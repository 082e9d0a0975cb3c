"""Reading of series for charts, in thread workers, as fine as the screen can show.

A long series is read as buckets. Zooming in rereads the part in the window with more points, which replace its
buckets; the rest stays, so that smoothing always uses the whole series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.store.series.curves import CurveRequest

if TYPE_CHECKING:  # numpy is not imported before the first paint
    import numpy as np
    from numpy.typing import NDArray

    from labbench.charts.series import Floats, Series
    from labbench.charts.view import Range, XAxis
    from labbench.store.series.curves import BucketedSeries

MAX_BUCKETS = 1600
"""Buckets of a whole series: more than the dot columns of a wide screen; a shorter series is exact."""

_RUNS_PER_BATCH = 128
"""Runs read at once; reading a run takes several times the memory of its series."""
_READER_THREADS = 2
"""Threads that read more runs than one batch: SQLite works without the GIL, unpacking the points needs it."""


def read_series(path: Path, runs: Sequence[RunRecord], metric: str, x_axis: XAxis) -> dict[str, Series | None]:
    """Return the whole series of each run, by key; None if a run has not logged the axis.

    Raises InputError and StoreError as `Reader` does.
    """
    if len(runs) <= _RUNS_PER_BATCH:
        return _read_part(path, metric, x_axis, runs)
    parts = [runs[start : start + _RUNS_PER_BATCH] for start in range(0, len(runs), _RUNS_PER_BATCH)]
    with ThreadPoolExecutor(_READER_THREADS) as threads:
        results = threads.map(partial(_read_part, path, metric, x_axis, rounded=True), parts)
        return {key: series for result in results for key, series in result.items()}


def _read_part(
    path: Path, metric: str, x_axis: XAxis, runs: Sequence[RunRecord], *, rounded: bool = False
) -> dict[str, Series | None]:
    times, ids = x_axis in ("time", "clock"), [run.id for run in runs]
    with Reader(path) as reader:
        curves = reader.curves(ids, metric, CurveRequest(MAX_BUCKETS, times=times, rounded=rounded))
        epochs = _read_epochs(reader, ids) if x_axis == "epoch" else {}
    series: dict[str, Series | None] = dict.fromkeys(run.key for run in runs)
    before = None
    for run in runs:
        if run.id in curves:
            made = _make_series(run, curves.pop(run.id), x_axis, epochs.get(run.id))
            series[run.key] = before = _share_x(made, before)
    return series


def _read_epochs(reader: Reader, run_ids: Sequence[int]) -> dict[int, BucketedSeries]:
    """Return the epochs that runs had reached at their steps, by the run's id."""
    return reader.curves(run_ids, "epoch", CurveRequest(MAX_BUCKETS, times=False))


def _share_x(series: Series | None, other: Series | None) -> Series | None:
    """Return the series with the other's x array if equal: most runs of a grid log at the same steps."""
    if series is None or other is None or series.buckets is not None or len(series) != len(other):
        return series
    from labbench.charts.series import Series

    return Series(other.x, series.y) if (series.x == other.x).all() else series


def read_finer(
    path: Path, runs: Mapping[str, tuple[RunRecord, Series]], metric: str, x_axis: XAxis, window: Range
) -> dict[str, Series]:
    """Return the series by key with more points in the window and half a window around it.

    Raises InputError and StoreError as `Reader` does.
    """
    finer = {}
    with Reader(path) as reader:
        times = x_axis in ("time", "clock")
        for key, (run, series) in runs.items():
            first, last = _bucket_range(series, _widen_window(window))
            if series.buckets is None or first == last:
                continue
            left, right = int(series.buckets.first_step[first]), int(series.buckets.last_step[last - 1])
            request = CurveRequest(MAX_BUCKETS, first_step=left, last_step=right, times=times)
            inner_curve = reader.curves([run.id], metric, request).get(run.id)
            epochs = _read_epochs(reader, [run.id]).get(run.id) if x_axis == "epoch" else None
            inner = _make_series(run, inner_curve, x_axis, epochs) if inner_curve is not None else None
            if inner is not None:
                finer[key] = _splice(series, first, last, inner)
    return finer


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


def _make_series(run: RunRecord, curve: BucketedSeries, x_axis: XAxis, epochs: BucketedSeries | None) -> Series | None:
    import numpy as np  # here, to keep it out of the first paint

    from labbench.charts.series import Buckets, Series

    x, end = _axis_values(run, curve, x_axis, epochs)
    if x is None or end is None:
        return None
    y = curve.mean
    if (curve.n == 1).all():
        if x_axis == "epoch" and (x[1:] < x[:-1]).any():
            order = np.argsort(x, kind="stable")  # a logged epoch need not grow with the step
            x, y = x[order], y[order]
        return Series(x, y)
    x = np.maximum.accumulate(x)
    buckets = Buckets(
        np.maximum.accumulate(np.maximum(x, end)), curve.low, curve.high, curve.n, curve.first_step, curve.last_step
    )
    return Series(x, y, buckets)


def _axis_values(
    run: RunRecord, curve: BucketedSeries, x_axis: XAxis, epochs: BucketedSeries | None
) -> tuple[Floats | None, Floats | None]:
    """Return the start and end of each bucket on the axis, shape (N,) each; None if the axis is missing."""
    if x_axis == "step":
        return _to_floats(curve.first_step), _to_floats(curve.last_step)
    if x_axis == "epoch":
        from labbench.charts.series import join_by_step

        if epochs is None:
            return None, None
        first, last = (
            join_by_step(steps, epochs.last_step, epochs.mean) for steps in (curve.first_step, curve.last_step)
        )
        return (None, None) if (first != first).any() or (last != last).any() else (first, last)
    assert curve.first_time is not None
    assert curve.last_time is not None
    start = (run.started or 0.0) if x_axis == "clock" else 0.0
    return start + curve.first_time / 1000, start + curve.last_time / 1000


def _to_floats(steps: NDArray[np.int64]) -> Floats:
    return steps.astype("float64")


def _splice(series: Series, first: int, last: int, inner: Series) -> Series:
    """Return the series with its buckets [first, last) replaced by the points or buckets of `inner`."""
    import numpy as np

    from labbench.charts.series import Buckets, Series

    def replace_part(outer: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([outer[:first], part, outer[last:]])

    assert series.buckets is not None
    inner_buckets = inner.buckets
    if inner_buckets is None:
        ones = np.ones(len(inner), dtype=np.int64)
        inner_buckets = Buckets(inner.x, inner.y, inner.y, ones, ones, ones)
    parts = {
        field.name: replace_part(getattr(series.buckets, field.name), getattr(inner_buckets, field.name))
        for field in fields(inner_buckets)
    }
    return Series(replace_part(series.x, inner.x), replace_part(series.y, inner.y), Buckets(**parts))
