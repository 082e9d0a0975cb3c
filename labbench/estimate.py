"""How long a grid may take: the first epoch of a few of its runs, really trained, and the rest reckoned from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean

from labbench.executors.attempt import attempt
from labbench.grid import Grid
from labbench.params import TRAINING
from labbench.planner import plan
from labbench.records import Failed, NewRun, Points, RunRecord

SAMPLES = 3
"""Runs that are timed: the first, the last and some between."""


def estimate_seconds(grid: Grid, runs: Sequence[NewRun], *, workers: int) -> float | None:
    """Seconds of wall time for `runs` on so many workers; None where the sample does not train."""
    picked = [runs[round(i * (len(runs) - 1) / (SAMPLES - 1))] for i in range(min(SAMPLES, len(runs)))]
    timed = [seconds for run in picked if (seconds := time_run(grid, run)) is not None]
    return fmean(timed) * len(runs) / min(workers, len(runs)) if timed else None


def time_run(grid: Grid, run: NewRun) -> float | None:
    """Seconds that one run would take, reckoned from its first epoch; None where it fails."""
    record = RunRecord(0, "estimate", run.name, grid.name, "running", run.config)
    epochs = run.config.get("epochs", TRAINING["epochs"].default)
    [stack] = plan([record], task=grid.task, stop=None, runtime=grid.runtime)
    began = time.monotonic()
    for event in attempt(stack, "cpu", frozenset()):
        if isinstance(event, Failed):
            return None
        if isinstance(event, Points) and event.metric == "epoch" and event.values[-1] > 0:
            return (time.monotonic() - began) * float(epochs) / event.values[-1]
    return None
