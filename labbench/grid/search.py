"""`[search]`: a search for the best configuration of a grid, which trains most configurations for some epochs only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from labbench.grid.checks import BadValueError, convert_value, quote_value
from labbench.grid.run_options import parse_duration, read_goal
from labbench.grid.source import GridSource, ValueParser
from labbench.metrics import Goal
from labbench.params.param import TRAINING, Param
from labbench.records import Stop

Method: TypeAlias = Literal["halving", "hyperband", "random", "tpe"]

METHODS: tuple[Method, ...] = ("halving", "hyperband", "random", "tpe")

METHODS_OF_COMMANDS: tuple[Method, ...] = ("random", "tpe")
"""Methods that run every chosen configuration to its end."""


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of a search."""

    method: Method
    metric: str
    """Metric that is measured at the end of each epoch."""
    goal: Goal
    budget: int | None = None
    """Epochs of all runs together, with the new seeds, or runs of a command; None: no limit."""
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

_KEYS_OF_RUNGS = ("eta", "min_epochs", "keep_pruned")
"""Keys without effect on a command, which is not stopped at rungs."""


def read_search(source: GridSource, metrics: Mapping[str, Goal], stop: Stop | None) -> Search | None:
    """Read `[search]`, None if the grid file has none.

    The metric defaults to the first one of `[metrics]` with a better direction, else to the metric of `[stop]`.

    Raises:
        GridError: The table is invalid, or asks for rungs in a grid that starts a command.
    """
    if "search" not in source.document:
        return None
    options = source.options("search", _KEYS)
    is_command = "command" in source.document
    if "method" not in options:
        methods = ", ".join(METHODS_OF_COMMANDS if is_command else METHODS)
        raise source.error(f"[search] needs a `method`: {methods}", ("search",), at="key")
    if is_command:
        _require_no_rungs(source, options)
    if "metric" not in options:
        declared = [name for name, goal in metrics.items() if goal != "none"] + ([stop.metric] if stop else [])
        if not declared:
            raise source.error('[search] needs a `metric`, such as "val/loss"', ("search",), at="key")
        options["metric"] = declared[0]
    known_goals = {**({stop.metric: stop.goal} if stop else {}), **metrics}
    options["goal"] = read_goal(source, "search", options, known_goals)
    return Search(**options)


def _require_no_rungs(source: GridSource, options: Mapping[str, Any]) -> None:
    """Raise GridError if the search of a command asks for rungs."""
    if options["method"] not in METHODS_OF_COMMANDS:
        raise source.error(
            f'"{options["method"]}" trains runs on from a rung, but a command starts again from the beginning: use '
            '"random" or "tpe", which run each script to its end, or make it a task (labbench help tasks)',
            ("search", "method"),
        )
    for key in _KEYS_OF_RUNGS:
        if key in options:
            raise source.error(f"{key} has no effect on a command, which runs to its end", ("search", key), at="key")
