"""Group runs into configurations and find the parameters that vary: the table behind every analysis.

A *setup* is a configuration without its seed. A parameter that varies only together with others (`[[zip]]`, `[[set]]`)
is a *follower*: its effect cannot be separated from theirs, so it is not analysed on its own. A parameter that exists
or varies only under some values of another parameter is a *child* of that parameter.

Shapes: C configurations, V values (one per configuration and seed).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.metrics import Goal, default_goal, is_quality
from labbench.records import RunRecord

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Check: TypeAlias = Callable[[], None]
"""Function called between the steps of a long analysis; it raises an exception to cancel the analysis."""


def never_cancelled() -> None:
    """Let the analysis continue; the default `Check`."""


MAX_UNBINNED_LEVELS = 6
"""Largest number of levels of a numeric parameter that is never binned.

Outside a full grid, a parameter with more levels is binned if levels rarely repeat or there are more than 20.
"""
BIN_COUNT = 5
MAX_PARAMETERS = 32
"""Largest number of parameters that are analysed; of more, those that explain most of the results are kept."""
MAX_CHANCE_OF_DEFAULT = 0.01
"""Largest probability that random configurations have the same level where it counts as the default."""
ROUNDING_TOLERANCE = 1e-13
"""Rounding error of a sum, relative to the sum of absolute terms."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Config and result of one run."""

    config: Mapping[str, Any]
    """Flat config; its key `seed` is ignored."""
    seed: int | None
    value: float | None
    """Value of the metric; None if the run diverged, failed or did not measure it."""
    seconds: float | None = None
    """Training time, or another cost of the run."""
    diverged: bool = False
    """True if the run ended as diverged; see also `has_diverged`."""
    score: float | None = None
    """Number for choosing configurations, greater is better; None: `value` itself."""
    numbers: str | None = None
    """Summaries of all metrics of quality as text, equal for copies; None for a run with a seed."""

    @property
    def has_diverged(self) -> bool:
        """True if the run diverged or its value is not finite."""
        return self.diverged or (self.value is not None and not math.isfinite(self.value))


def observe(
    runs: Iterable[RunRecord],
    metric: str,
    goal: Goal | None = None,
    *,
    at: Literal["best", "last"] = "best",
) -> list[Observation]:
    """Return one observation per ended run; queued and running runs are left out.

    `goal` defaults to `default_goal(metric)`. `at` selects the best or the last value. Runs that failed, stopped or
    were lost have a missing value, because their last value is not comparable.
    """
    goal = goal or default_goal(metric)
    return [_make_observation(run, metric, goal, at) for run in runs if run.status not in ("queued", "running")]


def _make_observation(run: RunRecord, metric: str, goal: Goal, at: Literal["best", "last"]) -> Observation:
    summary, diverged = run.summary.get(metric), run.has_diverged(metric)
    value = None
    if run.status == "finished" and summary is not None and not diverged:
        value = summary.best(goal)[0] if at == "best" else summary.last
    compute = run.summary.get("time/compute_s")
    seed = run.config.get("seed")
    return Observation(
        config=run.config,
        seed=seed if isinstance(seed, int) else None,
        value=value,
        seconds=run.seconds if compute is None else compute.last,
        diverged=diverged,
        numbers=None if isinstance(seed, int) else _describe_numbers(run),
    )


def _describe_numbers(run: RunRecord) -> str:
    return repr([(name, summary) for name, summary in sorted(run.summary.items()) if is_quality(name)])


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration without its seed, and the results of its runs."""

    config: Mapping[str, Any]
    """Configuration without its seed."""
    values: tuple[float, ...]
    """Finite values, one per seed."""
    seeds: tuple[int | None, ...]
    """Seed of each value; None if unknown."""
    runs: int
    """Number of runs, with and without a value."""
    diverged: int
    """Number of diverged runs."""
    seconds: float | None
    """Mean training time in seconds over the runs that recorded it."""
    copies: int = 0
    """Number of runs that repeat another one in every number; together with it, they count as one value."""
    scores: tuple[float, ...] = ()
    """Score of each seed for choosing configurations, greater is better; empty: the values are the scores."""

    @property
    def missing(self) -> int:
        """Number of runs without a value that did not diverge."""
        return max(0, self.runs - self.diverged - len(self.values))


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter with more than one value, and its level in each configuration."""

    name: str
    levels: tuple[Any, ...]
    """Values in ascending order, numbers before strings; medians of bins; None for configs without the key."""
    codes: Ints
    """Index into `levels` per configuration, shape (C,)."""
    numeric: bool
    """True if all values are numbers."""
    spans: tuple[tuple[float, float], ...] | None = None
    """Smallest and largest value of each bin; None if the parameter is not binned."""
    follows: str | None = None
    """Parameter with which this one varies together; None if it varies independently."""
    parent: str | None = None
    """Parameter on which this one is conditional; None if it exists everywhere."""

    def present(self) -> NDArray[np.bool_]:
        """Return a mask (C,) of the configurations that have the key."""
        return np.array([level is not None for level in self.levels])[self.codes]


