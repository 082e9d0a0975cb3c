"""The analysis behind `labbench why`: from a table of set-ups to an `Answer`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.answer import (
    Answer,
    CloseAlternative,
    Counts,
    Divergence,
    Estimate,
    HeatMap,
    Interaction,
    ParameterAnswer,
    VarianceShares,
    Verdict,
)
from labbench.analysis.comparison import (
    Difference,
    compare,
    contenders,
    held_out_score,
    mean_intervals,
    rank_setups,
    winner_interval,
)
from labbench.analysis.effects import MarginalEffects, marginal_effects, two_way_table
from labbench.analysis.importance import Importance, importance
from labbench.analysis.intervals import Interval, interquartile_mean
from labbench.analysis.lr_ranges import find_rate_ranges, find_widenings
from labbench.analysis.noise import Noise, learn_noise
from labbench.analysis.rescale import rescale_observations, restore_unit
from labbench.analysis.table import Ints, Observation, Parameter, Setup, Table, freeze, tabulate
from labbench.records import Goal

MIN_IQM_VALUES = 8
"""Values from which the interquartile mean says more than the mean of so few middle ones would."""


MIN_INTERACTION_SHARE = 0.02
"""Share of the variance below which an interaction is not worth a sentence."""


MAX_RANKED_SETUPS = 10
"""Set-ups that are shown by name."""


MAX_CHEAPER_TIME_RATIO = 0.8


MIN_SAVED_SECONDS = 1.0
"""Time saved on a run that is worth a sentence."""


@dataclass(frozen=True)
class _AnswerContext:
    """What every part of the answer starts from."""

    everything: Table
    """All set-ups; `table` has those with a result."""
    table: Table
    noise: Noise | None
    goal: Goal
    order: Ints
    """Indices into `table`, best first."""
    limits: tuple[float, float]

    @property
    def best(self) -> int:
        return int(self.order[0])

    def clip(self, interval: Interval) -> Interval:
        """End an interval where the metric ends."""
        if interval.low is None or interval.high is None:
            return interval
        return Interval(interval.mean, max(interval.low, self.limits[0]), min(interval.high, self.limits[1]))

    def oriented_mean(self, index: int) -> float:
        """The mean of a set-up, greater is better."""
        return float(self.table.means[index]) * (1.0 if self.goal == "max" else -1.0)

    def estimate(self, index: int, interval: Interval | None = None) -> Estimate:
        """One set-up in numbers, with its plain interval if no other is given."""
        setup = self.table.setups[index]
        return Estimate(
            config=setup.config,
            differing={p.name: setup.config.get(p.name) for p in self.table.independent},
            interval=self.clip(interval or mean_intervals(self.table, self.noise)[index]),
            n=len(setup.values),
            median=float(np.median(setup.values)),
            iqm=interquartile_mean(setup.values) if len(setup.values) >= MIN_IQM_VALUES else None,
            spread=self._spread(index),
            diverged=setup.diverged,
            runs=setup.runs,
            seconds=setup.seconds,
        )

    def _spread(self, index: int) -> float | None:
        if self.noise is None or len(self.table.setups[index].values) < 2:
            return None
        return math.sqrt(float(self.noise.total.variance[index]))


def why(observations: Iterable[Observation], metric: str, goal: Goal, *, lost: str = "diverged") -> Answer:
    """The answer to "which set-up is best, and why?"; runs without results are part of it, never an error.

    `lost` names in the sentences what became of the runs that count as diverged ("never got there", for costs).
    """
    runs, unit = rescale_observations(list(observations))
    return restore_unit(_make_answer(tabulate(runs), metric, goal, lost), unit)


def _make_answer(everything: Table, metric: str, goal: Goal, lost: str) -> Answer:
    table = everything.with_values()
    if not table.setups:
        return Answer(
            metric, goal, "no results", _count_runs(everything), divergences=_find_divergences(everything), lost=lost
        )
    noise, order = learn_noise(table), rank_setups(table, goal)
    case = _AnswerContext(everything, table, noise, goal, order, _metric_bounds(metric, table))
    rivals = np.flatnonzero(contenders(table, noise, case.best, goal) & ~_unsafe_mask(case))
    difference = compare(table, noise, case.best, int(order[1]), goal) if len(order) > 1 else None
    found = importance(table, noise)
    best = case.estimate(case.best, winner_interval(table, noise, case.best, goal))
    ranking = (best, *(case.estimate(int(index)) for index in order[1:MAX_RANKED_SETUPS]))
    parameters, interactions = _parameter_answers(case, found, difference), _find_interactions(case, found)
    return Answer(
        metric=metric,
        goal=goal,
        verdict=_verdict(difference),
        counts=_count_runs(everything),
        best=best,
        runner_up=ranking[1] if len(ranking) > 1 else None,
        difference=difference,
        rivals=len(rivals) - 1 if noise else 0,
        held_out=held_out_score(table, goal),
        cheaper=_find_cheaper(case, rivals, best.interval),
        unsafe=_find_unsafe(case),
        parameters=parameters,
        interactions=interactions,
        ranking=ranking,
        heat_maps=make_heat_maps(everything, noise, parameters, interactions),
        rate_ranges=find_rate_ranges(everything, goal),
        widenings=find_widenings(everything, noise, goal),
        divergences=_find_divergences(everything),
        shares=_variance_shares(found),
        lost=lost,
    )


def _count_runs(everything: Table) -> Counts:
    seeds = everything.counts[everything.counts > 0].tolist()
    return Counts(
        runs=sum(setup.runs for setup in everything.setups),
        with_result=int(everything.counts.sum()),
        diverged=sum(setup.diverged for setup in everything.setups),
        missing=sum(setup.missing for setup in everything.setups),
        setups=len(everything.setups),
        fewest_seeds=min(seeds, default=0),
        most_seeds=max(seeds, default=0),
    )


def _metric_bounds(metric: str, table: Table) -> tuple[float, float]:
    """What the metric cannot leave, as far as its name and its values tell; intervals end there."""
    words = set(metric.lower().replace("/", "_").replace("-", "_").split("_"))
    low, high = float(table.value.min()), float(table.value.max())
    if "accuracy" in words and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    return (0.0 if words & {"loss", "error", "mse", "mae"} and low >= 0.0 else -math.inf), math.inf


def _verdict(difference: Difference | None) -> Verdict:
    if difference is None:
        return "only one set-up has results"
    if difference.interval.low is None:
        return "too few seeds to say"
    return "clear" if difference.clear else "too close to call"


def _find_cheaper(case: _AnswerContext, rivals: Ints, best: Interval) -> Estimate | None:
    """The rival that trains fastest, where it is clearly faster than the best.

    Its mean is within the interval of the best: what spreads so widely that nothing tells it from the best is no
    advice.
    """
    reference = case.table.setups[case.best].seconds
    if case.noise is None or reference is None or best.low is None or best.high is None:
        return None
    near = [i for i in rivals.tolist() if best.low <= case.table.means[i] <= best.high]
    timed = [(case.table.setups[i].seconds or math.inf, i) for i in near if not case.table.setups[i].diverged]
    if not timed:
        return None
    if min(timed)[0] > min(MAX_CHEAPER_TIME_RATIO * reference, reference - MIN_SAVED_SECONDS):
        return None
    return case.estimate(min(timed)[1])


def _unsafe_mask(case: _AnswerContext) -> NDArray[np.bool_]:
    """(set-ups,): those of which runs diverged, unless it happened to the best too."""
    lost = np.array([setup.diverged > 0 for setup in case.table.setups])
    return lost if not lost[case.best] else np.zeros(len(lost), dtype=np.bool_)


def _find_unsafe(case: _AnswerContext) -> Estimate | None:
    """The best mean among set-ups of which runs diverged, where it beats the best safe one."""
    top = max(range(len(case.table.setups)), key=case.oriented_mean)
    passed_over = top != case.best and case.table.setups[top].diverged > 0
    return case.estimate(top) if passed_over else None


def _find_divergences(everything: Table) -> tuple[Divergence, ...]:
    """The values under which runs diverged, of the parameter whose values differ most in it."""
    diverged = np.array([setup.diverged for setup in everything.setups])
    runs = np.array([setup.runs for setup in everything.setups])
    if not diverged.any():
        return ()
    told: list[tuple[float, list[Divergence]]] = []
    for p in everything.independent:
        size = len(p.levels)
        by_value = np.bincount(p.codes, diverged, size), np.bincount(p.codes, runs, size)
        shares = by_value[0] / by_value[1]
        cases = zip(p.levels, by_value[0].tolist(), by_value[1].tolist(), strict=True)
        told.append((float(shares.var()), [Divergence(p.name, v, int(d), int(n)) for v, d, n in cases if d]))
    most = max(told, key=lambda case: case[0], default=(0.0, []))
    return tuple(sorted(most[1], key=lambda case: -case.diverged / case.runs)) if most[0] > 0 else ()


def _parameter_answers(
    case: _AnswerContext, found: Importance | None, difference: Difference | None
) -> tuple[ParameterAnswer, ...]:
    everything = case.everything
    marginals = [
        _clip_effects(case, marginal_effects(everything, p, case.noise, case.goal)) for p in everything.independent
    ]
    evidence = _evidence_levels([m.p_value for m in marginals])
    if len(marginals) == 1 and difference is not None and difference.clear:
        evidence = ["clear"]  # its values are the set-ups, of which the verdict has told two apart
    answers = [
        ParameterAnswer(
            name=p.name,
            numeric=p.numeric,
            importance=found.main_effects.get(p.name) if found else None,
            marginal=effects,
            evidence=strength,
            followers=tuple(other.name for other in everything.parameters if other.follows == p.name),
            close_alternative=None if p.numeric else _find_close_alternative(case, p, effects),
            parent=p.parent,
        )
        for p, effects, strength in zip(everything.independent, marginals, evidence, strict=True)
    ]
    return tuple(sorted(answers, key=lambda answer: -(answer.importance.mean if answer.importance else 0.0)))


def _variance_shares(found: Importance | None) -> VarianceShares | None:
    if found is None:
        return None
    together = sum(share.mean for share in found.pairs.values())
    return VarianceShares(
        found.method, found.seeds, together, found.rest, found.setups, found.left_out, found.wants_forest
    )


def _clip_effects(case: _AnswerContext, found: MarginalEffects) -> MarginalEffects:
    effects = tuple(replace(effect, interval=case.clip(effect.interval)) for effect in found.effects)
    return replace(found, effects=effects)


def _evidence_levels(p_values: Sequence[float | None]) -> list[Literal["clear", "weak", "none"]]:
    """Holm's step-down test at 5 % for all parameters together; `weak` is 5 % for the one alone."""
    result: list[Literal["clear", "weak", "none"]] = ["none" if p is None or p > 0.05 else "weak" for p in p_values]
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    for rank, (p, i) in enumerate(ranked):
        if p > 0.05 / (len(ranked) - rank):
            break
        result[i] = "clear"
    return result


