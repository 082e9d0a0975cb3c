"""Analysis behind `labbench why`: turn a table of configurations into an `Answer`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from statistics import fmean
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
    Widening,
)
from labbench.analysis.best_values import compare_with_last
from labbench.analysis.comparison import (
    RIVAL_LEVEL,
    Difference,
    compare,
    contenders_at_levels,
    held_out_score,
    mean_intervals,
    rank_setups,
    winner_interval,
)
from labbench.analysis.effects import MarginalEffects, interaction_p_value, marginal_effects, two_way_table
from labbench.analysis.importance import Importance, importance
from labbench.analysis.intervals import Interval, Scale, interquartile_mean
from labbench.analysis.lr_ranges import find_rate_ranges, find_widenings
from labbench.analysis.noise.runs import Noise, learn_noise
from labbench.analysis.scales.bounds import Bounds, guess_bounds
from labbench.analysis.scales.log_scale import restore_values, spans_decade, take_logarithms
from labbench.analysis.scales.rescale import rescale_observations, restore_unit
from labbench.analysis.selection import Selection
from labbench.analysis.table import (
    Check,
    Ints,
    Observation,
    Parameter,
    Setup,
    Table,
    freeze,
    never_cancelled,
    tabulate,
)
from labbench.analysis.tuning.budgets import Sampling, compare_budgets
from labbench.analysis.tuning.scored_observations import observe_selected, score_table
from labbench.analysis.tuning.tuned_values import compare_all_tuned, judge_choice
from labbench.metrics import Goal

MIN_IQM_VALUES = 8
"""Smallest number of values for which the interquartile mean is reported."""


MIN_INTERACTION_SHARE = 0.02
"""Share of the variance below which an interaction is not reported."""


MAX_INTERACTION_P_VALUE = 0.05
"""p-value above which an interaction is not reported."""


MAX_RANKED_SETUPS = 10
"""Number of configurations in the ranking."""


MAX_CHEAPER_TIME_RATIO = 0.8
"""Largest training time of a cheaper rival, relative to the best configuration."""


MIN_SAVED_SECONDS = 1.0
"""Smallest time saved per run, in seconds, for which a cheaper rival is reported."""


MAX_CHEAPER_LOSS = 0.05
"""Largest loss of a cheaper rival by its 95 % interval, relative to the best mean."""


@dataclass(frozen=True)
class _AnswerContext:
    """Inputs that all parts of an answer share. Shapes: C configurations of `table`."""

    everything: Table
    """All configurations."""
    table: Table
    """Configurations with a result."""
    noise: Noise | None
    goal: Goal
    order: Ints
    """Indices into `table`, best first, shape (C,)."""
    bounds: Bounds
    """Smallest and largest possible value of the metric, or of its logarithm."""

    @cached_property
    def scores(self) -> Table | None:
        """All configurations with their scores as values; None if they are chosen by the metric of the answer."""
        return score_table(self.everything)

    @property
    def best(self) -> int:
        """Index of the best configuration in `table`."""
        return int(self.order[0])

    def oriented_mean(self, index: int) -> float:
        """Return the mean of a configuration, negated if the goal is min, so that greater is better."""
        return float(self.table.means[index]) * (1.0 if self.goal == "max" else -1.0)

    def mean_score(self, index: int) -> float:
        """Return the mean by which a configuration is chosen, greater is better."""
        return float(self.table.mean_scores(self.goal)[index])

    def estimate(self, index: int, interval: Interval | None = None) -> Estimate:
        """Return the results of one configuration; `interval` defaults to the unadjusted one."""
        setup = self.table.setups[index]
        return Estimate(
            config=setup.config,
            differing={p.name: setup.config.get(p.name) for p in self.table.independent},
            interval=self.bounds.clip(interval or self._intervals[index]),
            n=len(setup.values),
            median=float(np.median(setup.values)),
            iqm=interquartile_mean(setup.values) if len(setup.values) >= MIN_IQM_VALUES else None,
            spread=self._spread(index),
            diverged=setup.diverged,
            runs=setup.runs,
            seconds=setup.seconds,
            noise=None if self.noise is None else self.noise.moderation_of(index),
            score=fmean(setup.scores) if setup.scores else None,
        )

    @cached_property
    def _intervals(self) -> list[Interval]:
        """Interval of each configuration, unadjusted."""
        return mean_intervals(self.table, self.noise)

    def _spread(self, index: int) -> float | None:
        values = self.table.setups[index].values
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Facts about the runs of an answer, and the scale of its analysis."""

    lost: str = "diverged"
    """Verb phrase for runs that count as diverged, used in sentences, such as "never got there" for costs."""
    sampling: Sampling | None = None
    """Random draw of the configurations, if there was one."""
    may_use_logarithms: bool = True
    """True to analyse the logarithms of losses that span more than a decade."""


