"""Caches of the series read for charts and of sparklines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from labbench.charts.glyphs import OTHER_GLYPH, OTHER_SLOT, SERIES_GLYPHS
from labbench.charts.view import Range, XAxis
from labbench.records import RunRecord
from labbench.tui.charts.labels import group_labels, run_labels
from labbench.tui.charts.series_reader import MAX_FINER_POINTS, RUNS_IN_FULL, SeriesRequest, count_points, is_coarse

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.lines import Line
    from labbench.charts.series import Series


SeriesKey: TypeAlias = tuple[str, str, XAxis]
"""(run key, metric, x axis)."""

RunSeries: TypeAlias = "tuple[RunRecord, Series]"
"""A run and its whole series, not refined."""

_MAX_HIDDEN_SERIES = 256
"""Maximum number of cached series that are not on the screen."""

_BY_STEP = "by step: "
"""Start of the labels of runs, and of groups of them, that have not logged the x axis."""


@dataclass(slots=True)
class _CacheEntry:
    version: tuple[int, int, int]
    whole: Series | None
    finer: Series | None = None
    """The series with more points in the zoomed window."""
    refined_window: Range | None = None
    """The window of the last request for more points."""


class SeriesCache:
    """Cache of series by run, metric and x axis."""

    def __init__(self) -> None:
        self.n_visible = 0
        """Number of series on the screen."""
        self._entries: dict[SeriesKey, _CacheEntry] = {}
        self.other_runs: Sequence[RunRecord] = ()
        """Runs of the table, whose names no line of another run may have."""
        self._names: tuple[object, dict[str, str], dict[str, str]] = (None, {}, {})

    def missing(self, runs: Sequence[RunRecord], metric: str, x_axis: XAxis, in_full: Collection[str]) -> SeriesRequest:
        """Return the runs that have logged the metric and whose series is not cached or has grown.

        With many runs, those whose keys are not `in_full` need only an overview.
        """
        full: list[RunRecord] = []
        coarse: list[RunRecord] = []
        for run in runs:
            needs_all = len(runs) <= RUNS_IN_FULL or run.key in in_full
            if metric in run.summary and not self._is_fresh(run, metric, x_axis, is_whole=needs_all):
                (full if needs_all else coarse).append(run)
        return SeriesRequest(metric, full, coarse)

    def _is_fresh(self, run: RunRecord, metric: str, x_axis: XAxis, *, is_whole: bool) -> bool:
        entry = self._entries.get((run.key, metric, x_axis))
        if entry is None or entry.version != _series_version(run, metric):
            return False
        return not (is_whole and entry.whole is not None and entry.whole.is_coarse)

    def store(self, request: SeriesRequest, series: Mapping[str, Series | None], x_axis: XAxis) -> None:
        """Store the series of the requested runs and evict the oldest ones that no chart of a page needs."""
        runs = [*request.runs, *request.coarse_runs]
        for run in runs:
            cache_key = (run.key, request.metric, x_axis)
            self._entries.pop(cache_key, None)  # keep the newest entries last
            self._entries[cache_key] = _CacheEntry(_series_version(run, request.metric), series.get(run.key))
        for stale in list(self._entries)[: -(_MAX_HIDDEN_SERIES + self.n_visible)]:
            del self._entries[stale]

    def find_coarse(
        self, runs: Sequence[RunRecord], metric: str, x_axis: XAxis, window: Range, dots: int
    ) -> dict[str, RunSeries]:
        """Return the series with fewer buckets in the window than the screen has dots, by key.

        Each series is returned once per window, as read whole.
        """
        coarse: dict[str, RunSeries] = {}
        for run in runs:
            entry = self._entries.get((run.key, metric, x_axis))
            if entry is None or entry.whole is None or entry.whole.buckets is None or entry.refined_window == window:
                continue
            entry.refined_window = window
            if is_coarse(entry.finer or entry.whole, window, dots):
                coarse[run.key] = (run, entry.whole)
        if sum(count_points(series, window) for _, series in coarse.values()) > MAX_FINER_POINTS:
            return {key: pair for key, pair in coarse.items() if not pair[1].is_coarse}
        return coarse

    def store_finer(
        self, requested: Mapping[str, RunSeries], finer: Mapping[str, Series], metric: str, x_axis: XAxis
    ) -> None:
        """Store finer series, unless the whole series has grown in the meantime."""
        for key, series in finer.items():
            entry = self._entries.get((key, metric, x_axis))
            if entry is not None and entry.whole is requested[key][1]:
                entry.finer = series

    def lines(
        self,
        runs: Sequence[RunRecord],
        slots: Mapping[str, int],
        metric: str,
        x_axis: XAxis,
        group_names: Mapping[str, str],
    ) -> list[Line]:
        """Return the cached series of these runs as lines of a chart.

        Runs without a group in `group_names` are grouped by their configuration.
        """
        from labbench.charts.lines import Line

        names, groups = self._names_and_groups(runs)
        lines = []
        for run in runs:
            entry = self._entries.get((run.key, metric, x_axis))
            series = None if entry is None else entry.finer or entry.whole
            if series is not None and len(series):
                slot = slots.get(run.key, 0)
                note = _BY_STEP if series.is_by_step else ""
                label, group = note + names[run.key], note + group_names.get(run.key, groups[run.key])
                last = run.summary[metric].last if metric in run.summary else None
                lines.append(
                    Line(
                        run.key,
                        label,
                        series,
                        slot,
                        OTHER_GLYPH if slot == OTHER_SLOT else SERIES_GLYPHS[slot],
                        run.status,
                        group,
                        last,
                    )
                )
        return lines

    def _names_and_groups(self, runs: Sequence[RunRecord]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the labels of runs and groups, cached because comparing thousands of names is slow."""
        key = [(run.key, run.name) for run in (*runs, *self.other_runs)], len(runs)
        if self._names[0] != key:
            names = run_labels(runs, self.other_runs)
            self._names = (key, names, group_labels(runs, names))
        return self._names[1], self._names[2]


