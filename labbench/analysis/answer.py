"""The answer that a grid gives to "which set-up is best, and why?": dataclasses, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from labbench.analysis.comparison import Difference
from labbench.analysis.costs import Basin
from labbench.analysis.effects import Contrast, Effect, MarginalEffects, TwoWayTable
from labbench.analysis.intervals import Interval
from labbench.json_documents import to_json_value
from labbench.records import Goal

Verdict: TypeAlias = Literal[
    "clear", "too close to call", "too few seeds to say", "only one set-up has results", "no results"
]
"""Of the best set-up against the runner-up. Too few seeds: no set-up was run twice, so nothing tells of the noise."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One set-up in numbers."""

    config: Mapping[str, Any]
    """Without its seed."""
    differing: Mapping[str, Any]
    """The part of it that varies in the grid and is not tied to another part."""
    interval: Interval
    """Of the mean. That of the best set-up allows for its having been chosen."""
    n: int
    """Seeds with a result."""
    median: float
    iqm: float | None
    """Interquartile mean, from 8 values up."""
    spread: float | None
    """Standard deviation of single runs, steadied by that of the other set-ups; None for a single run."""
    diverged: int
    runs: int
    seconds: float | None
    """Mean training time of a run."""


@dataclass(frozen=True, slots=True)
class CloseAlternative:
    """How near the other value of a parameter comes when the rest suits it."""

    value: Any
    differing: Mapping[str, Any]
    """What its best set-up has different from the best of all, apart from the parameter itself."""
    gap: float
    """How far its best set-up's mean is behind the best one's, in the metric's unit, at least 0."""


@dataclass(frozen=True, slots=True)
class ParameterAnswer:
    """What one parameter does."""

    name: str
    numeric: bool
    importance: Interval | None
    """Share of the variance; None where it was not computed."""
    marginal: MarginalEffects
    evidence: Literal["clear", "weak", "none"]
    """That its values differ at all: `clear` allows for the number of parameters looked at (Holm), `weak` does not."""
    followers: tuple[str, ...]
    """Parameters that only move together with this one, so that the effect may be theirs."""
    close_alternative: CloseAlternative | None
    parent: str | None = None
    """The parameter under some of whose values alone this one was varied."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """Two parameters of which the best value of the second depends on the first."""

    names: tuple[str, str]
    importance: Interval
    best: tuple[tuple[Any, Any], ...]
    """(value of the first, best value of the second on average)."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The metric by two parameters at once, averaged over the others."""

    names: tuple[str, str]
    """Of the rows and of the columns."""
    table: TwoWayTable


@dataclass(frozen=True, slots=True)
class RateRange:
    """The learning rates that work under one value of a parameter, everything else chosen as suits it."""

    name: str
    value: Any
    rate: str
    """Name of the learning rate."""
    basin: Basin | None
    """None where no rate comes within 5 % of the best of all."""


@dataclass(frozen=True, slots=True)
class Widening:
    """A parameter that widens the range of usable learning rates, everything else being as in the best set-up."""

    name: str
    rate: str
    """Name of the learning rate."""
    wide_value: Any
    wide: Basin
    narrow_value: Any
    narrow: Basin