def _find_close_alternative(
    case: _AnswerContext, parameter: Parameter, effects: MarginalEffects
) -> CloseAlternative | None:
    """Where the value that is second on average comes within half of its average distance when the rest suits it."""
    contrast = effects.contrast
    best = case.table.setups[case.best]

    def has(setup: Setup, value: object) -> bool:
        return freeze(setup.config.get(parameter.name)) == freeze(value)

    if contrast is None or not has(best, contrast.value):
        return None
    others = [i for i, s in enumerate(case.table.setups) if has(s, contrast.against) and not s.diverged]
    nearest = max(others, key=case.oriented_mean, default=None)
    if nearest is None or case.oriented_mean(case.best) - case.oriented_mean(nearest) > 0.5 * abs(
        contrast.interval.mean
    ):
        return None
    config = case.table.setups[nearest].config
    names = [p.name for p in case.table.independent if p.name != parameter.name]
    differing = {n: config.get(n) for n in names if freeze(config.get(n)) != freeze(best.config.get(n))}
    return CloseAlternative(
        contrast.against, differing, max(0.0, case.oriented_mean(case.best) - case.oriented_mean(nearest))
    )


def _find_interactions(case: _AnswerContext, found: Importance | None) -> tuple[Interaction, ...]:
    """The pairs whose interaction is certain, and moves the best value."""
    told = []
    by_name = {p.name: p for p in case.everything.independent}
    for names, share in sorted(found.pairs.items() if found else (), key=lambda item: -item[1].mean):
        if share.low is None or share.low <= 0.0 or share.mean < MIN_INTERACTION_SHARE:
            continue
        first, second = by_name[names[0]], by_name[names[1]]
        if (first.numeric, len(first.levels)) > (second.numeric, len(second.levels)):
            first, second = second, first  # "the best lr by optimizer" says more than the other way round
        best = _best_values_by(case, first, second)
        if len({freeze(value) for _, value in best}) > 1:
            told.append(Interaction((first.name, second.name), share, best))
    return tuple(told)


