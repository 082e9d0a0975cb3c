"""Measure what a search costs and finds: python bench/search.py --db search.db (trains two grids; minutes to an hour).

Each grid is trained once with eleven seeds. A rung never changes a curve, so searches are replayed exactly on the
recorded curves: their cost in run-epochs (of equal numbers of steps), the configuration that they choose, and its mean
over five seeds that no search has seen. A search has *reached* the goal if this mean lies within one pooled standard
deviation of a seed from that of the configuration that is best over all seeds of searches; on the synthetic surface the
true means are compared. Peers that prune trials are replayed on the same curves. Wall times are measured by
bench/search_peers.py.

Shapes: C configurations, S seeds, E epochs; better values are larger.
"""

from __future__ import annotations

import argparse
import heapq
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from search_problems import NEW_SEEDS, SEARCH_COUNT, Problem, make_surface, read_problem, train_problem

from labbench.configs import canonical_json
from labbench.runner.search.candidates import draw_candidates
from labbench.runner.search.rungs import default_min_epochs, make_brackets, rung_epochs, total_cost
from labbench.runner.search.tpe import Proposer, Trial
from labbench.runner.search.tpe import is_installed as has_optuna

FINALISTS, ETA, BATCH = 3, 3.0, 16
PROBLEMS = {"surface": 1, "optimizers": 3, "optimizers with one seed": 1, "mlp": 1}
"""Number of seeds of each configuration in the full grid, by problem."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one search."""

    cost: float
    """Share of the full grid's run-epochs, new seeds included."""
    new_seeds: float
    """Share of the full grid's run-epochs that the new seeds take."""
    chosen: int


def best_first(problem: Problem, candidates: Sequence[int], seed: int, epochs: int) -> list[int]:
    """Return candidates by their value at an epoch, best first; ties in the order of the grid."""
    values = problem.search_curves(seed)[:, epochs - 1]
    return sorted(candidates, key=lambda index: (-values[index], index))


def judge(problem: Problem, finishers: Sequence[int], seed: int) -> tuple[int, int]:
    """Return the winner among the finalists on new seeds, and the run-epochs that these take."""
    finalists = best_first(problem, finishers, seed, problem.epochs)[:FINALISTS]
    means = problem.new_seed_means(seed)
    winner = max(finalists, key=lambda index: (means[index], -finalists.index(index)))
    return winner, len(finalists) * NEW_SEEDS * problem.epochs


def outcome(problem: Problem, finishers: Sequence[int], seed: int, spent: float) -> Outcome:
    """Return the outcome of a search that has trained each seed of the grid for these epochs before its new seeds."""
    winner, replicates = judge(problem, finishers, seed)
    total = spent * problem.grid_seeds + replicates
    return Outcome(total / problem.full_cost, replicates / problem.full_cost, winner)


def climb(
    problem: Problem, population: Sequence[int], epochs: Sequence[int], seed: int
) -> tuple[list[int], dict[int, int]]:
    """Return the configurations that reach the last rung, and the epochs that each one trained."""
    (bracket,) = make_brackets("halving", len(population), epochs, ETA)
    trained: dict[int, int] = {}
    survivors = list(population)
    for rung in bracket:
        trained |= dict.fromkeys(survivors, rung.epochs)
        if rung is not bracket[-1]:
            survivors = sorted(best_first(problem, survivors, seed, rung.epochs)[: rung.survivors])
    return survivors, trained


def full_grid(problem: Problem, seed: int) -> Outcome:
    count = len(problem.configs)
    return outcome(problem, range(count), seed, count * problem.epochs)


def random_search(problem: Problem, seed: int) -> Outcome:
    """Train as many random configurations as successive halving could pay for."""
    count = _halving_budget(problem) // problem.epochs
    drawn = [candidate.index for candidate in draw_candidates(problem.candidates, count, seed)]
    return outcome(problem, drawn, seed, count * problem.epochs)