def why(
    observations: Iterable[Observation],
    metric: str,
    goal: Goal,
    *,
    options: AnswerOptions | None = None,
    check: Check = never_cancelled,
) -> Answer:
    """Find the best configuration, the certainty of this choice, and the effect of each parameter.

    Runs without results are counted in the answer and never raise. `check` is called between steps and may raise to
    cancel.
    """
    options = options or AnswerOptions()
    runs, unit = rescale_observations(list(observations))
    everything = tabulate(runs)
    bounds = guess_bounds(metric, everything)
    if options.may_use_logarithms and spans_decade(everything, goal):
        answer = restore_values(_make_answer(take_logarithms(everything), metric, goal, Bounds(scale="log"), check))
    else:
        answer = _make_answer(everything, metric, goal, bounds, check)
    budgets = compare_budgets(everything, options.sampling, goal, (bounds.low, bounds.high))
    values = everything.value
    span = (float(values.min()) * unit, float(values.max()) * unit) if len(values) else None
    return replace(restore_unit(replace(answer, budgets=budgets), unit), lost=options.lost, span=span)


def explain(selection: Selection, metric: str, goal: Goal, *, check: Check = never_cancelled) -> Answer:
    """Answer `why` for selected runs.

    `check` is called between steps and may raise to cancel.
    """
    scope = selection.scope
    runs = observe_selected(selection, metric, goal)
    # the best of n is the best by its own metric
    sampling = selection.sampling if scope.tuning is None else None
    options = AnswerOptions(sampling=sampling, may_use_logarithms=not scope.linear)
    scope = replace(scope, bests=compare_with_last(selection.runs, metric, goal))
    answer = replace(why(runs, metric, goal, options=options, check=check), scope=scope)
    if scope.tuning is not None and scope.tuning.goal == "min":
        answer = _negate_scores(answer)
    # the learning rates that a search pruned may be usable
    return replace(answer, rate_ranges=(), widenings=()) if scope.pruned else answer


def _negate_scores(answer: Answer) -> Answer:
    """Return the answer with scores in the unit of a tuning metric of which lower values are better."""

    def negate(estimate: Estimate) -> Estimate:
        return replace(estimate, score=None if estimate.score is None else -estimate.score)

    best, runner_up = (None if each is None else negate(each) for each in (answer.best, answer.runner_up))
    return replace(answer, best=best, runner_up=runner_up, ranking=tuple(map(negate, answer.ranking)))


def _make_answer(everything: Table, metric: str, goal: Goal, bounds: Bounds, check: Check) -> Answer:
    table = everything.with_values()
    if not table.setups:
        return Answer(metric, goal, "no results", _count_runs(everything), divergences=_find_divergences(everything))
    noise, order = learn_noise(table), rank_setups(table, goal)
    context = _AnswerContext(everything, table, noise, goal, order, bounds)
    near, possible = contenders_at_levels(table, noise, context.best, goal, (0.95, RIVAL_LEVEL))
    rivals = np.flatnonzero(near & ~_unsafe_mask(context))
    difference = compare(table, noise, context.best, int(order[1]), goal) if len(order) > 1 else None
    shares = importance(table, noise, check=check)
    ranking = _rank_estimates(context, possible)
    parameters = _parameter_answers(context, shares, difference, check)
    interactions = _find_interactions(context, shares)
    cheaper, cheaper_difference = _find_cheaper(context, rivals) or (None, None)
    tuned = compare_all_tuned(everything, noise, goal, [parameter.name for parameter in parameters])
    return Answer(
        metric=metric,
        goal=goal,
        verdict=_verdict(difference),
        counts=_count_runs(everything),
        best=ranking[0],
        runner_up=ranking[1] if len(ranking) > 1 else None,
        difference=None if difference is None else _clip_difference(context, difference),
        rivals=len(rivals) - 1 if noise else 0,
        held_out=_judge_choice(context),
        cheaper=cheaper,
        cheaper_difference=cheaper_difference,
        unsafe=_find_unsafe(context),
        tuned=tuple(comparison.clip(bounds.clip, bounds.clip_difference) for comparison in tuned),
        parameters=parameters,
        interactions=interactions,
        ranking=ranking,
        heat_maps=_clipped_heat_maps(context, parameters, interactions),
        rate_ranges=find_rate_ranges(*_chosen_values(context)),
        widenings=_find_widenings(context),
        divergences=_find_divergences(everything),
        shares=_variance_shares(shares),
        not_analysed=everything.not_analysed,
    )