@dataclass(frozen=True)
class Table:
    """C configurations with their V values, and the parameters that vary between them.

    Values are flat: `value[i]` belongs to configuration `owner[i]` and seed index `seed[i]`.
    """

    setups: tuple[Setup, ...]
    parameters: tuple[Parameter, ...]
    not_analysed: tuple[str, ...] = ()
    """Names of varying parameters beyond `MAX_PARAMETERS`, which are left out of `parameters`."""

    @cached_property
    def counts(self) -> Ints:
        """Number of values per configuration, shape (C,)."""
        return np.array([len(setup.values) for setup in self.setups], dtype=np.int64)

    @cached_property
    def means(self) -> Floats:
        """Mean per configuration, NaN without values, shape (C,)."""
        sums, sizes = (np.bincount(self.owner, v, len(self.setups)) for v in (self.value, np.abs(self.value)))
        sums[np.abs(sums) <= ROUNDING_TOLERANCE * sizes] = 0.0
        return np.asarray(np.divide(sums, self.counts, out=np.full(len(sums), math.nan), where=self.counts > 0))

    @cached_property
    def value(self) -> Floats:
        """All values, by configuration, shape (V,)."""
        return np.array([value for setup in self.setups for value in setup.values], dtype=np.float64)

    def scores(self, goal: Goal) -> Floats:
        """Return the scores for choosing configurations, greater is better, shape (V,)."""
        if any(setup.scores for setup in self.setups):
            return np.array([score for setup in self.setups for score in setup.scores], dtype=np.float64)
        return self.value if goal == "max" else -self.value

    def mean_scores(self, goal: Goal) -> Floats:
        """Return the mean score of each configuration, NaN without values, shape (C,)."""
        if not any(setup.scores for setup in self.setups):
            return self.means if goal == "max" else -self.means
        sums = np.bincount(self.owner, self.scores(goal), len(self.setups))
        return np.asarray(np.divide(sums, self.counts, out=np.full(len(sums), math.nan), where=self.counts > 0))

    @cached_property
    def owner(self) -> Ints:
        """Index of the configuration of each value, shape (V,)."""
        return np.repeat(np.arange(len(self.setups)), self.counts)

    @cached_property
    def seed(self) -> Ints:
        """Index of the seed of each value, shape (V,).

        Unknown seeds get an index each.
        """
        index: dict[object, int] = {}
        keys = [key for setup in self.setups for key in setup.seeds]
        return np.array([index.setdefault(i if k is None else ("seed", k), len(index)) for i, k in enumerate(keys)])

    @property
    def independent(self) -> tuple[Parameter, ...]:
        """Parameters that are not followers."""
        return tuple(parameter for parameter in self.parameters if parameter.follows is None)

    def parameter(self, name: str) -> Parameter | None:
        """Return the parameter of this name; None if it does not vary."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def with_values(self) -> Table:
        """Return the configurations with at least one value; parameters keep all levels."""
        return self._measured

    @cached_property
    def _measured(self) -> Table:
        rows = np.flatnonzero(self.counts > 0)
        if len(rows) == len(self.setups):
            return self
        parameters = tuple(replace(parameter, codes=parameter.codes[rows]) for parameter in self.parameters)
        return Table(tuple(self.setups[i] for i in rows), parameters, self.not_analysed)


def tabulate(observations: Iterable[Observation]) -> Table:
    """Group observations into configurations and find the parameters that vary.

    Parameters are in the order of the config keys.
    """
    setups = group_by_setup(observations)
    names = dict.fromkeys(name for setup in setups for name in setup.config)
    parameters = [_make_parameter(name, [setup.config.get(name) for setup in setups]) for name in names]
    varying, not_analysed = _screen([parameter for parameter in parameters if len(parameter.levels) > 1], setups)
    varying = _mark_followers(varying)
    varying = _mark_parents([_drop_default_level(parameter, varying) for parameter in varying])
    cells = math.prod(len(p.levels) for p in varying if p.follows is None and p.parent is None)
    if cells > 1.5 * len(setups):  # not a full grid: numeric values rarely repeat
        varying = [_bin_levels(parameter) if _has_many_levels(parameter) else parameter for parameter in varying]
    return Table(setups, tuple(varying), not_analysed)


def group_by_setup(observations: Iterable[Observation]) -> tuple[Setup, ...]:
    """Group observations into configurations, in the order of their first runs."""
    groups: dict[object, list[Observation]] = {}
    for observation in observations:
        groups.setdefault(freeze(_without_seed(observation.config)), []).append(observation)
    return tuple(_make_setup(group) for group in groups.values())


def _screen(parameters: Sequence[Parameter], setups: Sequence[Setup]) -> tuple[list[Parameter], tuple[str, ...]]:
    """Return up to `MAX_PARAMETERS` parameters, in their order, and the names of the others.

    Those are kept whose levels alone explain the largest shares of the variance of the ranks of the results.
    """
    if len(parameters) <= MAX_PARAMETERS:
        return list(parameters), ()
    ranks = _rank_results(setups)
    order = sorted(range(len(parameters)), key=lambda i: -_adjusted_share(parameters[i], ranks))
    chosen = set(order[:MAX_PARAMETERS])
    names = tuple(parameter.name for i, parameter in enumerate(parameters) if i not in chosen)
    return [parameter for i, parameter in enumerate(parameters) if i in chosen], names


def _rank_results(setups: Sequence[Setup]) -> Floats:
    """Return the rank of each configuration's mean, shape (C,); ties share a rank, missing means the last."""
    means = Table(tuple(setups), ()).means
    return np.unique(means, return_inverse=True)[1].astype(np.float64)