def halving(problem: Problem, seed: int) -> Outcome:
    survivors, trained = climb(
        problem, range(len(problem.configs)), rung_epochs(problem.epochs, ETA, default_min_epochs(problem.epochs)), seed
    )
    return outcome(problem, survivors, seed, sum(trained.values()))


def hyperband(problem: Problem, seed: int) -> Outcome:
    epochs = rung_epochs(problem.epochs, ETA, default_min_epochs(problem.epochs))
    drawn = [candidate.index for candidate in draw_candidates(problem.candidates, len(problem.configs), seed)]
    finishers: list[int] = []
    spent = start = 0
    for number, bracket in enumerate(make_brackets("hyperband", len(drawn), epochs, ETA)):
        size = bracket[0].candidates
        survivors, trained = climb(problem, drawn[start : start + size], epochs[number:], seed)
        finishers, spent, start = finishers + survivors, spent + sum(trained.values()), start + size
    return outcome(problem, finishers, seed, spent)


def tpe(problem: Problem, seed: int) -> Outcome:
    """Propose batches that climb the rungs, for the budget of successive halving or until all are tried."""
    proposer = Proposer(problem.candidates, "max", seed, frozenset())
    epochs = rung_epochs(problem.epochs, ETA, default_min_epochs(problem.epochs))
    trials: list[Trial] = []
    finishers: list[int] = []
    spent = batch = 0
    while spent < _halving_budget(problem) and len(trials) < len(problem.configs):
        population = [candidate.index for candidate in proposer.propose(trials, BATCH, batch)]
        survivors, trained = climb(problem, population, epochs, seed)
        for index in population:
            value = float(problem.search_curves(seed)[index, trained[index] - 1])
            trials.append(Trial(problem.candidates[index], value, trained[index], index in survivors))
        finishers, spent, batch = finishers + survivors, spent + sum(trained.values()), batch + 1
    return outcome(problem, finishers, seed, spent)