def _best_values_by(case: _AnswerContext, first: Parameter, second: Parameter) -> tuple[tuple[object, object], ...]:
    """(value of the first, best value of the second); one with which runs diverged only where all did."""
    table = two_way_table(case.everything, first, second, case.noise)
    best = []
    for value, cells in zip(table.rows, table.cells, strict=True):
        measured = [(cell, column) for cell, column in zip(cells, table.columns, strict=True) if cell.n]
        steady = [pair for pair in measured if not pair[0].diverged] or measured
        if steady:
            sign = 1.0 if case.goal == "max" else -1.0
            best.append((value, max(steady, key=lambda pair: sign * pair[0].interval.mean)[1]))
    return tuple(best)


MAX_HEAT_MAPS = 2


MAX_HEAT_MAP_LEVELS = 12
"""Columns that a screen has room for."""


def make_heat_maps(
    everything: Table, noise: Noise | None, parameters: Sequence[ParameterAnswer], interactions: Sequence[Interaction]
) -> tuple[HeatMap, ...]:
    """Two-way tables of `everything`; `parameters` have the most important first, `interactions` the strongest."""
    by_name = {p.name: p for p in everything.independent if p.parent is None and len(p.levels) <= MAX_HEAT_MAP_LEVELS}
    pairs = [interaction.names for interaction in interactions]
    pairs += combinations([parameter.name for parameter in parameters if parameter.name in by_name][:2], 2)
    chosen: dict[frozenset[str], HeatMap] = {}
    for names in pairs:
        if len(chosen) < MAX_HEAT_MAPS and frozenset(names) not in chosen and all(name in by_name for name in names):
            row, column = sorted((by_name[name] for name in names), key=_column_order)
            table = two_way_table(everything, row, column, noise)
            chosen[frozenset(names)] = HeatMap((row.name, column.name), table)
    return tuple(chosen.values())


def _column_order(parameter: Parameter) -> tuple[bool, int]:
    """Words down, and numbers, of which there are more, across."""
    return (parameter.numeric, len(parameter.levels))