def _adjusted_share(parameter: Parameter, ranks: Floats) -> float:
    """Return the share of the variance of ranks (C,) between levels, adjusted for their number (Theil 1961)."""
    codes = _bin_levels(parameter).codes if _has_many_levels(parameter) else parameter.codes
    n, levels = len(codes), int(codes.max()) + 1
    centred = ranks - ranks.mean()
    total = float(centred @ centred)
    if n <= levels or total == 0.0:
        return -math.inf
    between = float((np.bincount(codes, centred) ** 2 / np.bincount(codes)).sum())
    return 1.0 - (1.0 - between / total) * (n - 1.0) / (n - levels)


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed"}


def _make_setup(group: Sequence[Observation]) -> Setup:
    """Combine the runs of one configuration.

    Runs with the same seed count as one value, their mean; so do runs without seeds if all of them are copies.
    """
    by_seed: dict[object, list[float]] = {}
    scores: dict[object, list[float]] = {}
    copies = _count_copies(group)
    for number, run in enumerate(group):
        if run.value is not None and not run.has_diverged:
            unknown = "copies" if copies else f"run {number}"
            seed = run.seed if run.seed is not None else unknown
            by_seed.setdefault(seed, []).append(run.value)
            if run.score is not None:
                scores.setdefault(seed, []).append(run.score)
    seconds = [run.seconds for run in group if run.seconds is not None and math.isfinite(run.seconds)]
    return Setup(
        config=_without_seed(group[0].config),
        values=tuple(map(fmean, by_seed.values())),
        seeds=tuple(seed if isinstance(seed, int) else None for seed in by_seed),
        runs=len(group) - _count_repeats(group) - copies,
        diverged=sum(run.has_diverged for run in group),
        seconds=fmean(seconds) if seconds else None,
        copies=copies,
        scores=tuple(map(fmean, scores.values())),
    )


def _count_copies(group: Sequence[Observation]) -> int:
    """Return the number of runs that repeat the first one; 0 unless no run has a seed and all numbers are equal.

    Such runs were most likely trained with one fixed seed that was not recorded, so they show no spread.
    """
    measured = [run for run in group if run.value is not None and not run.has_diverged]
    numbers = {run.numbers for run in measured}
    are_copies = len(numbers) == 1 and None not in numbers and all(run.seed is None for run in measured)
    return len(measured) - 1 if are_copies else 0


