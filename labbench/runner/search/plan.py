"""Plan of a search: its configurations, brackets and rungs, and its share of the full grid's cost."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labbench.errors import did_you_mean
from labbench.grid.expansion import position_of
from labbench.grid.search import Search
from labbench.params.builtin import BUILTIN, EPOCH_METRICS
from labbench.records import NewRun
from labbench.runner.expanded_grid import ExpandedGrid
from labbench.runner.search.candidates import Candidate, draw_candidates, make_candidates
from labbench.runner.search.rungs import (
    Bracket,
    default_min_epochs,
    make_batches,
    make_brackets,
    rung_epochs,
    total_cost,
)
from labbench.runner.search.tpe import is_installed
from labbench.text import format_count

PER_STEP_METRIC = "train/loss"
"""Metric of each step, which has no value at the end of an epoch."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Rungs and configurations of a search."""

    search: Search
    epochs: int
    """Epochs of a complete run; 1 for a command, whose costs are numbers of runs."""
    brackets: Sequence[Bracket]
    populations: Sequence[Sequence[Candidate]]
    """Initial configurations of each bracket; empty if they are proposed during the search."""
    candidates: Sequence[Candidate]
    """All configurations of the grid."""
    runs_per_candidate: float
    """Mean number of seeds of a configuration in the grid."""
    new_seeds: Sequence[int]
    """Seeds that the grid does not have, for the finalists."""
    grid_runs: int
    """Number of runs of the full grid."""
    is_of_commands: bool = False
    """True if each run is a script, which runs to its end."""

    @property
    def unit(self) -> str:
        """Noun for the unit of costs and of `budget`."""
        return "run" if self.is_of_commands else "epoch"

    @property
    def runs(self) -> list[NewRun]:
        """Runs of all populations, in order."""
        return [run for population in self.populations for candidate in population for run in candidate.runs]

    @property
    def bracket_noun(self) -> str:
        """Word for a bracket."""
        return "batch" if self.search.method == "tpe" else "bracket"

    def rung_label(self, number: int, index: int) -> str:
        """Return the name of a rung of a bracket, by their indices; a command has no rungs."""
        bracket = f"{self.bracket_noun} {number + 1}" if len(self.brackets) > 1 else ""
        if self.is_of_commands:
            return f"{bracket} of {len(self.brackets)}" if bracket else f"{self.search.method} search"
        return f"{bracket}{', ' if bracket else ''}rung {index + 1} of {len(self.brackets[number])}"

    @property
    def widest_stage(self) -> int:
        """Largest number of runs that train at the same time."""
        return math.ceil(max(bracket[0].candidates for bracket in self.brackets) * self.runs_per_candidate)

    @property
    def finalists(self) -> int:
        """Number of configurations that are trained with the new seeds."""
        finishers = sum(bracket[-1].candidates for bracket in self.brackets)
        return min(self.search.finalists, finishers) if self.new_seeds else 0

    @property
    def new_seeds_cost(self) -> int:
        """Cost of the finalists' runs with new seeds."""
        return self.finalists * len(self.new_seeds) * self.epochs

    @property
    def cost(self) -> float:
        """Cost of all runs of the search."""
        return total_cost(self.brackets) * self.runs_per_candidate + self.new_seeds_cost

    @property
    def stages(self) -> list[tuple[float, int]]:
        """Number of runs that train together, and of epochs of each, in the order of the search."""
        rungs = [rung for bracket in self.brackets for rung in bracket]
        stages = [(rung.candidates * self.runs_per_candidate, rung.new_epochs) for rung in rungs]
        return [*stages, (self.finalists * len(self.new_seeds), self.epochs)] if self.finalists else stages

    @property
    def full_cost(self) -> int:
        """Cost of all runs of the full grid."""
        return self.grid_runs * self.epochs


