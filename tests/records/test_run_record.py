"""Configurations are ranked by the mean of their runs' best values, for either goal."""

from __future__ import annotations

import pytest

from labbench.metrics import Goal
from labbench.records import MetricSummary, RunRecord, rank_of_configuration


def run_with(best: float | None) -> RunRecord:
    """Return a run whose metric `score` has one finite value, or none."""
    summary = MetricSummary(1, int(best is None), None, float("nan") if best is None else best, 0, best, 0, best, 0)
    return RunRecord(1, "a2345678", "run", "experiment", "finished", {}, summary={"score": summary})


@pytest.mark.parametrize(("goal", "expected"), [("min", [0.1, 0.5, 0.9]), ("max", [0.9, 0.5, 0.1])])
def test_the_best_configuration_is_first_and_one_without_a_finite_value_last(goal: Goal, expected: list[float]) -> None:
    configurations = [[run_with(None)], *([run_with(value), run_with(value)] for value in (0.5, 0.1, 0.9))]
    ranked = sorted(configurations, key=lambda runs: rank_of_configuration(runs, "score", goal))
    assert [runs[0].best("score", goal) for runs in ranked] == [*expected, None]
    assert rank_of_configuration([], "score", goal) == float("inf")
