"""Which runs the chart shows, and as which lines: marks with their slots, curves at hand, labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from labbench import text
from labbench.records import RunRecord
from labbench.tui.looks import GLYPHS, SLOTS

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.curves import Curve
    from labbench.tui.plot import Line, Series, XAxis

_KEPT = 64
"""Curves of runs that are not shown any more, kept for coming back to them."""


class Overlay:
    """The marked runs and the highlighted one."""

    def __init__(self) -> None:
        self.marks: dict[str, int] = {}
        """Marked runs in the order they were marked, each with its slot from 1."""
        self._series: dict[tuple[str, str, XAxis], tuple[object, Series | None]] = {}

    def toggle(self, key: str) -> None:
        """Mark a run with the first slot that is free, or take its mark away."""
        if key in self.marks:
            del self.marks[key]
            return
        taken = set(self.marks.values())
        free = (slot for slot in range(1, SLOTS + 1) if slot not in taken)
        self.marks[key] = next(free, len(self.marks) % SLOTS + 1)

    def shown(self, highlighted: str | None) -> list[str]:
        """What the chart draws: the marked runs, and the highlighted one with them."""
        return list(dict.fromkeys([*self.marks, *([highlighted] if highlighted else [])]))

    def missing(self, runs: Collection[RunRecord], metric: str, x_axis: XAxis) -> list[RunRecord]:
        """Those of the runs that have logged the metric, and whose curve is not at hand or has grown."""
        return [
            run
            for run in runs
            if metric in run.summary
            and self._series.get((run.key, metric, x_axis), (None, None))[0] != _version(run, metric)
        ]

    def keep(self, runs: Sequence[RunRecord], curves: Mapping[str, Curve | None], metric: str, x_axis: XAxis) -> None:
        """Remember curves that were read for these runs."""
        from labbench.tui.plot import Series

        for run in runs:
            curve = curves.get(run.key)
            series = Series(*curve) if curve is not None else None
            self._series.pop((run.key, metric, x_axis), None)  # the newest stand last
            self._series[run.key, metric, x_axis] = (_version(run, metric), series)
        for stale in list(self._series)[: -(_KEPT + len(self.marks))]:
            del self._series[stale]

    def lines(self, runs: Sequence[RunRecord], metric: str, x_axis: XAxis) -> list[Line]:
        """The curves at hand of these runs, as lines."""
        from labbench.tui.plot import Line

        names = labels(runs)
        lines = []
        for run in runs:
            series = self._series.get((run.key, metric, x_axis), (None, None))[1]
            if series is not None and len(series.x):
                slot = self.marks.get(run.key, 0)
                lines.append(Line(run.key, names[run.key], series, slot, GLYPHS[slot], run.status == "diverged"))
        return lines


def _version(run: RunRecord, metric: str) -> object:
    """Another one when the run's curve is another one."""
    return run.attempt, run.summary[metric].n, run.summary[metric].last_step


def labels(runs: Sequence[RunRecord]) -> dict[str, str]:
    """A short text for each run, by key: its name without the words that all names share.

    Names say what differs within a grid, so what is left is what differs among these. Empty and equal ones get the key.
    """
    words = {run.key: text.clean(run.name).split() for run in runs}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    short = {key: " ".join(word for word in name if word not in shared) for key, name in words.items()}
    if not all(short.values()):
        short = {key: " ".join(name) for key, name in words.items()}
    seen = list(short.values())
    return {
        key: label if label and seen.count(label) == 1 else f"{label} {key}".strip() for key, label in short.items()
    }
