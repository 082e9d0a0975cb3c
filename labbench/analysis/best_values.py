"""Position of the best values of runs, and their distance from the last ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labbench.metrics import Goal
from labbench.records import MetricSummary, RunRecord

EARLY_SHARE = 0.1
"""Share of a run's steps in which a best value is early."""
MIN_POINTS = 10
"""Smallest number of points of a run whose best value may be early."""


@dataclass(frozen=True, slots=True)
class BestValues:
    """Comparison of the best with the last values of the finished runs."""

    runs: int = 0
    """Number of finished runs with finite values."""
    early: int = 0
    """Number of runs whose best value lies in the first tenth of their steps."""
    optimism: float = 0.0
    """Mean distance from the last value to the best one, in the metric's unit, at least 0."""

    @property
    def mostly_early(self) -> bool:
        """True if the best values of more than half of the runs are early."""
        return 2 * self.early > self.runs


def compare_with_last(runs: Sequence[RunRecord], metric: str, goal: Goal) -> BestValues:
    """Compare the best values of finished runs with their last values."""
    finished = [run for run in runs if run.status == "finished" and not run.has_diverged(metric)]
    summaries = [run.summary[metric] for run in finished if metric in run.summary]
    pairs = [(summary, best) for summary in summaries if (best := _best(summary, goal)) is not None]
    if not pairs:
        return BestValues()
    early = sum(_is_early(summary, step) for summary, (_, step) in pairs)
    optimism = math.fsum(abs(value - summary.last) / len(pairs) for summary, (value, _) in pairs)
    return BestValues(len(pairs), early, optimism)


def _best(summary: MetricSummary, goal: Goal) -> tuple[float, int] | None:
    value, step = summary.best(goal)
    return None if value is None or step is None else (value, step)


def _is_early(summary: MetricSummary, step: int) -> bool:
    return summary.n >= MIN_POINTS and step <= EARLY_SHARE * summary.last_step