def _count_repeats(group: Sequence[Observation]) -> int:
    seeds = [run.seed for run in group if run.seed is not None and run.value is not None and not run.has_diverged]
    return len(seeds) - len(set(seeds))


_NUMBERS = (int, float)


def freeze(value: object) -> object:
    """Return a hashable equivalent of a JSON value, in which 1 equals 1.0 but not True."""
    if isinstance(value, str):
        return ("str", str(value))
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, _NUMBERS):
        return ("number", "nan" if value != value else value)
    if isinstance(value, Mapping):
        return ("mapping", tuple(sorted((str(key), freeze(item)) for key, item in value.items() if item is not None)))
    if isinstance(value, list | tuple):
        return ("list", tuple(freeze(item) for item in value))
    return (type(value).__name__, value if value is None else str(value))


def weighted_sum(weights: Floats, values: Floats) -> Floats:
    """Return `weights @ values` for weights (N,) or (K, N) and values (N,).

    Results below the rounding error of the sum become 0.
    """
    total = weights @ values
    return np.asarray(np.where(np.abs(total) > ROUNDING_TOLERANCE * (np.abs(weights) @ np.abs(values)), total, 0.0))


def is_number(value: object) -> bool:
    """Return True for a finite int or float that is not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _level_order(value: object) -> tuple[int, float, str]:
    if is_number(value):
        return (1, float(value), "")  # type: ignore[arg-type]  # a number, as is_number says
    return (0 if value is None else 2, 0.0, json.dumps(value, default=str))


def _make_parameter(name: str, values: Sequence[Any]) -> Parameter:
    keys = [freeze(value) for value in values]
    distinct = sorted(dict(zip(keys, values, strict=True)).items(), key=lambda item: _level_order(item[1]))
    levels = [level for _, level in distinct]
    index = {key: code for code, (key, _) in enumerate(distinct)}
    codes = np.array([index[key] for key in keys], dtype=np.int64)
    return Parameter(name, tuple(levels), codes, all(is_number(level) for level in levels if level is not None))


def _has_many_levels(parameter: Parameter) -> bool:
    levels = len(parameter.levels)
    rarely_repeated = len(parameter.codes) < 3 * levels
    return parameter.numeric and levels > MAX_UNBINNED_LEVELS and (rarely_repeated or levels > 4 * BIN_COUNT)


def _bin_levels(parameter: Parameter) -> Parameter:
    """Bin a numeric parameter into `BIN_COUNT` quantile bins.

    Configs without the key form a separate bin.
    """
    present = parameter.present()
    values = np.array([math.nan if level is None else float(level) for level in parameter.levels])[parameter.codes]
    edges = np.unique(np.quantile(values[present], np.linspace(0, 1, BIN_COUNT + 1)[1:-1]))
    bins = np.where(present, np.searchsorted(edges, values, side="left") + 1, 0)
    used, codes = np.unique(bins, return_inverse=True)
    members = [values[codes == code] for code in range(len(used))]
    levels = tuple(float(np.median(group)) if number else None for number, group in zip(used, members, strict=True))
    spans = tuple((float(group.min()), float(group.max())) for group in members)
    return replace(parameter, levels=levels, codes=codes.astype(np.int64), spans=spans)


def _mark_followers(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Mark each parameter that is a function of the others.

    `_leader_priority` decides which one leads.
    """
    result = list(parameters)
    for follower in sorted(range(len(result)), key=lambda i: (_leader_priority(result[i]), -i)):
        others = [p for i, p in enumerate(result) if i != follower and p.follows is None]
        leader = _find_leader(result[follower], others)
        if leader is not None:
            result[follower] = replace(result[follower], follows=leader)
    return result


def _leader_priority(parameter: Parameter) -> tuple[bool, bool]:
    """Return a sort key, greater for better leaders: `optimizer` leads `momentum`, not the reverse."""
    return (None not in parameter.levels, not parameter.numeric)


