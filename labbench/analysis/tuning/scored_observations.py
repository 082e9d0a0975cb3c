"""Results of runs with scores of another metric for choosing among configurations, and the table of the scores.

Both metrics of a run belong to the same network as far as it is known (`selection.Network`): a result on other weights
than those that were chosen by would judge another network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from labbench.analysis.selection import Selection
from labbench.analysis.table import Observation, Table, observe
from labbench.metrics import Goal
from labbench.records import PairedPoint


def observe_selected(selection: Selection, metric: str, goal: Goal) -> list[Observation]:
    """Return one observation per ended run, with scores if another metric chooses among configurations.

    A run without a value of one of the two metrics counts as missing, or as diverged if one of them diverged.
    """
    tuning, ended = selection.scope.tuning, [run for run in selection.runs if run.status not in ("queued", "running")]
    results = observe(ended, metric, goal, at=selection.scope.at)
    if tuning is None:
        return results
    scores = observe(ended, tuning.metric, tuning.goal, at=tuning.at)
    scored = _add_scores(results, scores, tuning.goal)
    if tuning.network in ("last", "restored"):
        return scored
    return [
        _replace_values(observation, selection.pairs.get(run.key), tuning.goal, required=tuning.network == "best step")
        for run, observation in zip(ended, scored, strict=True)
    ]


def score_table(table: Table) -> Table | None:
    """Return the table of the scores (greater is better); None if configurations are chosen by the values."""
    if not any(setup.scores for setup in table.setups):
        return None
    return replace(table, setups=tuple(replace(setup, values=setup.scores, scores=()) for setup in table.setups))


def _add_scores(results: Iterable[Observation], tuning: Iterable[Observation], goal: Goal) -> list[Observation]:
    """Return the results with the values of the tuning metric, the same runs' `tuning`, as scores."""
    return [
        replace(run, value=None if score.value is None else run.value, diverged=run.diverged or score.diverged)
        if score.value is None or run.value is None
        else replace(run, score=_orient(score.value, goal))
        for run, score in zip(results, tuning, strict=True)
    ]


def _replace_values(observation: Observation, pair: PairedPoint | None, goal: Goal, *, required: bool) -> Observation:
    """Return the observation with the values of a pair; a run without a `required` pair counts as missing."""
    if observation.value is None:
        return observation
    if pair is None:
        return replace(observation, value=None, score=None) if required else observation
    return replace(observation, value=pair.judged, score=_orient(pair.chosen, goal))


def _orient(value: float, goal: Goal) -> float:
    """Return the value, negated unless `goal` is "max", so that greater is better."""
    return value if goal == "max" else -value
