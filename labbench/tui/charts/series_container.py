"""Container that reads the series of its charts in thread workers, into a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from textual import on, work
from textual.containers import Container
from textual.message import Message
from textual.worker import get_current_worker

from labbench.charts.view import Range, XAxis
from labbench.errors import LabbenchError, as_labbench_error
from labbench.records import RunRecord
from labbench.tui.charts import series_reader
from labbench.tui.charts.series_cache import SeriesCache
from labbench.tui.charts.series_reader import SeriesRequest

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.series import Series
    from labbench.tui.charts.series_cache import RunSeries

_Windows: TypeAlias = "Mapping[str, Mapping[str, RunSeries]]"
"""Series that need more points in a window, by metric and run."""


class SeriesContainer(Container):
    """Container with a cache of series; posts `SeriesStored` for each metric that was read."""

    class SeriesStored(Message):
        """Series of a metric were read into the cache."""

        def __init__(self, metric: str, axis: XAxis) -> None:
            self.metric, self.axis = metric, axis
            super().__init__()

    class SeriesRead(Message):
        """The missing series of a metric were read, for these versions of the records."""

        def __init__(self, request: SeriesRequest, axis: XAxis, series: Mapping[str, Series | None]) -> None:
            self.request, self.axis, self.series = request, axis, series
            super().__init__()

    class FinerRead(Message):
        """Series were reread with more points in the zoomed window."""

        def __init__(
            self, metric: str, axis: XAxis, requested: Mapping[str, RunSeries], finer: Mapping[str, Series]
        ) -> None:
            self.metric, self.axis, self.requested, self.finer = metric, axis, requested, finer
            super().__init__()

    class ReadingFailed(Message):
        """The database could not be read."""

        def __init__(self, error: LabbenchError) -> None:
            self.error = error
            super().__init__()

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.series_cache = SeriesCache()
        self._path = path
        self._requested: Sequence[SeriesRequest] = ()

    def read_missing(self, requests: Sequence[SeriesRequest], axis: XAxis) -> None:
        """Read series, unless the same ones are being read."""
        if requests and requests != self._requested:
            self._requested = requests
            self._read_missing(requests, axis)

    # `description` is set because Textual's default formats all arguments: thousands of runs and curves

    @work(thread=True, exclusive=True, group="curves", description="read curves")
    def _read_missing(self, requests: Sequence[SeriesRequest], axis: XAxis) -> None:
        epochs: series_reader.Epochs = {}

        def read(request: SeriesRequest) -> Message:
            nonlocal epochs
            if axis == "epoch" and not epochs:  # once for all metrics
                runs = {run.id: run for each in requests for run in (*each.runs, *each.coarse_runs)}
                epochs = series_reader.read_epochs(self._path, list(runs.values()))
            return self.SeriesRead(request, axis, series_reader.read_series(self._path, request, axis, epochs))

        for request in requests:
            self._post_result(partial(read, request))

    def request_finer(
        self, metrics: Sequence[str], runs: Sequence[RunRecord], axis: XAxis, window: Range, *, dots: int
    ) -> None:
        """Read more points of the series that have fewer in the window than the screen has dots."""
        coarse = {metric: self.series_cache.find_coarse(runs, metric, axis, window, dots) for metric in metrics}
        if any(coarse.values()):
            self._read_finer(coarse, axis, window)

    @work(thread=True, exclusive=True, group="finer", description="read finer curves")
    def _read_finer(self, coarse: _Windows, axis: XAxis, window: Range) -> None:
        for metric, requested in coarse.items():
            self._post_result(partial(self._read_finer_metric, metric, axis, requested, window))

    def _read_finer_metric(
        self, metric: str, axis: XAxis, requested: Mapping[str, RunSeries], window: Range
    ) -> Message:
        finer = series_reader.read_finer(self._path, requested, metric, axis, window)
        return self.FinerRead(metric, axis, requested, finer)

    def _post_result(self, read: Callable[[], Message]) -> None:
        """Post the result of `read`, or its error, unless this worker was replaced by a newer one."""
        if get_current_worker().is_cancelled:
            return
        try:
            message = read()
        except Exception as error:  # an error in one thread must not end the program
            message = self.ReadingFailed(as_labbench_error(error))
        if not get_current_worker().is_cancelled:
            self.post_message(message)

    @on(SeriesRead)
    def _store_series(self, event: SeriesRead) -> None:
        event.stop()
        self.series_cache.store(event.request, event.series, event.axis)
        self._requested = [request for request in self._requested if request.metric != event.request.metric]
        self.post_message(self.SeriesStored(event.request.metric, event.axis))

    @on(FinerRead)
    def _store_finer_series(self, event: FinerRead) -> None:
        event.stop()
        self.series_cache.store_finer(event.requested, event.finer, event.metric, event.axis)
        self.post_message(self.SeriesStored(event.metric, event.axis))
