"""Runs become set-ups (a config without its seed) over parameters with levels: the table that the analysis works on.

A parameter that only moves together with others (`[[zip]]`, `[[set]]`) cannot be told apart from them and is not
judged on its own; one that exists, or takes more than one value, under some values of another alone is a *child* of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.records import Goal, RunRecord, default_goal

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

MAX_UNBINNED_LEVELS = 6
"""Outside of a full grid, a number with more levels than this is judged in bins, if each is seen in few set-ups (or
there are more than 20)."""
BIN_COUNT = 5
ROUNDING_TOLERANCE = 1e-13
"""Of a sum, as a share of the sizes of its terms."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one run says: its config, and the value it reached."""

    config: Mapping[str, Any]
    """Flat; a key `seed` in it is not part of the set-up."""
    seed: int | None
    value: float | None
    """None where there is none, as for a run that diverged, failed or did not measure it."""
    seconds: float | None = None
    diverged: bool = False
    """A run whose value is not finite counts as diverged too."""

    @property
    def has_diverged(self) -> bool:
        """It diverged, or ended in a value that is not finite."""
        return self.diverged or (self.value is not None and not math.isfinite(self.value))


def observe(
    runs: Iterable[RunRecord],
    metric: str,
    goal: Goal | None = None,
    *,
    at: Literal["best", "last"] = "best",
) -> list[Observation]:
    """Observations of the runs that have ended; those still to come or under way are left out.

    A run that failed, was stopped or is lost stands for a missing value: what it had reached says little.
    """
    wanted = goal or default_goal(metric)
    return [_make_observation(run, metric, wanted, at) for run in runs if run.status not in ("queued", "running")]


