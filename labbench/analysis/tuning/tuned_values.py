"""Compare the values of a parameter, each at its own best setting of the other parameters.

Estimand: the mean on new seeds of the setting that tuning picks from these candidates with k - 1 seeds. It is estimated
by leaving out each of the k common seeds in turn: the setting is chosen on the other seeds and judged on this one, and
the k results are averaged. The average is unbiased, because a setting is never judged on seeds that it was chosen on.
Two values are compared on the same seeds, so that effects common to all settings of a seed cancel.

The k results are correlated, because their choices share seeds, and no unbiased estimate of their variance exists
(Bengio & Grandvalet 2004). Their variance is simulated instead (parametric bootstrap, Efron & Tibshirani 1993, section
6.5): from means whose gaps to the best are shrunken by the non-negative garrote (Breiman 1995), so that settings in a
near tie are as often exchanged as in reality, and from variances drawn around the moderated ones of `analysis.noise`,
because a setting with a large variance is picked more often.

Shapes: C candidates of a value, k seeds, D simulated grids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.comparison import orient
from labbench.analysis.intervals import Interval, VarianceEstimate
from labbench.analysis.noise.runs import Noise, learn_noise
from labbench.analysis.noise.variance import SetupVariances
from labbench.analysis.table import Floats, Ints, Parameter, Table
from labbench.analysis.tuning.scored_observations import score_table
from labbench.metrics import Goal

MIN_INTERVAL_SEEDS = 3
"""Smallest number of common seeds for an interval."""
MAX_COMPARED_NUMBERS = 6
"""Largest number of values of a numeric parameter that are compared."""
SIMULATION_COUNT = 500
"""Number of simulated grids (D)."""
MAX_GAP = 6.0
"""Gap to the best setting, in standard errors, above which a setting is never picked in the simulation."""


@dataclass(frozen=True, slots=True)
class TunedValue:
    """Result of one value of a parameter at its own best setting of the other parameters."""

    value: Any
    interval: Interval
    """Mean on new seeds of the setting that tuning picks; without limits under `MIN_INTERVAL_SEEDS` seeds."""
    settings: int
    """Number of settings that the value was tuned over."""
    left_out: int
    """Number of its settings that are no candidates: with diverged runs, or without all common seeds."""
    chosen: Mapping[str, Any]
    """Other settings of the one that is picked with all seeds."""
    behind: Interval | None
    """First value minus this one, in the metric's unit, on the same seeds; None for the first value."""
    ratio: Interval | None = None
    """First value divided by this one, if logarithms were analysed."""