def plan_search(expanded: ExpandedGrid, search: Search) -> SearchPlan:
    """Plan the search over the runs of a grid.

    Raises:
        GridError: The search does not fit the grid: its metric, epochs, seeds or budget.
    """
    is_of_commands = bool(expanded.grid.command)
    if not is_of_commands:
        _require_epoch_metric(expanded, search)
    if search.method == "tpe" and not is_installed():
        message = '"tpe" needs Optuna, which is not installed: pip install -e ".[optuna]" in labbench\'s checkout'
        raise expanded.grid.source.error(message, ("search", "method"))
    epochs = 1 if is_of_commands else _common_epochs(expanded, search)
    candidates = make_candidates(expanded.runs)
    new_seeds = _new_seeds(expanded, search)

    grid_runs = len(expanded.runs)
    rungs = rung_epochs(epochs, search.eta, search.min_epochs or default_min_epochs(epochs))

    def plan(count: int) -> SearchPlan:
        brackets = (
            make_batches(count, search.batch, rungs, search.eta)
            if search.method == "tpe"
            else make_brackets(search.method, count, rungs, search.eta)
        )
        populations = [] if search.method == "tpe" else _draw_populations(candidates, brackets, search.seed)
        seeds = grid_runs / len(candidates)
        return SearchPlan(
            search, epochs, brackets, populations, candidates, seeds, new_seeds, grid_runs, is_of_commands
        )

    count = len(candidates) if search.budget is None else _largest_affordable(plan, len(candidates), search.budget)
    smallest = min(2, len(candidates))
    if count < smallest:
        raise expanded.grid.source.error(
            f"budget = {search.budget} is too small: a search over {format_count(smallest, 'configuration')} takes "
            f"{plan(smallest).cost:,.0f} {plan(smallest).unit}s",
            ("search", "budget"),
        )
    return plan(count)


def _draw_populations(
    candidates: Sequence[Candidate], brackets: Sequence[Bracket], seed: int
) -> list[Sequence[Candidate]]:
    """Return the initial configurations of each bracket, drawn without replacement unless they are all of the grid."""
    count = sum(bracket[0].candidates for bracket in brackets)
    if len(brackets) == 1 and count == len(candidates):
        return [candidates]
    drawn = iter(draw_candidates(candidates, count, seed))
    return [[next(drawn) for _ in range(bracket[0].candidates)] for bracket in brackets]


def _largest_affordable(plan: Callable[[int], SearchPlan], most: int, budget: int) -> int:
    """Return the largest number of configurations, at most `most`, whose plan costs no more than the budget."""

    def is_too_expensive(count: int) -> bool:
        return plan(count).cost > budget

    if not is_too_expensive(most):
        return most
    count = bisect_left(range(1, most + 1), True, key=is_too_expensive)
    while count and is_too_expensive(count):  # with several brackets, the cost does not always grow
        count -= 1
    return count


def _require_epoch_metric(expanded: ExpandedGrid, search: Search) -> None:
    """Raise GridError if a built-in task never measures the metric at the end of an epoch.

    The metrics of a user's task are known only in training.
    """
    grid = expanded.grid
    metrics = [name for name in EPOCH_METRICS if name != PER_STEP_METRIC]
    is_known = grid.task in BUILTIN and grid.task != "own"
    if search.metric == PER_STEP_METRIC or (is_known and search.metric not in metrics):
        hint = did_you_mean(search.metric, metrics) or f"; use one of {', '.join(metrics)}"
        message = f"`{search.metric}` is not measured at the end of an epoch{hint}"
        raise grid.source.error(message, ("search", "metric"))


def _common_epochs(expanded: ExpandedGrid, search: Search) -> int:
    """Return the number of epochs of the grid's runs, which must be the same in all and at least `min_epochs`."""
    grid = expanded.grid
    epochs: list[int] = list(dict.fromkeys(run.config["epochs"] for run in expanded.runs))
    if len(epochs) > 1:
        raise grid.source.error(
            f"[search] compares runs that train equally long, but the grid has runs of {epochs[0]} and of {epochs[1]} "
            "epochs: use one number of epochs",
            position_of(grid, "epochs", epochs[1]),
        )
    if search.min_epochs is not None and search.min_epochs > epochs[0]:
        raise grid.source.error(
            f"min_epochs = {search.min_epochs} is more than the {format_count(epochs[0], 'epoch')} of a run",
            ("search", "min_epochs"),
        )
    return epochs[0]


def _new_seeds(expanded: ExpandedGrid, search: Search) -> list[int]:
    """Return the new seeds; a number stands for the smallest ones that the grid does not have."""
    used = {run.config.get("seed") for run in expanded.runs}
    if search.seeds and None in used:
        message = (
            'the runs of this command have no seed: add the words "--seed", "{seed}" to the command and [repeat] with '
            "seeds = 1, or remove `seeds` here"
        )
        raise expanded.grid.source.error(message, ("search", "seeds"), at="key")
    if isinstance(search.seeds, int):
        free = (seed for seed in range(len(used) + search.seeds) if seed not in used)
        return [seed for _, seed in zip(range(search.seeds), free, strict=False)]
    for index, seed in enumerate(search.seeds):
        if seed in used:
            message = f"the grid has runs with seed {seed}: the winner is judged on seeds that played no part before"
            raise expanded.grid.source.error(message, ("search", "seeds", index))
    return list(search.seeds)
