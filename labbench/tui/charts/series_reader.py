"""What charts ask of a database, in thread workers: series over an axis, as fine as the screen can show.

A long series comes in buckets. Zooming in reads the part in the window again, finer, and puts it in the place of its
buckets: the rest stays, so that smoothing goes over the whole series, however little of it is seen.
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
"""Buckets of a whole series: more than a wide screen has dots; a shorter series is exact."""


_RUNS_PER_BATCH = 128
"""Runs whose curves are read at once: what is read of a run is several times what is kept."""
_READER_THREADS = 2
"""That read more runs than these: SQLite packs points without Python's lock, unpacking them needs it."""


def read_series(path: Path, runs: Sequence[RunRecord], metric: str, x_axis: XAxis) -> dict[str, Series | None]:
    """The whole metric of each run over that axis, by key; None where the run has logged no such axis."""
    if len(runs) <= _RUNS_PER_BATCH:
        return _read_part(path, metric, x_axis, runs)
    parts = [runs[start : start + _RUNS_PER_BATCH] for start in range(0, len(runs), _RUNS_PER_BATCH)]
    with ThreadPoolExecutor(_READER_THREADS) as threads:
        found = threads.map(partial(_read_part, path, metric, x_axis, rounded=True), parts)
        return {key: series for part in found for key, series in part.items()}


def _read_part(
    path: Path, metric: str, x_axis: XAxis, runs: Sequence[RunRecord], *, rounded: bool = False
) -> dict[str, Series | None]:
    times, ids = x_axis in ("time", "clock"), [run.id for run in runs]
    with Reader(path) as reader:
        found = reader.curves(ids, metric, CurveRequest(MAX_BUCKETS, times=times, rounded=rounded))
        epochs = _read_epochs(reader, ids) if x_axis == "epoch" else {}
    series: dict[str, Series | None] = dict.fromkeys(run.key for run in runs)
    before = None
    for run in runs:
        if run.id in found:
            one = _make_series(run, found.pop(run.id), x_axis, epochs.get(run.id))
            series[run.key] = before = _share_x(one, before)
    return series


def _read_epochs(reader: Reader, run_ids: Sequence[int]) -> dict[int, BucketedSeries]:
    """Return the epochs that runs had reached at their steps, by the run's id."""
    return reader.curves(run_ids, "epoch", CurveRequest(MAX_BUCKETS, times=False))


def _share_x(series: Series | None, other: Series | None) -> Series | None:
    """The series with the other one's x where the two are equal: most runs of a grid log at the same steps."""
    if series is None or other is None or series.buckets is not None or len(series) != len(other):
        return series
    from labbench.charts.series import Series

    return Series(other.x, series.y) if (series.x == other.x).all() else series


def read_finer(
    path: Path, runs: Mapping[str, tuple[RunRecord, Series]], metric: str, x_axis: XAxis, window: Range
) -> dict[str, Series]:
    """The series, finer within the window and a little around it."""
    finer = {}
    with Reader(path) as reader:
        times = x_axis in ("time", "clock")
        for key, (run, series) in runs.items():
            first, last = _bucket_range(series, _widen_window(window))
            if series.buckets is None or first == last:
                continue
            left, right = int(series.buckets.first_step[first]), int(series.buckets.last_step[last - 1])
            request = CurveRequest(MAX_BUCKETS, first_step=left, last_step=right, times=times)
            part = reader.curves([run.id], metric, request).get(run.id)
            epochs = _read_epochs(reader, [run.id]).get(run.id) if x_axis == "epoch" else None
            inner = _make_series(run, part, x_axis, epochs) if part is not None else None
            if inner is not None:
                finer[key] = _splice(series, first, last, inner)
    return finer


def is_coarse(series: Series, window: Range, dots: int) -> bool:
    """The window shows buckets where the screen has room for more."""
    if series.buckets is None:
        return False
    first, last = _bucket_range(series, window)
    return last - first < dots and bool((series.buckets.n[first:last] > 1).any())


def _widen_window(window: Range) -> Range:
    """Half a window more on either side: a small step of panning finds it there."""
    width = window[1] - window[0]
    return window[0] - width / 2, window[1] + width / 2


def _bucket_range(series: Series, window: Range) -> tuple[int, int]:
    """First bucket that reaches into the window, first one behind it."""
    if series.buckets is None:
        return 0, 0
    first = int(series.buckets.end.searchsorted(window[0]))
    return first, max(first, int(series.x.searchsorted(window[1], side="right")))


def _make_series(run: RunRecord, curve: BucketedSeries, x_axis: XAxis, epochs: BucketedSeries | None) -> Series | None:
    import numpy as np  # here, for it is not imported before the first paint

    from labbench.charts.series import Buckets, Series

    x, end = _axis_values(run, curve, x_axis, epochs)
    if x is None or end is None:
        return None
    y = curve.mean
    if (curve.n == 1).all():
        if x_axis == "epoch" and (x[1:] < x[:-1]).any():
            order = np.argsort(x, kind="stable")  # an epoch that somebody logged need not grow with the step
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
    """Where each bucket begins and ends on the axis."""
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
    began = (run.started or 0.0) if x_axis == "clock" else 0.0
    return began + curve.first_time / 1000, began + curve.last_time / 1000


def _to_floats(steps: NDArray[np.int64]) -> Floats:
    return steps.astype("float64")


def _splice(series: Series, first: int, last: int, inner: Series) -> Series:
    """The series with other points or buckets in the place of those from `first` to before `last`."""
    import numpy as np

    from labbench.charts.series import Buckets, Series

    def put(outer: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([outer[:first], part, outer[last:]])

    assert series.buckets is not None
    within = inner.buckets
    if within is None:
        ones = np.ones(len(inner), dtype=np.int64)
        within = Buckets(inner.x, inner.y, inner.y, ones, ones, ones)
    parts = {
        field.name: put(getattr(series.buckets, field.name), getattr(within, field.name)) for field in fields(within)
    }
    return Series(put(series.x, inner.x), put(series.y, inner.y), Buckets(**parts))