def without_other_axis(lines: Sequence[Line]) -> list[Line]:
    """Return lines without the runs that have not logged the x axis, if other runs of their group have."""
    groups = {line.group for line in lines if not line.series.is_by_step}
    return [line for line in lines if not line.series.is_by_step or line.group.removeprefix(_BY_STEP) not in groups]


def _series_version(run: RunRecord, metric: str) -> tuple[int, int, int]:
    """Return a value that changes whenever the run's series changes."""
    return run.attempt, run.summary[metric].n, run.summary[metric].last_step


_MAX_SPARKLINES = 2000


class SparklineCache:
    """Cache of sparklines by run, for the metric requested last."""

    def __init__(self) -> None:
        self.sparklines: dict[str, str] = {}
        self._versions: dict[str, tuple[int, int, int]] = {}
        self._metric = ""

    def missing(self, runs: Sequence[RunRecord], metric: str) -> list[RunRecord]:
        """Return the runs whose sparkline of this metric is not cached or has grown."""
        if metric != self._metric:
            self._metric = metric
            self.sparklines.clear()
            self._versions.clear()
        return [
            run for run in runs if metric in run.summary and self._versions.get(run.key) != _series_version(run, metric)
        ]

    def store(self, runs: Sequence[RunRecord], sparklines: Mapping[str, str], metric: str) -> bool:
        """Store sparklines of these runs; return False if they are of a metric no longer shown."""
        if metric != self._metric:
            return False
        if len(self.sparklines) > _MAX_SPARKLINES:
            self.sparklines.clear()
            self._versions.clear()
        for run in runs:
            self._versions[run.key] = _series_version(run, metric)
            self.sparklines[run.key] = sparklines.get(run.key, "")
        return True