@dataclass(frozen=True, slots=True)
class TunedComparison:
    """Values of one parameter, each at its own best setting."""

    name: str
    seeds: int
    """Number of common seeds (k)."""
    values: tuple[TunedValue, ...]
    """Values by their result, best first."""

    @property
    def clear(self) -> bool:
        """True if the interval of the difference between the first two values excludes 0."""
        behind = self.values[1].behind
        return behind is not None and behind.excludes(0.0)

    def clip(
        self, clip_mean: Callable[[Interval], Interval], clip_difference: Callable[[Interval], Interval]
    ) -> TunedComparison:
        """Return the comparison with the intervals of values and of differences clipped."""
        values = (
            replace(v, interval=clip_mean(v.interval), behind=None if v.behind is None else clip_difference(v.behind))
            for v in self.values
        )
        return replace(self, values=tuple(values))

    def as_document(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        return {"name": self.name, "seeds": self.seeds, "values": [_value_document(value) for value in self.values]}


def _value_document(value: TunedValue) -> dict[str, Any]:
    behind = value.behind
    return {
        "value": value.value,
        **_limits(value.interval),
        "difference": None if behind is None else _limits(behind),
        "ratio": None if value.ratio is None else _limits(value.ratio),
        "settings": value.settings,
        "left_out": value.left_out,
        "chosen": dict(value.chosen),
    }


def _limits(interval: Interval) -> dict[str, float | None]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


@dataclass(frozen=True)
class CommonSeeds:
    """Configurations without diverged runs that share the same seeds."""

    rows: Ints
    """Index of each of R configurations in the table, shape (R,)."""
    values: Floats
    """Values, negated if the goal is min, shape (R, k)."""
    scores: Floats
    """Scores for choosing a setting, greater is better, shape (R, k); equal to `values` by default."""
    score_variances: SetupVariances | None = None
    """Variance of the score of a single run, of all configurations; None if a setting is chosen by its values."""

    @property
    def count(self) -> int:
        """Number of seeds."""
        return int(self.values.shape[1])


def find_common_seeds(table: Table, goal: Goal) -> CommonSeeds:
    """Return the configurations without diverged runs that have all seeds which most of them share.

    If several have `MIN_INTERVAL_SEEDS` seeds, such as the survivors of a search, their seeds count.
    """
    stable = np.array([setup.diverged == 0 for setup in table.setups], dtype=np.bool_)
    replicated = stable & (table.counts >= MIN_INTERVAL_SEEDS)
    basis = replicated if replicated.sum() > 1 else stable
    values = _by_seed(table, orient(table.value, goal))
    has_value = np.isfinite(values)
    shared = 2 * has_value[basis].sum(axis=0) >= max(1, basis.sum())
    rows = np.flatnonzero(stable & has_value[:, shared].all(axis=1))
    block = np.ix_(rows, shared)
    by_score = score_table(table)
    if by_score is None:
        return CommonSeeds(rows, values[block], values[block])
    noise = learn_noise(by_score)
    scores = _by_seed(table, table.scores(goal))[block]
    return CommonSeeds(rows, values[block], scores, None if noise is None else noise.unshared)


def _by_seed(table: Table, numbers: Floats) -> Floats:
    """Return numbers (V,) by the S seeds that several configurations have, NaN for missing ones, shape (C, S)."""
    repeated = np.bincount(table.seed) > 1
    columns, is_repeated = np.cumsum(repeated) - 1, repeated[table.seed]
    matrix = np.full((len(table.setups), int(repeated.sum())), np.nan)
    matrix[table.owner[is_repeated], columns[table.seed[is_repeated]]] = numbers[is_repeated]
    return matrix


def compare_tuned_values(
    everything: Table, parameter: Parameter, noise: Noise | None, seeds: CommonSeeds, goal: Goal
) -> TunedComparison | None:
    """Compare the values of `parameter`, a parameter of `everything`.

    `noise` and `seeds` belong to `everything.with_values()`. Returns None if fewer than two values have candidates
    with two common seeds, or if no value has more than one setting.
    """
    if noise is None or seeds.count < 2:
        return None
    table = everything.with_values()
    measured = table.parameter(parameter.name)
    assert measured is not None, "with_values() keeps the parameters"
    codes = measured.codes[seeds.rows]
    levels = [code for code in np.unique(codes).tolist() if parameter.levels[code] is not None or not parameter.parent]
    results = [_judge(table, noise, seeds, codes == code) for code in levels]
    if len(results) < 2 or max(len(result.members) for result in results) < 2:
        return None
    order = sorted(range(len(levels)), key=lambda i: -results[i].mean)
    best, sign = results[order[0]], 1.0 if goal == "max" else -1.0
    others = [p.name for p in table.independent if p is not measured]
    values = []
    for i in order:
        result, config = results[i], table.setups[results[i].chosen].config
        tried = int((parameter.codes == levels[i]).sum())
        values.append(
            TunedValue(
                value=parameter.levels[levels[i]],
                interval=_flip(result.interval(noise, seeds.count), sign),
                settings=len(result.members),
                left_out=tried - len(result.members),
                chosen={name: config.get(name) for name in others if config.get(name) is not None},
                behind=None if result is best else _flip(best.minus(result, noise, seeds.count), sign),
            )
        )
    return TunedComparison(parameter.name, seeds.count, tuple(values))


@dataclass(frozen=True)
class _Result:
    """Result of one value. Greater is better."""

    members: Ints
    """Indices of the candidates in the table, shape (C,)."""
    chosen: int
    """Index of the setting that is picked with all seeds, in the table."""
    mean: float
    """Mean of the left-out values."""
    variance: float
    """Variance of `mean`, without effects that are common to all settings of a seed."""
    df: float
    """Degrees of freedom of `variance`."""

    def interval(self, noise: Noise, seeds: int) -> Interval:
        """Return the mean and its interval."""
        if seeds < MIN_INTERVAL_SEEDS:
            return Interval(self.mean)
        shared = 0.0 if noise.shifts is None else max(0.0, noise.shifts.variance) / seeds
        total = self.variance + shared
        if noise.shifts is None or shared <= 0.0:
            return VarianceEstimate(total, self.df).interval(self.mean)
        return VarianceEstimate(total, self.df, shared / total, noise.shifts.df).interval(self.mean)

    def minus(self, other: _Result, noise: Noise, seeds: int) -> Interval:
        """Return the difference of two results on the same seeds, and its interval."""
        difference = self.mean - other.mean
        if seeds < MIN_INTERVAL_SEEDS:
            return Interval(difference)
        total = self.variance + other.variance
        if total <= 0.0:
            return Interval(difference, difference, difference)
        # Welch (1947); variances that are pooled over the same settings have no more degrees of freedom than the pool
        inverse_df = (self.variance / total) ** 2 / self.df + (other.variance / total) ** 2 / other.df
        df = min(1.0 / inverse_df, noise.unshared.total_df)
        pair = noise.pairs.variance(self.chosen, other.chosen)
        independent = float(noise.unshared.variance[[self.chosen, other.chosen]].sum())
        if 0.0 < independent < pair.variance:  # a seed has another effect under each of the two values
            total, df = total * pair.variance / independent, min(df, pair.df)
        return VarianceEstimate(total, df).interval(difference)


def _judge(table: Table, noise: Noise, seeds: CommonSeeds, mask: NDArray[np.bool_]) -> _Result:
    """Choose among the candidates `mask`, shape (R,), and judge the choices on the left-out seeds."""
    values, scores, members = seeds.values[mask], seeds.scores[mask], seeds.rows[mask]
    picks = pick_without_each_seed(scores)
    mean = float(values[picks, np.arange(seeds.count)].mean())
    mean_scores = scores.mean(axis=1)
    picked_variance, df = noise.unshared.variance_of_sum(
        np.bincount(members[picks], minlength=len(table.setups)) / seeds.count**2
    )
    variance = 0.0
    if seeds.count >= MIN_INTERVAL_SEEDS:
        judged = None
        variances = noise.unshared.select(members)
        if seeds.score_variances is not None:
            judged, variances = Judged(values.mean(axis=1), variances), seeds.score_variances.select(members)
        variance = simulate_error_variance(mean_scores, variances, seeds.count, picked_variance, judged)
    return _Result(members, int(members[mean_scores.argmax()]), mean, variance, df)


def pick_without_each_seed(values: Floats) -> Ints:
    """Return the index of the best candidate without each seed, shape (..., k), for values (..., C, k)."""
    return np.asarray((values.sum(axis=-1, keepdims=True) - values).argmax(axis=-2))


@dataclass(frozen=True)
class Judged:
    """Values on which the choices are judged, if a setting is chosen by other ones."""

    means: Floats
    """Mean of each candidate over the seeds, greater is better, shape (C,)."""
    variances: SetupVariances
    """Variance of single runs of the candidates."""


def simulate_error_variance(
    means: Floats, estimated: SetupVariances, seeds: int, picked_variance: float, judged: Judged | None = None
) -> float:
    """Return the mean squared error of the leave-one-seed-out estimate in simulated grids.

    `means` (C,) of the scores are over `seeds` seeds, and greater is better; the variances belong to single runs. It is
    scaled up if the variance of the left-out values that were picked in the real grid, `picked_variance` if they were
    independent, is larger than in the simulated ones. If choices are `judged` on other values than the scores, the
    noise of both is fully correlated.
    """
    best, variances = int(means.argmax()), estimated.variance
    gaps, gap_variances = means[best] - means, variances + variances[best]
    shrunken = np.zeros(len(gaps))
    apart = gaps**2 * seeds > gap_variances
    shrunken[apart] = gaps[apart] - gap_variances[apart] / (seeds * gaps[apart])  # non-negative garrote
    near = shrunken <= MAX_GAP * np.sqrt(gap_variances / (seeds - 1))
    truth, generator = -shrunken[near], np.random.default_rng(0)
    drawn = estimated.select(np.flatnonzero(near)).draw(SIMULATION_COUNT, generator)  # (D, C)
    normal = generator.standard_normal((SIMULATION_COUNT, len(truth), seeds))
    noise = normal * np.sqrt(drawn)[:, :, None]
    picks = pick_without_each_seed(truth[:, None] + noise)  # (D, k)
    if judged is not None:
        truth = judged.means[near]
        drawn = judged.variances.select(np.flatnonzero(near)).draw(SIMULATION_COUNT, generator)
        noise = normal * np.sqrt(drawn)[:, :, None]
    left_out = truth[picks] + np.take_along_axis(noise, picks[:, None, :], axis=1)[:, 0]
    error = float(np.mean((left_out.mean(axis=1) - truth[picks].mean()) ** 2))
    simulated_variance = float(np.mean(np.take_along_axis(drawn, picks, axis=1))) / seeds
    return error * max(1.0, picked_variance / simulated_variance) if simulated_variance > 0 else picked_variance


def _flip(interval: Interval, sign: float) -> Interval:
    """Return an interval of oriented values in the metric's unit; `sign` is -1 if the goal is min."""
    if sign > 0 or interval.low is None or interval.high is None:
        return Interval(sign * interval.mean, interval.low, interval.high)
    return Interval(-interval.mean, -interval.high, -interval.low)


def judge_choice(everything: Table, noise: Noise | None, goal: Goal) -> Interval | None:
    """Return the mean on new seeds of the configuration that is picked among all of them with k - 1 seeds.

    Estimand, estimate and interval are defined as for a tuned value with all configurations as its candidates. None if
    fewer than two configurations have two common seeds, or the noise is unknown.
    """
    table = everything.with_values()
    seeds = find_common_seeds(table, goal)
    if noise is None or seeds.count < 2 or len(seeds.rows) < 2:
        return None
    result = _judge(table, noise, seeds, np.ones(len(seeds.rows), dtype=np.bool_))
    return _flip(result.interval(noise, seeds.count), 1.0 if goal == "max" else -1.0)


def has_comparable_values(parameter: Parameter) -> bool:
    """Return True for names, and for few numbers: of more, neighbours are a curve and not choices."""
    values = sum(level is not None for level in parameter.levels)
    return not parameter.numeric or (parameter.spans is None and values <= MAX_COMPARED_NUMBERS)


def compare_all_tuned(
    everything: Table, noise: Noise | None, goal: Goal, names: Sequence[str]
) -> tuple[TunedComparison, ...]:
    """Return the comparisons of the named parameters that are independent and have few values.

    Those with names as values come first, then those with numbers, each in the order of `names`.
    """
    table = everything.with_values()
    by_name = {p.name: p for p in everything.independent if has_comparable_values(p)}
    parameters = sorted((by_name[name] for name in names if name in by_name), key=lambda parameter: parameter.numeric)
    if not parameters or noise is None:
        return ()
    seeds = find_common_seeds(table, goal)
    comparisons = [compare_tuned_values(everything, p, noise, seeds, goal) for p in parameters]
    return tuple(comparison for comparison in comparisons if comparison is not None)
