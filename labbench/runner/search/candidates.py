"""Candidates of a search: the configurations of a grid, each with the runs of its seeds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labbench.configs import canonical_json
from labbench.metrics import Goal
from labbench.records import Config, NewRun, RunRecord

VALUELESS = ("diverged", "failed", "stopped")
"""Statuses of runs without a value to compare, however good they were before."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Configuration without its seed."""

    index: int
    """Position in the grid, from 0."""
    config: Config
    runs: tuple[NewRun, ...]
    """Its runs, one per seed of the grid."""


def make_candidates(runs: Iterable[NewRun]) -> list[Candidate]:
    """Group the runs of a grid that differ in their seeds alone, in the order of the grid."""
    groups: dict[str, tuple[Config, list[NewRun]]] = {}
    for run in runs:
        config = {key: value for key, value in run.config.items() if key != "seed"}
        groups.setdefault(canonical_json(config), (config, []))[1].append(run)
    return [Candidate(index, config, tuple(group)) for index, (config, group) in enumerate(groups.values())]


def draw_candidates(candidates: Sequence[Candidate], count: int, seed: int) -> list[Candidate]:
    """Draw candidates without replacement; a larger count draws the same ones first."""

    def digest(candidate: Candidate) -> str:
        return hashlib.sha256(f"{seed} {canonical_json(candidate.config)}".encode()).hexdigest()

    return sorted(candidates, key=digest)[:count]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidate at a rung."""

    candidate: Candidate
    value: float
    """Mean over its runs, NaN if one of them has no finite value."""


def rank(
    candidates: Iterable[Candidate],
    records: Mapping[int, Sequence[RunRecord]],
    values: Mapping[str, float],
    goal: Goal,
) -> list[Ranked]:
    """Rank candidates by their runs' values, best first.

    Of equal values the one that is earlier in the grid is better; candidates without a value are last. So a ranking
    depends on the configurations, their seeds and the file's order only.

    Args:
        candidates: Candidates to rank.
        records: Runs of each candidate, by its index.
        values: Best value up to the rung by run key, NaN if the run has none.
        goal: Better direction of the values.
    """
    ranked = []
    for candidate in candidates:
        run_values = [_value(run, values) for run in records[candidate.index]]
        ranked.append(Ranked(candidate, mean_value(run_values)))
    sign = -1.0 if goal == "max" else 1.0
    return sorted(ranked, key=lambda row: (math.isnan(row.value), sign * row.value, row.candidate.index))


def mean_value(values: Sequence[float]) -> float:
    """Return the mean of values, NaN if one of them is not finite."""
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def _value(run: RunRecord, values: Mapping[str, float]) -> float:
    return math.nan if run.status in VALUELESS else values.get(run.key, math.nan)


def logged_value(run: RunRecord, metric: str, goal: Goal) -> float:
    """Return the best value of a metric that a script has logged, NaN if the last one is not finite."""
    if metric not in run.summary or not math.isfinite(run.summary[metric].last):
        return math.nan
    best = run.best(metric, goal)
    return math.nan if best is None else best