def _rank_estimates(context: _AnswerContext, possible: NDArray[np.bool_]) -> tuple[Estimate, ...]:
    """Return the results of the best configurations, best first.

    `possible` is a mask (C,) of the configurations among which the best one was selected; its interval accounts for
    this selection.
    """
    interval = winner_interval(context.table, context.noise, context.best, context.goal, rivals=possible)
    best = replace(context.estimate(context.best, interval), selected_among=int(possible.sum()))
    return (best, *(context.estimate(int(index)) for index in context.order[1:MAX_RANKED_SETUPS]))


def _judge_choice(context: _AnswerContext) -> Interval | None:
    """Return the result on left-out seeds of the configurations chosen on the other seeds; None without such seeds."""
    judged = judge_choice(context.everything, context.noise, context.goal)
    if judged is not None:
        return context.bounds.clip(judged)
    mean = held_out_score(context.table, context.goal)  # also of configurations that share only some seeds
    return None if mean is None else Interval(mean)


def _chosen_values(context: _AnswerContext) -> tuple[Table, Goal, Scale]:
    """Return the values that choices are made by, with their goal and scale."""
    if context.scores is not None:
        return context.scores, "max", "linear"
    return context.everything, context.goal, context.bounds.scale


def _find_widenings(context: _AnswerContext) -> tuple[Widening, ...]:
    values, goal, scale = _chosen_values(context)
    noise = context.noise if context.scores is None else learn_noise(values.with_values())
    return find_widenings(values, noise, goal, scale)


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
        has_seeds=all(seed is not None for setup in everything.setups for seed in setup.seeds),
        copies=sum(setup.copies for setup in everything.setups),
    )


def _verdict(difference: Difference | None) -> Verdict:
    if difference is None:
        return "only one set-up has results"
    if difference.interval.low is None:
        return "too few seeds to say"
    return "clear" if difference.clear else "too close to call"


def _find_cheaper(context: _AnswerContext, rivals: Ints) -> tuple[Estimate, Difference] | None:
    """Return the fastest rival that saves time and is hardly worse, and its difference from the best configuration.

    Hardly worse means that the 95 % interval of the difference excludes a loss above `MAX_CHEAPER_LOSS`. A rival that
    is not clearly worse only for lack of seeds is none.
    """
    setups, table = context.table.setups, context.table
    reference = setups[context.best].seconds
    if context.noise is None or reference is None or context.scores is not None:
        return None  # with a tuning metric, a choice by results would be one by the judged data
    longest = min(MAX_CHEAPER_TIME_RATIO * reference, reference - MIN_SAVED_SECONDS)
    timed = [(setups[i].seconds or math.inf, i) for i in rivals.tolist() if i != context.best]
    for seconds, i in sorted(timed):
        if seconds > longest:
            break
        difference = compare(table, context.noise, context.best, i, context.goal)
        if not setups[i].diverged and _is_hardly_worse(context, difference.interval):
            return context.estimate(i), _clip_difference(context, difference)
    return None


def _is_hardly_worse(context: _AnswerContext, difference: Interval) -> bool:
    """Return True if the interval of best minus another configuration excludes a loss above `MAX_CHEAPER_LOSS`."""
    largest_loss = difference.high if context.goal == "max" else difference.low
    if context.bounds.scale == "log":
        tolerance = math.log1p(MAX_CHEAPER_LOSS)
    else:
        tolerance = MAX_CHEAPER_LOSS * abs(float(context.table.means[context.best]))
    return largest_loss is not None and abs(largest_loss) <= tolerance


def _unsafe_mask(context: _AnswerContext) -> NDArray[np.bool_]:
    """Return a mask (C,) of configurations with diverged runs.

    All values are False if the best configuration has some too.
    """
    unsafe = np.array([setup.diverged > 0 for setup in context.table.setups])
    return unsafe if not unsafe[context.best] else np.zeros(len(unsafe), dtype=np.bool_)


def _find_unsafe(context: _AnswerContext) -> Estimate | None:
    """Return the configuration with the best mean if its diverged runs are the reason that it was not selected."""
    top = int(context.table.mean_scores(context.goal).argmax())
    is_unsafe = top != context.best and context.table.setups[top].diverged > 0
    return context.estimate(top) if is_unsafe else None


