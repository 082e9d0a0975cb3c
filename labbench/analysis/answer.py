"""Dataclasses of the answer to "which configuration is best, and why?", and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from labbench.analysis.comparison import Difference
from labbench.analysis.costs import Basin
from labbench.analysis.effects import Contrast, Effect, MarginalEffects, TwoWayTable
from labbench.analysis.intervals import Interval, Scale
from labbench.analysis.noise.variance import Moderation
from labbench.analysis.selection import Scope, Tuning
from labbench.analysis.tuning.budgets import BudgetComparison
from labbench.analysis.tuning.tuned_values import TunedComparison
from labbench.json_documents import to_json_value
from labbench.metrics import Goal

Verdict: TypeAlias = Literal[
    "clear", "too close to call", "too few seeds to say", "only one set-up has results", "no results"
]
"""Verdict on the best configuration against the runner-up.

"too few seeds to say": no configuration was run with a second seed, so the noise is unknown. The strings are part of
the JSON format.
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Results of one configuration."""

    config: Mapping[str, Any]
    """Configuration without its seed."""
    differing: Mapping[str, Any]
    """Settings that vary in the grid independently of each other."""
    interval: Interval
    """Mean and 95 % interval; for the best configuration, adjusted for the selection."""
    n: int
    """Number of seeds with a result."""
    median: float
    iqm: float | None
    """Interquartile mean; None for fewer than 8 values."""
    spread: float | None
    """Sample standard deviation of the runs; of a log-normal variable if logarithms were analysed; None for one run."""
    diverged: int
    """Number of diverged runs."""
    runs: int
    """Number of runs, with and without a result."""
    seconds: float | None
    """Mean training time of a run, in seconds."""
    spread_factor: float | None = None
    """Geometric sample standard deviation of the runs, if logarithms were analysed."""
    noise: Moderation | None = None
    """Variance behind the interval, of logarithms if these were analysed; None if no configuration has two seeds."""
    score: float | None = None
    """Mean of the tuning metric; None if configurations are chosen by the metric of the answer."""
    selected_among: int = 1
    """Number of configurations for whose selection the interval of the best one is adjusted."""


@dataclass(frozen=True, slots=True)
class CloseAlternative:
    """A second value of a parameter that is nearly as good once the other parameters are tuned for it."""

    value: Any
    differing: Mapping[str, Any]
    """Other settings in which the best configuration with this value differs from the best of all."""
    gap: float
    """Difference between the two means, in the metric's unit, at least 0."""
    ratio: float | None = None
    """Ratio of the two means, at least 1, if logarithms were analysed."""


@dataclass(frozen=True, slots=True)
class ParameterAnswer:
    """Importance and effects of one parameter."""

    name: str
    numeric: bool
    importance: Interval | None
    """Share of the variance, 0 to 1; None if it was not computed."""
    marginal: MarginalEffects
    evidence: Literal["clear", "weak", "none"]
    """Evidence that the values differ: `clear` is adjusted for the number of parameters (Holm 1979), `weak` is not."""
    followers: tuple[str, ...]
    """Parameters that vary only together with this one, so that the effects cannot be separated."""
    close_alternative: CloseAlternative | None
    parent: str | None = None
    """Parameter on which this one is conditional: it was varied under some of the parent's values only."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """Two parameters: the best value of the second depends on the first."""

    names: tuple[str, str]
    importance: Interval
    """Share of the variance, 0 to 1."""
    best: tuple[tuple[Any, Any], ...]
    """Pairs (value of the first parameter, best value of the second on average)."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Means of the metric by two parameters, averaged over the others."""

    names: tuple[str, str]
    """Parameter of the rows, parameter of the columns."""
    table: TwoWayTable
    best: tuple[int, int] | None = None
    """Row and column of the best cell by the tuning metric; None: the best mean, or no cell has a result."""


@dataclass(frozen=True, slots=True)
class RateRange:
    """Usable learning rates under one value of a parameter, with the other parameters tuned for each rate."""

    name: str
    """Name of the parameter."""
    value: Any
    rate: str
    """Name of the learning rate."""
    basin: Basin | None
    """None if no learning rate comes within 5 % of the best result of all."""


