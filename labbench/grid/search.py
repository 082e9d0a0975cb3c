"""`[search]`: a search for the best configuration of a grid, which trains most configurations for some epochs only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from labbench.grid.checks import BadValueError, convert_value, quote_value
from labbench.grid.durations import parse_duration
from labbench.grid.run_options import read_goal
from labbench.grid.source import GridSource, ValueParser
from labbench.metrics import Goal
from labbench.params.param import TRAINING, Param
from labbench.records import Stop

Method: TypeAlias = Literal["halving", "hyperband", "random", "tpe"]

METHODS: tuple[Method, ...] = ("halving", "hyperband", "random", "tpe")


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of a search."""

    method: Method
    metric: str
    """Metric that is measured at the end of each epoch."""
    goal: Goal
    budget: int | None = None
    """Epochs of all runs together, with the new seeds; None: no limit."""
    time_limit: float | None = None
    """Seconds after which no rung begins."""
    eta: float = 3.0
    """Reduction factor: of n configurations at a rung, n / eta train on, for eta times as many epochs."""
    min_epochs: int | None = None
    """Epochs up to the first rung, at least; None: a tenth of a run's epochs."""
    seeds: int | tuple[int, ...] = 0
    """New seeds of the finalists, or their number."""
    finalists: int = 3
    """Number of configurations that are trained with the new seeds."""
    seed: int = 0
    """Seed of the draws of configurations."""
    batch: int = 16
    """Number of configurations that `tpe` proposes at once."""
    keep_pruned: Literal["last rung", "none"] = "last rung"
    """Checkpoints of pruned runs."""


def _parse_seeds(value: Any) -> Any:
    """Parse `seeds`: a number of seeds, or a list of them."""
    if not isinstance(value, list):
        return convert_value(Param("int", None, low=0), value)
    seeds = tuple(convert_value(TRAINING["seed"], seed) for seed in value)
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadValueError(f"must be different seeds, or their number, not {quote_value(value)}")
    return seeds


_KEYS: dict[str, ValueParser] = {
    "method": Param("str", None, choices=METHODS),
    "metric": Param("str", None),
    "goal": Param("str", None, choices=("min", "max")),
    "budget": Param("int", None, low=1),
    "time_limit": parse_duration,
    "eta": Param("float", None, low=2),
    "min_epochs": Param("int", None, low=1),
    "seeds": _parse_seeds,
    "finalists": Param("int", None, low=1),
    "seed": Param("int", None, low=0),
    "batch": Param("int", None, low=2),
    "keep_pruned": Param("str", None, choices=("last rung", "none")),
}


def read_search(source: GridSource, metrics: Mapping[str, Goal], stop: Stop | None) -> Search | None:
    """Read `[search]`, None if the grid file has none.

    The metric defaults to the first one of `[metrics]` with a better direction, else to that of `[stop]`.

    Raises:
        GridError: The table is invalid, or the grid starts a command.
    """
    if "search" not in source.document:
        return None
    if "command" in source.document:
        raise source.error(
            "[search] cannot stop a command at a rung and train it on later: make it a task (labbench help tasks), or "
            "remove [search] to run every configuration to its end",
            ("search",),
            at="key",
        )
    options = source.options("search", _KEYS)
    if "method" not in options:
        raise source.error(f"[search] needs a `method`: {', '.join(METHODS)}", ("search",), at="key")
    if "metric" not in options:
        declared = [name for name, goal in metrics.items() if goal != "none"] + ([stop.metric] if stop else [])
        if not declared:
            raise source.error('[search] needs a `metric`, such as "val/loss"', ("search",), at="key")
        options["metric"] = declared[0]
    known_goals = {**({stop.metric: stop.goal} if stop else {}), **metrics}
    options["goal"] = read_goal(source, "search", options, known_goals)
    return Search(**options)