def optuna_hyperband(problem: Problem, seed: int) -> Outcome:
    """Run Optuna's TPE with its HyperbandPruner, one trial after another, for the budget of successive halving."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = [key for key in problem.configs[0] if len({canonical_json(c.get(key)) for c in problem.configs}) > 1]
    choices = {key: sorted({canonical_json(c.get(key)) for c in problem.configs}) for key in names}
    index_of = {tuple(canonical_json(c.get(key)) for key in names): i for i, c in enumerate(problem.configs)}
    spent, finishers = 0, []

    def objective(trial: optuna.Trial) -> float:
        nonlocal spent
        point = tuple(trial.suggest_categorical(key, choices[key]) for key in names)
        if (index := index_of.get(point)) is None:  # the grid lacks it
            raise optuna.TrialPruned
        for epoch in range(1, problem.epochs + 1):
            value = max(0.0, float(problem.search_curves(seed)[index, epoch - 1]))
            spent += 1
            trial.report(value, epoch)
            if trial.should_prune() and epoch < problem.epochs:
                raise optuna.TrialPruned
        finishers.append(index)
        return value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=problem.epochs, reduction_factor=3)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
        while spent < _halving_budget(problem) or not finishers:
            study.optimize(objective, n_trials=1)
    return outcome(problem, list(dict.fromkeys(finishers)), seed, spent)


def ray_asha(problem: Problem, seed: int) -> Outcome:
    """Run all configurations in random order by the rule of Ray Tune's ASHA scheduler, two at a time.

    A trial that reaches a rung stops if it is below the best third of the trials that have reached it before.
    """
    values = problem.search_curves(seed)
    first = default_min_epochs(problem.epochs)
    milestones = [rung for power in range(9) if (rung := round(first * ETA**power)) < problem.epochs]
    recorded: dict[int, list[float]] = {rung: [] for rung in milestones}
    waiting = np.random.default_rng(seed).permutation(len(problem.configs)).tolist()
    running = [(0, worker, -1, problem.epochs) for worker in range(2)]  # (time, worker, trial, epochs)
    finishers, spent = [], 0
    while running:
        now, worker, trial, epochs = heapq.heappop(running)
        goes_on = epochs < problem.epochs and _is_in_best_third(recorded[epochs], values[trial, epochs - 1])
        if epochs < problem.epochs:
            recorded[epochs].append(values[trial, epochs - 1])
        elif trial >= 0:
            finishers.append(trial)
        if not goes_on and not waiting:
            continue
        trial, epochs = (trial, epochs) if goes_on else (waiting.pop(), 0)
        end = next((rung for rung in milestones if rung > epochs), problem.epochs)
        spent += end - epochs
        heapq.heappush(running, (now + end - epochs, worker, trial, end))
    return outcome(problem, finishers, seed, spent)


def _is_in_best_third(recorded: Sequence[float], value: float) -> bool:
    return not recorded or value >= np.percentile(np.maximum(recorded, 0.0), 100.0 * (1.0 - 1.0 / ETA))


def _halving_budget(problem: Problem) -> int:
    """Return the run-epochs of successive halving over the whole grid, without new seeds."""
    epochs = rung_epochs(problem.epochs, ETA, default_min_epochs(problem.epochs))
    return total_cost(make_brackets("halving", len(problem.configs), epochs, ETA))


def report(problem: Problem, methods: Mapping[str, Callable[[Problem, int], Outcome]]) -> None:
    """Print the cost and the choices of each method: medians over the seeds, with the range."""
    means, deviation = problem.judged_means(), problem.seed_deviation()
    best = problem.best_mean()
    runs = f"{len(problem.configs)} configurations of {problem.epochs} epochs"
    seeds = f"{problem.grid_seeds} seed{'s' if problem.grid_seeds > 1 else ''} each"
    print(f"\n{problem.name}: {runs}, {seeds}, best {best:.4f}, standard deviation of a seed {deviation:.4f}")
    print(f"{'method':18}  {'share of run-epochs':24}  new seeds  {'below the best, in deviations':30}  reached")
    for name, method in methods.items():
        outcomes = [method(problem, search) for search in range(SEARCH_COUNT)]
        costs = [row.cost for row in outcomes]
        gaps = [(best - float(means[row.chosen])) / deviation for row in outcomes]
        reached = sum(gap <= 1 for gap in gaps)
        cost = f"{median(costs):.3f} ({min(costs):.3f}-{max(costs):.3f})"
        gap = f"{median(gaps):.2f} ({min(gaps):.2f}-{max(gaps):.2f})"
        new_seeds = f"{median(row.new_seeds for row in outcomes):.3f}"
        print(f"{name:18}  {cost:24}  {new_seeds:9}  {gap:30}  {reached} of {len(outcomes)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", type=Path, default=Path("search.db"), help="Database of the trained grids.")
    parser.add_argument("--problem", choices=tuple(PROBLEMS), action="append")
    parser.add_argument("--short", action="store_true", help="Train small networks on few samples.")
    options = parser.parse_args()
    methods: dict[str, Callable[[Problem, int], Outcome]] = {
        "full grid": full_grid, "random": random_search, "halving": halving, "hyperband": hyperband,
        "Ray Tune's ASHA": ray_asha,
    }  # fmt: skip
    if has_optuna():
        methods |= {"tpe": tpe, "Optuna TPE + HB": optuna_hyperband}
    else:
        print("tpe and Optuna are left out: optuna is not installed")
    for name in options.problem or PROBLEMS:
        if name == "surface":
            problem = make_surface()
        else:
            grid = name.split()[0]
            train_problem(grid, options.db, short=options.short)
            problem = read_problem(grid, options.db, grid_seeds=PROBLEMS[name])
        report(problem, methods)


if __name__ == "__main__":
    main()
