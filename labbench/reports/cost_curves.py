"""Read a metric's curves with the cost of each point: steps, samples and compute seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from labbench.analysis.costs import CostCurve
from labbench.charts.series import Floats, join_by_step
from labbench.metrics import Goal
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.store.series.buckets import BucketedSeries as Buckets
from labbench.store.series.curves import CurveRequest

SAMPLES_METRIC, COMPUTE_SECONDS_METRIC = "samples", "time/compute_s"
MAX_BUCKETS = 2_000
"""Largest number of points per curve; longer series are bucketed."""


def read_cost_curves(reader: Reader, runs: Sequence[RunRecord], metric: str, goal: Goal) -> list[CostCurve]:
    """Return the cost curve of each finished or diverged run; stopped and failed runs are skipped.

    A run that diverged before its first measurement has a curve without points. A bucket of a long series has the value
    of its best point and the cost of its last, so that costs are never underestimated.
    """
    ended = {
        run.id: run for run in runs if run.status == "diverged" or (run.status == "finished" and metric in run.summary)
    }
    series = reader.curves(list(ended), metric, CurveRequest(MAX_BUCKETS, times=False))
    costs = {
        name: reader.curves(list(ended), name, CurveRequest(MAX_BUCKETS, times=False))
        for name in (SAMPLES_METRIC, COMPUTE_SECONDS_METRIC)
    }
    return [_make_curve(run, series.get(run_id), goal, costs) for run_id, run in ended.items()]


def _make_curve(
    run: RunRecord, series: Buckets | None, goal: Goal, costs: Mapping[str, Mapping[int, Buckets]]
) -> CostCurve:
    seed = run.config.get("seed")
    seed = seed if isinstance(seed, int) else None
    if series is None:
        empty = np.zeros(0)
        return CostCurve(run.config, seed, empty, empty, empty, empty)

    def cost_at_points(name: str) -> Floats | None:
        cost = costs[name].get(run.id)
        return None if cost is None else join_by_step(series.last_step, cost.last_step, cost.high)

    return CostCurve(
        config=run.config,
        seed=seed,
        steps=series.last_step.astype(np.float64),
        values=series.low if goal == "min" else series.high,
        samples=cost_at_points(SAMPLES_METRIC),
        seconds=cost_at_points(COMPUTE_SECONDS_METRIC),
        means=np.where(series.n_nonfinite > 0, np.nan, series.mean),
    )