def _find_leader(parameter: Parameter, others: Sequence[Parameter]) -> str | None:
    if None not in parameter.levels:  # a parameter that exists everywhere cannot follow a conditional one
        others = [other for other in others if None not in other.levels]
    for other in others:
        replicated = len(other.codes) >= 2 * len(other.levels)
        if replicated and _is_function_of(parameter.codes, other.codes):
            return other.name
        if parameter.numeric and other.numeric and _has_same_ranks(parameter, other):
            return other.name
    if len(others) > 1 and _is_full_factorial(others):  # the other parameters determine this one
        return max(others, key=lambda other: _share_explained(parameter.codes, other.codes)).name
    return None


def _is_function_of(codes: Ints, leader_codes: Ints) -> bool:
    pairs = np.unique(leader_codes * (int(codes.max()) + 1) + codes)
    return len(pairs) == len(np.unique(leader_codes))


def _has_same_ranks(first: Parameter, second: Parameter) -> bool:
    """Return True if the levels of two parameters rise together, or one rises as the other falls."""
    if len(first.levels) != len(second.levels) or len(first.codes) < 3:
        return False
    reverse = len(first.levels) - 1 - second.codes
    return bool((first.codes == second.codes).all() or (first.codes == reverse).all())


def _is_full_factorial(parameters: Sequence[Parameter]) -> bool:
    cells = math.prod(len(parameter.levels) for parameter in parameters)
    codes = np.stack([parameter.codes for parameter in parameters])
    return bool(cells == codes.shape[1] == np.unique(codes, axis=1).shape[1])


def _share_explained(codes: Ints, leader_codes: Ints) -> float:
    """Return the share of configurations whose code is the most common one for their leader's code."""
    most_common = sum(np.bincount(codes[leader_codes == value]).max() for value in np.unique(leader_codes))
    return float(most_common / len(codes))


def _drop_default_level(parameter: Parameter, parameters: Sequence[Parameter]) -> Parameter:
    """Drop the default of a parameter that is fixed under some values of another.

    An example is momentum, which is 0 without SGD. In a sample of random configurations, some of them have the same
    level by chance: a parameter counts as fixed under a value only if at least two configurations have this value, and
    if it varies on its own elsewhere or chance is improbable.
    """
    if None in parameter.levels or parameter.follows or not (parameter.numeric or _is_switch(parameter)):
        return parameter
    for other in parameters:
        if other is parameter or other.follows or other.numeric or _is_switch(other) or None in other.levels:
            continue
        values = [np.unique(parameter.codes[other.codes == code]) for code in range(len(other.levels))]
        fixed = [code for code, used in enumerate(values) if len(used) == 1]
        same_default = len({int(values[code][0]) for code in fixed}) == 1
        if same_default and len(fixed) < len(values) and np.bincount(other.codes)[fixed].min() > 1:
            outside = np.isin(other.codes, fixed)
            default, count = int(values[fixed[0]][0]), int(np.bincount(other.codes)[fixed].min())
            chance = float(np.mean(parameter.codes[~outside] == default)) ** count
            if chance > MAX_CHANCE_OF_DEFAULT and not _varies_alone(parameter, parameters, ~outside):
                continue
            varied = np.unique(parameter.codes[~outside])
            codes = np.where(outside, 0, np.searchsorted(varied, parameter.codes) + 1)
            levels = (None, *(parameter.levels[code] for code in varied))
            return replace(parameter, levels=levels, codes=codes.astype(np.int64))
    return parameter


def _varies_alone(parameter: Parameter, parameters: Sequence[Parameter], rows: NDArray[np.bool_]) -> bool:
    """Return True if two of the configurations in the mask `rows` (C,) differ in no other independent parameter."""
    others = [other.codes[rows] for other in parameters if other is not parameter and other.follows is None]
    cells = np.unique(np.stack([*others, parameter.codes[rows]]), axis=1)
    return len(np.unique(cells[:-1], axis=1).T) < len(cells.T)


def _is_switch(parameter: Parameter) -> bool:
    return all(isinstance(level, bool) for level in parameter.levels)


def _mark_parents(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Set the parent of each parameter that exists under some values of another parameter and under no other value."""
    result = []
    for parameter in parameters:
        present = parameter.present()
        candidates = [] if present.all() or parameter.follows else parameters
        parent = next(
            (
                other.name
                for other in candidates
                if other is not parameter
                and other.follows is None
                and not set(other.codes[present]) & set(other.codes[~present])
            ),
            None,
        )
        result.append(replace(parameter, parent=parent))
    return result
