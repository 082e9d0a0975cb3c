"""The curves of runs with what each point had cost: steps, samples, and the run's own compute seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from labbench.analysis.costs import CostCurve
from labbench.charts.series import Floats, join_by_step
from labbench.records import Goal, RunRecord
from labbench.store.reader import Reader
from labbench.store.series.curves import BucketedSeries as Buckets
from labbench.store.series.curves import CurveRequest

SAMPLES_METRIC, COMPUTE_SECONDS_METRIC = "samples", "time/compute_s"
MAX_BUCKETS = 2_000
"""Places at which a curve is read: a longer one is known to a two-thousandth of its length."""


def read_cost_curves(reader: Reader, runs: Sequence[RunRecord], metric: str, goal: Goal) -> list[CostCurve]:
    """The curve of each run that has finished or diverged; one that was cut off says nothing of costs.

    That of a run which diverged before it was measured has no points: it never got anywhere.
    A bucket of a long series counts as its best point, paid for with its last: a cost is never told too low.
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
    run: RunRecord, found: Buckets | None, goal: Goal, costs: Mapping[str, Mapping[int, Buckets]]
) -> CostCurve:
    seed = run.config.get("seed")
    known_seed = seed if isinstance(seed, int) else None
    if found is None:
        nothing = np.zeros(0)
        return CostCurve(run.config, known_seed, nothing, nothing, nothing, nothing)

    def paid(name: str) -> Floats | None:
        known = costs[name].get(run.id)
        return None if known is None else join_by_step(found.last_step, known.last_step, known.high)

    return CostCurve(
        config=run.config,
        seed=known_seed,
        steps=found.last_step.astype(np.float64),
        values=found.low if goal == "min" else found.high,
        samples=paid(SAMPLES_METRIC),
        seconds=paid(COMPUTE_SECONDS_METRIC),
        means=np.where(found.n_nonfinite > 0, np.nan, found.mean),
    )
