"""The small curves in the table: which are at hand, and for which runs they are to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labbench.records import RunRecord

_KEPT = 2000


class Sparks:
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
        return [run for run in runs if metric in run.summary and self._versions.get(run.key) != _version(run, metric)]

    def keep(self, runs: Sequence[RunRecord], sparks: Mapping[str, str], metric: str) -> bool:
        """Remember what was read for these runs; whether it is of the metric that is asked for now."""
        if metric != self._metric:
            return False
        if len(self.shown) > _KEPT:
            self.shown.clear()
            self._versions.clear()
        for run in runs:
            self._versions[run.key] = _version(run, metric)
            self.shown[run.key] = sparks.get(run.key, "")
        return True


def _version(run: RunRecord, metric: str) -> tuple[int, int, int]:
    """Another one when the run's curve is another one."""
    return run.attempt, run.summary[metric].n, run.summary[metric].last_step