def _find_divergences(everything: Table) -> tuple[Divergence, ...]:
    """Return the diverged runs by value of the parameter whose values differ most in the share of diverged runs."""
    diverged = np.array([setup.diverged for setup in everything.setups])
    runs = np.array([setup.runs for setup in everything.setups])
    if not diverged.any():
        return ()
    candidates: list[tuple[float, list[Divergence]]] = []
    for p in everything.independent:
        size = len(p.levels)
        by_value = np.bincount(p.codes, diverged, size), np.bincount(p.codes, runs, size)
        shares = by_value[0] / by_value[1]
        spans = p.spans or [None] * size
        cases = zip(p.levels, by_value[0].tolist(), by_value[1].tolist(), spans, strict=True)
        candidates.append(
            (float(shares.var()), [Divergence(p.name, v, int(d), int(n), s) for v, d, n, s in cases if d])
        )
    variance, divergences = max(candidates, key=lambda candidate: candidate[0], default=(0.0, []))
    return tuple(sorted(divergences, key=lambda value: -value.diverged / value.runs)) if variance > 0 else ()


def _parameter_answers(
    context: _AnswerContext, shares: Importance | None, difference: Difference | None, check: Check
) -> tuple[ParameterAnswer, ...]:
    everything = context.everything
    marginals = []
    for p in everything.independent:
        check()
        marginals.append(_clip_effects(context, marginal_effects(everything, p, context.noise, context.goal)))
    evidence = _evidence_levels([m.p_value for m in marginals], untested=len(everything.not_analysed))
    if len(marginals) == 1 and difference is not None and difference.clear:
        evidence = ["clear"]  # the values are the configurations, and the verdict is that two of them differ
    answers = [
        ParameterAnswer(
            name=p.name,
            numeric=p.numeric,
            importance=shares.main_effects.get(p.name) if shares else None,
            marginal=effects,
            evidence=strength,
            followers=tuple(other.name for other in everything.parameters if other.follows == p.name),
            close_alternative=None if p.numeric else _find_close_alternative(context, p, effects),
            parent=p.parent,
        )
        for p, effects, strength in zip(everything.independent, marginals, evidence, strict=True)
    ]
    return tuple(sorted(answers, key=lambda answer: -(answer.importance.mean if answer.importance else 0.0)))


def _variance_shares(shares: Importance | None) -> VarianceShares | None:
    if shares is None:
        return None
    return VarianceShares(
        method=shares.method,
        seeds=shares.seeds,
        interactions=sum(share.mean for share in shares.pairs.values()),
        rest=shares.rest,
        setups=shares.setups,
        left_out=shares.left_out,
        paired=shares.paired,
    )


def _clip_effects(context: _AnswerContext, marginal: MarginalEffects) -> MarginalEffects:
    effects = tuple(replace(effect, interval=context.bounds.clip(effect.interval)) for effect in marginal.effects)
    contrast = marginal.contrast
    if contrast is not None:
        contrast = replace(contrast, interval=context.bounds.clip_difference(contrast.interval))
    return replace(marginal, effects=effects, contrast=contrast)


def _clip_difference(context: _AnswerContext, difference: Difference) -> Difference:
    return replace(difference, interval=context.bounds.clip_difference(difference.interval))


def _clipped_heat_maps(
    context: _AnswerContext, parameters: Sequence[ParameterAnswer], interactions: Sequence[Interaction]
) -> tuple[HeatMap, ...]:
    heat_maps = make_heat_maps(context.everything, context.noise, parameters, interactions)
    return tuple(_with_best_cell(context, _clip_heat_map(context, heat_map)) for heat_map in heat_maps)


def _with_best_cell(context: _AnswerContext, heat_map: HeatMap) -> HeatMap:
    """Return the heat map with the best cell by the tuning metric, one without diverged runs if possible."""
    row, column = (context.everything.parameter(name) for name in heat_map.names)
    if context.scores is None or row is None or column is None:
        return heat_map
    cells = two_way_table(context.scores, row, column, None).cells
    measured = [(r, c) for r, line in enumerate(cells) for c, cell in enumerate(line) if cell.n]
    best = max(measured, key=lambda rc: (not cells[rc[0]][rc[1]].diverged, cells[rc[0]][rc[1]].interval.mean))
    return replace(heat_map, best=best)


def _clip_heat_map(context: _AnswerContext, heat_map: HeatMap) -> HeatMap:
    rows = heat_map.table.cells
    cells = tuple(tuple(replace(cell, interval=context.bounds.clip(cell.interval)) for cell in row) for row in rows)
    return replace(heat_map, table=replace(heat_map.table, cells=cells))


