"""Caches of what was read for charts and sparklines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from labbench.charts.glyphs import SERIES_GLYPHS
from labbench.charts.view import Range, XAxis
from labbench.records import RunRecord
from labbench.tui.charts.labels import group_labels, run_labels

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.lines import Line
    from labbench.charts.series import Series


SeriesKey: TypeAlias = tuple[str, str, XAxis]
"""Run key, metric, axis."""


RunSeries: TypeAlias = "tuple[RunRecord, Series]"
"""A run, and its series as it was read whole."""


_MAX_HIDDEN_SERIES = 256
"""Series that are not shown any more, kept for coming back to them."""


@dataclass(slots=True)
class _CacheEntry:
    version: tuple[int, int, int]
    whole: Series | None
    finer: Series | None = None
    """The same with more points where somebody has zoomed in."""
    refined_window: Range | None = None
    """The window that more points were last asked for."""


class SeriesCache:
    """Series by run, metric and axis."""

    def __init__(self) -> None:
        self._entries: dict[SeriesKey, _CacheEntry] = {}
        self._names: tuple[object, dict[str, str], dict[str, str]] = (None, {}, {})

    def missing(self, runs: Sequence[RunRecord], metric: str, x_axis: XAxis) -> list[RunRecord]:
        """Those of the runs that have logged the metric, and whose series is not at hand or has grown."""
        return [run for run in runs if metric in run.summary and not self._is_fresh(run, metric, x_axis)]

    def _is_fresh(self, run: RunRecord, metric: str, x_axis: XAxis) -> bool:
        entry = self._entries.get((run.key, metric, x_axis))
        return entry is not None and entry.version == _series_version(run, metric)

    def keep(
        self, runs: Sequence[RunRecord], series: Mapping[str, Series | None], metric: str, x_axis: XAxis, *, room: int
    ) -> None:
        """Remember what was read for these runs; `room` is how many series are on the screen."""
        for run in runs:
            place = (run.key, metric, x_axis)
            self._entries.pop(place, None)  # the newest stand last
            self._entries[place] = _CacheEntry(_series_version(run, metric), series.get(run.key))
        for stale in list(self._entries)[: -(_MAX_HIDDEN_SERIES + room)]:
            del self._entries[stale]

    def find_coarse(
        self, runs: Sequence[RunRecord], metric: str, x_axis: XAxis, window: Range, dots: int
    ) -> dict[str, RunSeries]:
        """The series that the window shows in fewer buckets than the screen has dots, as they were read whole."""
        from labbench.tui.charts.series_reader import is_coarse

        found = {}
        for run in runs:
            entry = self._entries.get((run.key, metric, x_axis))
            if entry is None or entry.whole is None or entry.whole.buckets is None or entry.refined_window == window:
                continue
            if is_coarse(entry.finer or entry.whole, window, dots):
                entry.refined_window = window
                found[run.key] = (run, entry.whole)
        return found

    def store_finer(
        self, requested: Mapping[str, RunSeries], finer: Mapping[str, Series], metric: str, x_axis: XAxis
    ) -> None:
        """Remember finer series, where the whole ones have not grown meanwhile."""
        for key, series in finer.items():
            entry = self._entries.get((key, metric, x_axis))
            if entry is not None and entry.whole is requested[key][1]:
                entry.finer = series

    def lines(self, runs: Sequence[RunRecord], marks: Mapping[str, int], metric: str, x_axis: XAxis) -> list[Line]:
        """The series at hand of these runs, as lines."""
        from labbench.charts.lines import Line

        names, groups = self._names_and_groups(runs)
        lines = []
        for run in runs:
            entry = self._entries.get((run.key, metric, x_axis))
            series = None if entry is None else entry.finer or entry.whole
            if series is not None and len(series):
                slot = marks.get(run.key, 0)
                label, group = names[run.key], groups[run.key]
                lines.append(Line(run.key, label, series, slot, SERIES_GLYPHS[slot], run.status, group))
        return lines

    def _names_and_groups(self, runs: Sequence[RunRecord]) -> tuple[dict[str, str], dict[str, str]]:
        """What runs and their groups are called; thousands of names are not compared again for each key press."""
        key = [(run.key, run.name) for run in runs]
        if self._names[0] != key:
            names = run_labels(runs)
            self._names = (key, names, group_labels(runs, names))
        return self._names[1], self._names[2]


def _series_version(run: RunRecord, metric: str) -> tuple[int, int, int]:
    """Another one when the run's series is another one."""
    return run.attempt, run.summary[metric].n, run.summary[metric].last_step


_MAX_SPARKLINES = 2000


class SparklineCache:
    """Small curves by run, of the metric that was asked for last."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self._versions: dict[str, tuple[int, int, int]] = {}
        self._metric = ""

    def missing(self, runs: Sequence[RunRecord], metric: str) -> list[RunRecord]:
        """Those of the runs whose curve of this metric is not at hand, or has grown."""
        if metric != self._metric:
            self._metric = metric
            self.shown.clear()
            self._versions.clear()
        return [
            run for run in runs if metric in run.summary and self._versions.get(run.key) != _series_version(run, metric)
        ]

    def keep(self, runs: Sequence[RunRecord], sparks: Mapping[str, str], metric: str) -> bool:
        """Remember what was read for these runs; whether it is of the metric that is asked for now."""
        if metric != self._metric:
            return False
        if len(self.shown) > _MAX_SPARKLINES:
            self.shown.clear()
            self._versions.clear()
        for run in runs:
            self._versions[run.key] = _series_version(run, metric)
            self.shown[run.key] = sparks.get(run.key, "")
        return True