@dataclass(frozen=True, slots=True)
class Widening:
    """A parameter that widens the range of usable learning rates, with the other parameters tuned for each rate."""

    name: str
    rate: str
    """Name of the learning rate."""
    wide_value: Any
    wide: Basin
    narrow_value: Any
    narrow: Basin


@dataclass(frozen=True, slots=True)
class Divergence:
    """Number of diverged runs under one value of a parameter."""

    name: str
    value: Any
    diverged: int
    runs: int
    """Number of all runs with this value."""
    span: tuple[float, float] | None = None
    """Smallest and largest value of the bin; None if values are not binned."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of runs, configurations and seeds behind an answer."""

    runs: int
    with_result: int
    diverged: int
    missing: int
    """Number of runs without a result that did not diverge: failed, stopped, or the metric was not measured."""
    setups: int
    """Number of configurations."""
    fewest_seeds: int
    """Smallest number of seeds over the configurations with a result."""
    most_seeds: int
    """Largest number of seeds over the configurations with a result."""
    has_seeds: bool = True
    """True if the seed of every value is known; False: the values belong to runs without seeds."""
    copies: int = 0
    """Number of runs that repeat another one in every number and do not count."""


@dataclass(frozen=True, slots=True)
class VarianceShares:
    """Shares of the variance of a single run that no single parameter explains, 0 to 1."""

    method: str
    """`Importance.method`."""
    seeds: float | None
    """Share due to seeds; None if no configuration was run with a second seed."""
    interactions: float
    """Share of pairwise interactions; 0 if the method does not estimate them."""
    rest: float
    """Share that stays unexplained."""
    setups: int
    """Number of configurations in the analysis."""
    left_out: tuple[tuple[str, Any], ...]
    """Excluded (parameter, value) pairs, which were not run with every value of the other parameters."""
    paired: int | None = None
    """Number of parameters whose interactions were estimated; None for all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """All results of `labbench why` as numbers; `reports.sentences` formats them as text."""

    metric: str
    goal: Goal
    verdict: Verdict
    counts: Counts
    best: Estimate | None = None
    runner_up: Estimate | None = None
    difference: Difference | None = None
    rivals: int = 0
    """Number of other configurations that are not clearly behind the best."""
    held_out: Interval | None = None
    """Mean on left-out seeds of the settings chosen on the other seeds; without limits under three common seeds."""
    cheaper: Estimate | None = None
    """Fastest configuration that takes at most 80 % of the best one's time and is hardly worse (`why`)."""
    cheaper_difference: Difference | None = None
    """Best configuration minus the cheaper one."""
    unsafe: Estimate | None = None
    """Configuration with a better mean than `best`, not selected because some of its runs diverged."""
    tuned: tuple[TunedComparison, ...] = ()
    """Values of each parameter with names or few numbers as values, each at its own best setting; names first."""
    budgets: tuple[BudgetComparison, ...] = ()
    """Best of n configurations by n; empty unless they were drawn at random."""
    parameters: tuple[ParameterAnswer, ...] = ()
    """Parameters by importance, most important first."""
    interactions: tuple[Interaction, ...] = ()
    ranking: tuple[Estimate, ...] = ()
    """The top configurations, best first; configurations with diverged runs come last."""
    heat_maps: tuple[HeatMap, ...] = ()
    rate_ranges: tuple[RateRange, ...] = ()
    widenings: tuple[Widening, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    """Diverged runs by the values of the parameter that predicts divergence best."""
    shares: VarianceShares | None = None
    lost: str = "diverged"
    """Verb phrase for runs that count as diverged, used in sentences."""
    scope: Scope | None = None
    """Runs and keys that the answer is about; None if the runs were not selected by `select_runs`."""
    not_analysed: tuple[str, ...] = ()
    """Varying parameters that were left out because too many vary (`table.MAX_PARAMETERS`)."""
    scale: Scale = "linear"
    """Scale of the analysis; on `log`, means are geometric means, and shares are parts of the logarithms' variance."""
    span: tuple[float, float] | None = None
    """Smallest and largest value of a run; None without values."""

    def as_document(self) -> dict[str, Any]:
        """Return the answer as one JSON document; non-finite numbers become strings."""
        document = {
            "metric": self.metric,
            "goal": self.goal,
            "scale": self.scale,
            "verdict": self.verdict,
            "runs": {
                "total": self.counts.runs,
                "with_result": self.counts.with_result,
                "diverged": self.counts.diverged,
                "missing": self.counts.missing,
                "setups": self.counts.setups,
            },
            "best": None if self.best is None else _estimate_document(self.best) | _held_out_document(self.held_out),
            "runner_up": self._runner_up_document(),
            "rivals": self.rivals,
            "tuned": [comparison.as_document() for comparison in self.tuned],
            "budgets": [comparison.as_document() for comparison in self.budgets],
            "parameters": [_parameter_document(parameter) for parameter in self.parameters],
            "interactions": [_interaction_document(interaction) for interaction in self.interactions],
            "ranking": [_estimate_document(estimate) for estimate in self.ranking],
            "heat_maps": [_heat_map_document(heat_map) for heat_map in self.heat_maps],
            "rate_ranges": [_rate_range_document(rate_range) for rate_range in self.rate_ranges],
            "widenings": [_widening_document(widening) for widening in self.widenings],
            "divergences": [_divergence_document(divergence) for divergence in self.divergences],
            "shares": None if self.shares is None else _shares_document(self.shares),
            "not_analysed": list(self.not_analysed),
            "scope": None if self.scope is None else _scope_document(self.scope),
        }
        return {key: to_json_value(value) for key, value in document.items()}

    def _runner_up_document(self) -> dict[str, Any] | None:
        if self.runner_up is None or self.difference is None:
            return None
        return _estimate_document(self.runner_up) | {
            "difference": _interval_document(self.difference.interval),
            "ratio": None if self.difference.ratio is None else _interval_document(self.difference.ratio),
            "pairs": self.difference.pairs,
            "difference_noise": None if self.difference.noise is None else asdict(self.difference.noise),
            "difference_prior": None if self.difference.moderation is None else asdict(self.difference.moderation),
            "probability_of_improvement": self.difference.probability,
            "seeds_needed": self.difference.seeds_needed,
        }


def _held_out_document(held_out: Interval | None) -> dict[str, float | None]:
    mean, low, high = (None, None, None) if held_out is None else (held_out.mean, held_out.low, held_out.high)
    return {"held_out": mean, "held_out_low": low, "held_out_high": high}


def _interval_document(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _estimate_document(estimate: Estimate) -> dict[str, Any]:
    return {
        "config": dict(estimate.config),
        **_interval_document(estimate.interval),
        "n": estimate.n,
        "median": estimate.median,
        "iqm": estimate.iqm,
        "spread": estimate.spread,
        "spread_factor": estimate.spread_factor,
        "diverged": estimate.diverged,
        "runs": estimate.runs,
        "seconds": estimate.seconds,
        "noise": None if estimate.noise is None else asdict(estimate.noise),
        "score": estimate.score,
        "selected_among": estimate.selected_among,
    }


def _parameter_document(parameter: ParameterAnswer) -> dict[str, Any]:
    importance = parameter.importance or Interval(float("nan"))
    return {
        "name": parameter.name,
        "importance": None if parameter.importance is None else importance.mean,
        "low": importance.low,
        "high": importance.high,
        "evidence": parameter.evidence,
        "p_value": parameter.marginal.p_value,
        "basis": parameter.marginal.basis,
        "seed_ratio": parameter.marginal.seed_ratio,
        "seed_df": parameter.marginal.seed_df,
        "moves_with": list(parameter.followers),
        "difference": None if parameter.marginal.contrast is None else _contrast_document(parameter.marginal.contrast),
        "effects": [_effect_document(effect) for effect in parameter.marginal.effects],
    }


def _contrast_document(contrast: Contrast) -> dict[str, Any]:
    ratio = None if contrast.ratio is None else _interval_document(contrast.ratio)
    return {
        "value": contrast.value,
        "against": contrast.against,
        **_interval_document(contrast.interval),
        "ratio": ratio,
    }


def _effect_document(effect: Effect) -> dict[str, Any]:
    """Return the JSON of an effect; a mean without runs is null, not "nan"."""
    measured = _interval_document(effect.interval) if effect.n else {"mean": None, "low": None, "high": None}
    span = {} if effect.span is None else {"from": effect.span[0], "to": effect.span[1]}
    return {"value": effect.value, **span, **measured, "n": effect.n, "diverged": effect.diverged}


def _interaction_document(interaction: Interaction) -> dict[str, Any]:
    return {
        "names": list(interaction.names),
        "importance": interaction.importance.mean,
        "low": interaction.importance.low,
        "high": interaction.importance.high,
        "best": [{"value": value, "best": best} for value, best in interaction.best],
    }


def _heat_map_document(heat_map: HeatMap) -> dict[str, Any]:
    table = heat_map.table
    cells = [
        {"row": row, "column": column, **_interval_document(cell.interval), "n": cell.n, "diverged": cell.diverged}
        for row, line in zip(table.rows, table.cells, strict=True)
        for column, cell in zip(table.columns, line, strict=True)
        if cell.runs
    ]
    measured = [cell if cell["n"] else cell | {"mean": None} for cell in cells]
    return {"rows": heat_map.names[0], "columns": heat_map.names[1], "cells": measured}


def _rate_range_document(rate_range: RateRange) -> dict[str, Any]:
    basin = None if rate_range.basin is None else _basin_document(rate_range.basin)
    return {"name": rate_range.name, "value": rate_range.value, "rate": rate_range.rate, "range": basin}


def _widening_document(widening: Widening) -> dict[str, Any]:
    return {
        "name": widening.name,
        "rate": widening.rate,
        "wide": {"value": widening.wide_value, **_basin_document(widening.wide)},
        "narrow": {"value": widening.narrow_value, **_basin_document(widening.narrow)},
    }


def _basin_document(basin: Basin) -> dict[str, Any]:
    return {"from": basin.low, "to": basin.high, "best": basin.best, "decades": basin.decades}


def _divergence_document(divergence: Divergence) -> dict[str, Any]:
    return {
        "name": divergence.name,
        "value": divergence.value,
        "span": divergence.span,
        "diverged": divergence.diverged,
        "runs": divergence.runs,
    }


def _scope_document(scope: Scope) -> dict[str, Any]:
    return {
        "values": "best step" if scope.tuning is not None and scope.tuning.network == "best step" else scope.at,
        "tune_on": None if scope.tuning is None else _tuning_document(scope.tuning),
        "early_bests": scope.bests.early,
        "mean_optimism": scope.bests.optimism,
        "experiments": list(scope.experiments),
        "other_experiments": list(scope.other_experiments),
        "left_out": {
            "older_code": scope.older_code,
            "other_code": scope.other_code,
            "other_tasks": scope.other_tasks,
            "other_ranks": scope.other_ranks,
            "continued": scope.continued,
            "pruned": scope.pruned,
            "choosing": scope.choosing,
        },
        "commits": scope.commits,
        "seed_keys": list(scope.seed_keys),
        "run_keys": list(scope.run_keys),
        "ignored": list(scope.ignored),
        "not_set": dict(scope.not_set),
    }


def _tuning_document(tuning: Tuning) -> dict[str, str]:
    return {"metric": tuning.metric, "values": tuning.at, "network": tuning.network}


def _shares_document(shares: VarianceShares) -> dict[str, Any]:
    return {
        "method": shares.method,
        "seeds": shares.seeds,
        "interactions": shares.interactions,
        "rest": shares.rest,
        "setups": shares.setups,
        "paired": shares.paired,
        "left_out": [{"name": name, "value": value} for name, value in shares.left_out],
    }