@dataclass(frozen=True, slots=True)
class Divergence:
    """Runs that diverged under one value of a parameter."""

    name: str
    value: Any
    diverged: int
    runs: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What the answer rests on."""

    runs: int
    with_result: int
    diverged: int
    missing: int
    """Runs without a result that did not diverge: failed, stopped, or the metric was not measured."""
    setups: int
    fewest_seeds: int
    """Over the set-ups with a result; so is the next."""
    most_seeds: int


@dataclass(frozen=True, slots=True)
class VarianceShares:
    """Where the variance of a single run comes from, beside the parameters."""

    method: str
    seeds: float | None
    interactions: float
    """Of pairs; 0 where the method cannot tell."""
    rest: float
    setups: int
    left_out: tuple[tuple[str, Any], ...]
    wants_forest: bool = False
    """scikit-learn is lacking, with which interactions could be told."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything `labbench why` says, as numbers; `reports.sentences` puts it into words."""

    metric: str
    goal: Goal
    verdict: Verdict
    counts: Counts
    best: Estimate | None = None
    runner_up: Estimate | None = None
    difference: Difference | None = None
    rivals: int = 0
    """Other set-ups that are not clearly behind the best one."""
    held_out: float | None = None
    """What the winner scores on a seed that had no say in choosing it."""
    cheaper: Estimate | None = None
    """A rival that takes at most 80 % of the best one's time: the cheapest."""
    unsafe: Estimate | None = None
    """A set-up with a better mean than the best one's that was passed over because some of its runs diverged."""
    parameters: tuple[ParameterAnswer, ...] = ()
    """Most important first."""
    interactions: tuple[Interaction, ...] = ()
    ranking: tuple[Estimate, ...] = ()
    """The best set-ups, the best of all first; those of which a run diverged come after the others."""
    heat_maps: tuple[HeatMap, ...] = ()
    rate_ranges: tuple[RateRange, ...] = ()
    widenings: tuple[Widening, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    """By the values of the parameter that tells most about which runs diverge."""
    shares: VarianceShares | None = None
    lost: str = "diverged"
    """What happened to the runs that count as diverged, for sentences."""

    def as_document(self) -> dict[str, Any]:
        """One JSON document; numbers that are not finite are strings."""
        document = {
            "metric": self.metric,
            "goal": self.goal,
            "verdict": self.verdict,
            "runs": {
                "total": self.counts.runs,
                "with_result": self.counts.with_result,
                "diverged": self.counts.diverged,
                "missing": self.counts.missing,
                "setups": self.counts.setups,
            },
            "best": None if self.best is None else _estimate_document(self.best) | {"held_out": self.held_out},
            "runner_up": self._runner_up_document(),
            "rivals": self.rivals,
            "parameters": [_parameter_document(parameter) for parameter in self.parameters],
            "interactions": [_interaction_document(interaction) for interaction in self.interactions],
            "ranking": [_estimate_document(estimate) for estimate in self.ranking],
            "heat_maps": [_heat_map_document(heat_map) for heat_map in self.heat_maps],
            "rate_ranges": [_rate_range_document(found) for found in self.rate_ranges],
            "widenings": [_widening_document(widening) for widening in self.widenings],
            "divergences": [_divergence_document(divergence) for divergence in self.divergences],
            "shares": None if self.shares is None else _shares_document(self.shares),
        }
        return {key: to_json_value(value) for key, value in document.items()}

    def _runner_up_document(self) -> dict[str, Any] | None:
        if self.runner_up is None or self.difference is None:
            return None
        return _estimate_document(self.runner_up) | {
            "difference": _interval_document(self.difference.interval),
            "pairs": self.difference.pairs,
            "probability_of_improvement": self.difference.probability,
            "seeds_needed": self.difference.seeds_needed,
        }


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
        "diverged": estimate.diverged,
        "runs": estimate.runs,
        "seconds": estimate.seconds,
    }


def _parameter_document(parameter: ParameterAnswer) -> dict[str, Any]:
    importance = parameter.importance or Interval(float("nan"))
    known = parameter.importance is not None
    return {
        "name": parameter.name,
        "importance": importance.mean if known else None,
        "low": importance.low,
        "high": importance.high,
        "evidence": parameter.evidence,
        "p_value": parameter.marginal.p_value,
        "basis": parameter.marginal.basis,
        "moves_with": list(parameter.followers),
        "difference": None if parameter.marginal.contrast is None else _contrast_document(parameter.marginal.contrast),
        "effects": [_effect_document(effect) for effect in parameter.marginal.effects],
    }


def _contrast_document(contrast: Contrast) -> dict[str, Any]:
    return {"value": contrast.value, "against": contrast.against, **_interval_document(contrast.interval)}


def _effect_document(effect: Effect) -> dict[str, Any]:
    """A mean that does not exist is null, not "nan": nothing was measured there."""
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


def _rate_range_document(found: RateRange) -> dict[str, Any]:
    known = None if found.basin is None else _basin_document(found.basin)
    return {"name": found.name, "value": found.value, "rate": found.rate, "range": known}


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
        "diverged": divergence.diverged,
        "runs": divergence.runs,
    }


def _shares_document(shares: VarianceShares) -> dict[str, Any]:
    return {
        "method": shares.method,
        "seeds": shares.seeds,
        "interactions": shares.interactions,
        "rest": shares.rest,
        "setups": shares.setups,
        "left_out": [{"name": name, "value": value} for name, value in shares.left_out],
    }