def _make_observation(run: RunRecord, metric: str, goal: Goal, at: Literal["best", "last"]) -> Observation:
    summary = run.summary.get(metric)
    value = None
    if run.status == "finished" and summary is not None:
        # a script that went on after its metric was lost has blown up, however good it had been
        value = summary.best(goal)[0] if at == "best" and math.isfinite(summary.last) else summary.last
    compute = run.summary.get("time/compute_s")
    seed = run.config.get("seed")
    return Observation(
        config=run.config,
        seed=seed if isinstance(seed, int) else None,
        value=value,
        seconds=run.seconds if compute is None else compute.last,
        diverged=run.status == "diverged",
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """The runs of one config with different seeds."""

    config: Mapping[str, Any]
    """Without its seed."""
    values: tuple[float, ...]
    """Finite values, one a seed."""
    seeds: tuple[int | None, ...]
    """Of the values; None where the seed is not known."""
    runs: int
    """All runs, those without a value too."""
    diverged: int
    seconds: float | None
    """Mean over the runs that say it."""

    @property
    def missing(self) -> int:
        """Runs that did not diverge and have no value all the same."""
        return max(0, self.runs - self.diverged - len(self.values))


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that takes more than one value, and the level of each set-up."""

    name: str
    levels: tuple[Any, ...]
    """Values in ascending order, numbers before words; the median of a bin; None where a config lacks the key."""
    codes: Ints
    """(set-ups,): index into `levels`."""
    numeric: bool
    """All values are numbers, so that their order means something."""
    spans: tuple[tuple[float, float], ...] | None = None
    """Smallest and largest value of each bin, where the parameter is judged in bins."""
    follows: str | None = None
    """The parameter that this one only moves together with."""
    parent: str | None = None
    """The parameter under some of whose values alone this one exists."""

    def present(self) -> NDArray[np.bool_]:
        """(set-ups,): where the config has the key."""
        return np.array([level is not None for level in self.levels])[self.codes]


@dataclass(frozen=True)
class Table:
    """Set-ups by parameters. Values are kept flat, one a run: `value[i]` belongs to set-up `owner[i]`."""

    setups: tuple[Setup, ...]
    parameters: tuple[Parameter, ...]

    @cached_property
    def counts(self) -> Ints:
        """(set-ups,): values of each."""
        return np.array([len(setup.values) for setup in self.setups], dtype=np.int64)

    @cached_property
    def means(self) -> Floats:
        """(set-ups,): NaN where a set-up has no value."""
        return np.array([average(setup.values) if setup.values else math.nan for setup in self.setups])

    @cached_property
    def value(self) -> Floats:
        return np.array([value for setup in self.setups for value in setup.values], dtype=np.float64)

    @cached_property
    def owner(self) -> Ints:
        return np.repeat(np.arange(len(self.setups)), self.counts)

    @cached_property
    def seed(self) -> Ints:
        """Index of the seed of each value; a value without a seed has one of its own."""
        known: dict[object, int] = {}
        keys = [key for setup in self.setups for key in setup.seeds]
        return np.array([known.setdefault(i if k is None else ("seed", k), len(known)) for i, k in enumerate(keys)])

    @property
    def independent(self) -> tuple[Parameter, ...]:
        """The parameters that can be told apart."""
        return tuple(parameter for parameter in self.parameters if parameter.follows is None)

    def parameter(self, name: str) -> Parameter | None:
        """None where no parameter of that name takes more than one value."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def with_values(self) -> Table:
        """The set-ups that have a value; parameters keep their levels."""
        kept = np.flatnonzero(self.counts > 0)
        parameters = tuple(replace(parameter, codes=parameter.codes[kept]) for parameter in self.parameters)
        return Table(tuple(self.setups[i] for i in kept), parameters)


def tabulate(observations: Iterable[Observation]) -> Table:
    """Group runs into set-ups and find the parameters, in the order of the configs' keys."""
    groups: dict[object, list[Observation]] = {}
    for observation in observations:
        groups.setdefault(freeze(_without_seed(observation.config)), []).append(observation)
    setups = tuple(_make_setup(group) for group in groups.values())
    names = dict.fromkeys(name for setup in setups for name in setup.config)
    found = [_make_parameter(name, [setup.config.get(name) for setup in setups]) for name in names]
    varying = _mark_followers([parameter for parameter in found if len(parameter.levels) > 1])
    varying = _mark_parents([_drop_default_level(parameter, varying) for parameter in varying])
    cells = math.prod(len(p.levels) for p in varying if p.follows is None and p.parent is None)
    if cells > 1.5 * len(setups):  # not a grid: a number rarely has the same value twice
        varying = [_bin_levels(parameter) if _has_many_levels(parameter) else parameter for parameter in varying]
    return Table(setups, tuple(varying))


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed"}


def _make_setup(group: Sequence[Observation]) -> Setup:
    """A run repeated with the same seed says nothing new about the spread: its values count as one, their mean."""
    by_seed: dict[object, list[float]] = {}
    for number, run in enumerate(group):
        if run.value is not None and not run.has_diverged:
            by_seed.setdefault(run.seed if run.seed is not None else f"run {number}", []).append(run.value)
    seconds = [run.seconds for run in group if run.seconds is not None and math.isfinite(run.seconds)]
    return Setup(
        config=_without_seed(group[0].config),
        values=tuple(float(np.mean(values)) for values in by_seed.values()),
        seeds=tuple(seed if isinstance(seed, int) else None for seed in by_seed),
        runs=len(group) - _count_repeats(group),
        diverged=sum(run.has_diverged for run in group),
        seconds=float(np.mean(seconds)) if seconds else None,
    )


def _count_repeats(group: Sequence[Observation]) -> int:
    seeds = [run.seed for run in group if run.seed is not None and run.value is not None and not run.has_diverged]
    return len(seeds) - len(set(seeds))


def freeze(value: object) -> object:
    """A hashable stand-in in which 1 and 1.0 are one value, and neither is True."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int | float):
        return ("number", "nan" if value != value else value)
    if isinstance(value, Mapping):
        return ("mapping", tuple(sorted((str(key), freeze(item)) for key, item in value.items() if item is not None)))
    if isinstance(value, list | tuple):
        return ("list", tuple(freeze(item) for item in value))
    return (type(value).__name__, value if value is None else str(value))


def average(values: Sequence[float]) -> float:
    """The mean of some values; 0 where they cancel but for rounding."""
    mean = float(np.mean(values))
    return mean if abs(mean) > ROUNDING_TOLERANCE * float(np.mean(np.abs(values))) else 0.0


def weighted_sum(weights: Floats, values: Floats) -> Floats:
    """`weights @ values`; 0 where they cancel but for rounding, which would be shown as a value of its own."""
    total = weights @ values
    return np.asarray(np.where(np.abs(total) > ROUNDING_TOLERANCE * (np.abs(weights) @ np.abs(values)), total, 0.0))


def is_number(value: object) -> bool:
    """A finite int or float; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _level_order(value: object) -> tuple[int, float, str]:
    if is_number(value):
        return (1, float(value), "")  # type: ignore[arg-type]  # a number, as is_number says
    return (0 if value is None else 2, 0.0, json.dumps(value, default=str))


def _make_parameter(name: str, values: Sequence[Any]) -> Parameter:
    distinct = {freeze(value): value for value in values}
    levels = sorted(distinct.values(), key=_level_order)
    index = {freeze(level): code for code, level in enumerate(levels)}
    codes = np.array([index[freeze(value)] for value in values], dtype=np.int64)
    return Parameter(name, tuple(levels), codes, all(is_number(level) for level in levels if level is not None))


def _has_many_levels(parameter: Parameter) -> bool:
    levels = len(parameter.levels)
    rarely_repeated = len(parameter.codes) < 3 * levels
    return parameter.numeric and levels > MAX_UNBINNED_LEVELS and (rarely_repeated or levels > 4 * BIN_COUNT)


def _bin_levels(parameter: Parameter) -> Parameter:
    """Bins with about the same number of set-ups each, as random searches need; a missing key is a bin of its own."""
    present = parameter.present()
    values = np.array([math.nan if level is None else float(level) for level in parameter.levels])[parameter.codes]
    edges = np.unique(np.quantile(values[present], np.linspace(0, 1, BIN_COUNT + 1)[1:-1]))
    bins = np.where(present, np.searchsorted(edges, values, side="left") + 1, 0)
    kept, codes = np.unique(bins, return_inverse=True)
    members = [values[codes == code] for code in range(len(kept))]
    levels = tuple(float(np.median(group)) if number else None for number, group in zip(kept, members, strict=True))
    spans = tuple((float(group.min()), float(group.max())) for group in members)
    return replace(parameter, levels=levels, codes=codes.astype(np.int64), spans=spans)


def _mark_followers(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Mark each parameter that is a function of the others, keeping the one that reads best as the leader."""
    result = list(parameters)
    for follower in sorted(range(len(result)), key=lambda i: (_leader_priority(result[i]), -i)):
        others = [p for i, p in enumerate(result) if i != follower and p.follows is None]
        leader = _find_leader(result[follower], others)
        if leader is not None:
            result[follower] = replace(result[follower], follows=leader)
    return result


def _leader_priority(parameter: Parameter) -> tuple[bool, bool]:
    """Present everywhere and named by words: `optimizer` should lead `momentum`, not the other way round."""
    return (None not in parameter.levels, not parameter.numeric)


def _find_leader(parameter: Parameter, others: Sequence[Parameter]) -> str | None:
    if None not in parameter.levels:  # what is there everywhere does not follow what is there in part
        others = [other for other in others if None not in other.levels]
    for other in others:
        replicated = len(other.codes) >= 2 * len(other.levels)
        if replicated and _is_function_of(parameter.codes, other.codes):
            return other.name
        if parameter.numeric and other.numeric and _has_same_ranks(parameter, other):
            return other.name
    if len(others) > 1 and _is_full_factorial(others):  # the parameter adds no set-up: the others decide it
        return max(others, key=lambda other: _share_explained(parameter.codes, other.codes)).name
    return None


def _is_function_of(codes: Ints, given: Ints) -> bool:
    pairs = np.unique(np.stack([given, codes]), axis=1)
    return bool(pairs.shape[1] == len(np.unique(given)))


def _has_same_ranks(one: Parameter, other: Parameter) -> bool:
    if len(one.levels) != len(other.levels) or len(one.codes) < 3:
        return False
    return bool((one.codes == other.codes).all() or (one.codes == len(one.levels) - 1 - other.codes).all())


def _is_full_factorial(parameters: Sequence[Parameter]) -> bool:
    cells = math.prod(len(parameter.levels) for parameter in parameters)
    codes = np.stack([parameter.codes for parameter in parameters])
    return bool(cells == codes.shape[1] == np.unique(codes, axis=1).shape[1])


def _share_explained(codes: Ints, given: Ints) -> float:
    """Share of the set-ups whose code is the commonest under their value of `given`."""
    return float(sum(np.bincount(codes[given == value]).max() for value in np.unique(given)) / len(codes))


def _drop_default_level(parameter: Parameter, parameters: Sequence[Parameter]) -> Parameter:
    """The parameter without the value at which it is held outside some words of another, as momentum is outside of SGD.

    One set-up of a word may have its value by chance; two that differ in something else show that it was held there.
    """
    if None in parameter.levels or parameter.follows or not (parameter.numeric or _is_switch(parameter)):
        return parameter
    for other in parameters:
        if other is parameter or other.follows or other.numeric or _is_switch(other) or None in other.levels:
            continue
        values = [np.unique(parameter.codes[other.codes == code]) for code in range(len(other.levels))]
        held = [code for code, found in enumerate(values) if len(found) == 1]
        alike = len({int(values[code][0]) for code in held}) == 1
        if alike and len(held) < len(values) and np.bincount(other.codes)[held].min() > 1:
            outside = np.isin(other.codes, held)
            kept = np.unique(parameter.codes[~outside])
            codes = np.where(outside, 0, np.searchsorted(kept, parameter.codes) + 1)
            levels = (None, *(parameter.levels[code] for code in kept))
            return replace(parameter, levels=levels, codes=codes.astype(np.int64))
    return parameter


def _is_switch(parameter: Parameter) -> bool:
    return all(isinstance(level, bool) for level in parameter.levels)


def _mark_parents(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Mark each parameter that exists under some values of another alone, and nowhere under the rest."""
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