def _evidence_levels(p_values: Sequence[float | None], *, untested: int = 0) -> list[Literal["clear", "weak", "none"]]:
    """Return the evidence per parameter at the 5 % level.

    `clear` is significant by Holm's step-down test (1979) over all parameters, `weak` by its own test only. `untested`
    is the number of further parameters that were left out because they explain less.
    """
    result: list[Literal["clear", "weak", "none"]] = ["none" if p is None or p > 0.05 else "weak" for p in p_values]
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    for rank, (p, i) in enumerate(ranked):
        if p > 0.05 / (len(ranked) + untested - rank):
            break
        result[i] = "clear"
    return result


def _find_close_alternative(
    context: _AnswerContext, parameter: Parameter, effects: MarginalEffects
) -> CloseAlternative | None:
    """Return the second-best value if tuning the other parameters closes half of its distance to the best."""
    contrast = effects.contrast
    best = context.table.setups[context.best]

    def has(setup: Setup, value: object) -> bool:
        return freeze(setup.config.get(parameter.name)) == freeze(value)

    if contrast is None or not has(best, contrast.value):
        return None
    others = [i for i, s in enumerate(context.table.setups) if has(s, contrast.against) and not s.diverged]
    nearest = max(others, key=context.mean_score, default=None)
    if nearest is None:
        return None
    gap = context.oriented_mean(context.best) - context.oriented_mean(nearest)
    if gap > 0.5 * abs(contrast.interval.mean) or (gap < 0.0 and context.table.setups[nearest].scores):
        return None  # chosen by another metric, the best may have a worse value
    config = context.table.setups[nearest].config
    names = [p.name for p in context.table.independent if p.name != parameter.name]
    differing = {n: config.get(n) for n in names if freeze(config.get(n)) != freeze(best.config.get(n))}
    return CloseAlternative(contrast.against, differing, max(0.0, gap))


def _find_interactions(context: _AnswerContext, shares: Importance | None) -> tuple[Interaction, ...]:
    """Return the pairs whose interaction is significant and changes the best value."""
    interactions = []
    by_name = {p.name: p for p in context.everything.independent}
    for names, share in sorted(shares.pairs.items() if shares else (), key=lambda item: -item[1].mean):
        if share.low is None or share.low <= 0.0 or share.mean < MIN_INTERACTION_SHARE:
            continue
        first, second = by_name[names[0]], by_name[names[1]]
        if not _is_significant(context, names, shares):
            continue
        if (first.numeric, len(first.levels)) > (second.numeric, len(second.levels)):
            first, second = second, first  # "the best lr by optimizer" is more useful than the reverse
        best = _best_values_by(context, first, second)
        if len({freeze(value) for _, value in best}) > 1:
            interactions.append(Interaction((first.name, second.name), share, best))
    return tuple(interactions)


def _is_significant(context: _AnswerContext, names: tuple[str, str], shares: Importance | None) -> bool:
    """Return False if the interaction is no larger than that of both parameters with the seed."""
    first, second = (context.table.parameter(name) for name in names)
    if context.noise is None or first is None or second is None or shares is None or shares.factorial is None:
        return True
    p_value = interaction_p_value(context.table, first, second, context.noise, shares.factorial)
    return p_value is None or p_value <= MAX_INTERACTION_P_VALUE


def _best_values_by(context: _AnswerContext, first: Parameter, second: Parameter) -> tuple[tuple[object, object], ...]:
    """Return pairs (value of the first, best value of the second).

    Values of the second with diverged runs are used only if all values have some.
    """
    values, goal, _ = _chosen_values(context)
    table = two_way_table(values, first, second, None)
    best = []
    for value, cells in zip(table.rows, table.cells, strict=True):
        measured = [(cell, column) for cell, column in zip(cells, table.columns, strict=True) if cell.n]
        candidates = [pair for pair in measured if not pair[0].diverged] or measured
        if candidates:
            sign = 1.0 if goal == "max" else -1.0
            best.append((value, max(candidates, key=lambda pair: sign * pair[0].interval.mean)[1]))
    return tuple(best)


MAX_HEAT_MAPS = 2


MAX_HEAT_MAP_LEVELS = 12
"""Largest number of columns that fits on a screen."""


def make_heat_maps(
    everything: Table, noise: Noise | None, parameters: Sequence[ParameterAnswer], interactions: Sequence[Interaction]
) -> tuple[HeatMap, ...]:
    """Return two-way tables of the strongest interactions, then of the two most important parameters.

    `parameters` and `interactions` are sorted, most important first.
    """
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
    """Return a sort key that puts strings in the rows and numbers in the columns."""
    return (parameter.numeric, len(parameter.levels))
