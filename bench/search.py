"""Measure what a search costs and finds: python bench/search.py --db search.db (trains two grids; minutes to an hour).

Each grid is trained once with ten seeds. A rung never changes a curve, so searches are replayed exactly on the recorded
curves: their cost in run-epochs (of equal numbers of steps), the configuration that they choose, and its mean over five
seeds that no search has seen. A search has *reached* the goal if this mean lies within one pooled standard deviation of
a seed from that of the grid's best configuration. Peers that prune trials are replayed on the same curves. Wall times
depend on the machine and are not measured here.

Shapes: values are (configurations, seeds, epochs), better values larger.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labbench.configs import canonical_json
from labbench.runner.search.candidates import Candidate, draw_candidates
from labbench.runner.search.rungs import default_min_epochs, make_brackets, rung_epochs, total_cost
from labbench.runner.search.tpe import Proposer, Trial
from labbench.runner.search.tpe import is_installed as has_optuna
from labbench.store.reader import Reader

Floats = NDArray[np.float64]
METRIC = "val/accuracy"
SEARCH_SEEDS, JUDGE_SEEDS = range(5), range(5, 10)
NEW_SEEDS, FINALISTS, ETA, BATCH = 3, 3, 3.0, 16

SHORT = ("epochs=9", "train_size=200", "hidden=[32]")
"""Settings of the trained grids with --short."""

MLP_GRID = """
name = "mlp"
task = "digits"
[params]
epochs = 20
hidden = [64]
[grid]
optimizer = ["sgd", "adam", "rmsprop"]
lr = [1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003]
dropout = [0.0, 0.1, 0.2, 0.3, 0.5]
batchnorm = [false, true]
[metrics]
"val/accuracy" = "max"
[repeat]
seeds = 10
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """Grid whose curves are all known."""

    name: str
    configs: Sequence[Mapping[str, Any]]
    curves: Floats
    """Best value up to each epoch, shape (configurations, seeds, epochs); -inf for a diverged run."""

    @property
    def epochs(self) -> int:
        return int(self.curves.shape[2])

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(index, config, ()) for index, config in enumerate(self.configs)]

    def judged_means(self) -> Floats:
        """Return the mean over the seeds that no search sees, shape (configurations,)."""
        means: Floats = self.curves[:, list(JUDGE_SEEDS), -1].mean(axis=1)
        return means

    def seed_deviation(self) -> float:
        """Return the pooled standard deviation of a seed over the configurations without a diverged run."""
        final = self.curves[:, list(JUDGE_SEEDS), -1]
        finite = final[np.isfinite(final).all(axis=1)]
        return float(np.sqrt(finite.var(axis=1, ddof=1).mean()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one search."""

    cost: float
    """Share of the full grid's run-epochs, replicates included."""
    chosen: int


def make_surface() -> Problem:
    """Return a synthetic problem: 400 points of a smooth surface, learning curves that cross, and noise."""
    generator = np.random.default_rng(0)
    axis = np.linspace(-1, 1, 20)
    x, y = (part.ravel() for part in np.meshgrid(axis, axis, indexing="ij"))  # (400,)
    final = 1 - 0.5 * (x - 0.3) ** 2 - 0.3 * (y + 0.2) ** 2 - 0.2 * x * y  # (400,)
    speed = 2.0 + 6.0 * (x + 1) / 2  # (400,): epochs; good points with a large x learn more slowly
    epochs = np.arange(1, 28)
    mean = final[:, None] * (1 - np.exp(-epochs / speed[:, None]))  # (400, 27)
    run_noise = 0.02 * generator.standard_normal((400, 10, 1))
    step_noise = 0.01 * generator.standard_normal((400, 10, 27))
    curves = np.maximum.accumulate(mean[:, None] + run_noise + step_noise, axis=2)
    configs = [{"x": float(a), "y": float(b)} for a, b in zip(x, y, strict=True)]
    return Problem("surface", configs, curves)


def read_problem(name: str, grid: Path, db: Path, *, short: bool) -> Problem:
    """Train what is missing of a grid with ten seeds, and return its curves."""
    words = [sys.executable, "-m", "labbench", "--db", str(db), "run", str(grid), "--full"]
    words += [word for setting in (SHORT if short else ()) for word in ("--set", setting)]
    subprocess.run(words, check=True)
    with Reader(db) as reader:
        runs = reader.runs(f"experiment={name}", summaries=False)
        epochs = max(run.config["epochs"] for run in runs)
        rows = [reader.epoch_values([run.key for run in runs], METRIC, epoch) for epoch in range(1, epochs + 1)]
    configs: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        config = {key: value for key, value in run.config.items() if key != "seed"}
        configs[canonical_json(config)] = config
    indices = {text: index for index, text in enumerate(configs)}
    curves = np.full((len(configs), 10, epochs), -np.inf)
    for run in runs:
        index = indices[canonical_json({key: value for key, value in run.config.items() if key != "seed"})]
        for epoch, by_key in enumerate(rows):
            if run.status == "finished" and run.key in by_key:
                curves[index, run.config["seed"], epoch] = by_key[run.key].high
    return Problem(name, list(configs.values()), curves)


def best_first(problem: Problem, candidates: Sequence[int], seed: int, epochs: int) -> list[int]:
    """Return candidates by their value at an epoch, best first; ties in the order of the grid."""
    return sorted(candidates, key=lambda index: (-problem.curves[index, seed, epochs - 1], index))


def judge(problem: Problem, finishers: Sequence[int], seed: int) -> tuple[int, int]:
    """Return the winner among the finalists on new seeds, and the run-epochs that these take."""
    finalists = best_first(problem, finishers, seed, problem.epochs)[:FINALISTS]
    new = [(seed + shift) % len(SEARCH_SEEDS) for shift in range(1, NEW_SEEDS + 1)]
    means = {index: problem.curves[index, new, -1].mean() for index in finalists}
    winner = max(finalists, key=lambda index: (means[index], -finalists.index(index)))
    return winner, len(finalists) * len(new) * problem.epochs


def outcome(problem: Problem, finishers: Sequence[int], seed: int, spent: float) -> Outcome:
    """Return the outcome of a search that has spent these run-epochs before its new seeds."""
    winner, replicates = judge(problem, finishers, seed)
    return Outcome((spent + replicates) / (len(problem.configs) * problem.epochs), winner)


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
    """Propose batches that climb the rungs, for the budget of successive halving."""
    proposer = Proposer(problem.candidates, "max", seed, frozenset())
    epochs = rung_epochs(problem.epochs, ETA, default_min_epochs(problem.epochs))
    trials: list[Trial] = []
    finishers: list[int] = []
    spent = batch = 0
    while spent < _halving_budget(problem):
        population = [candidate.index for candidate in proposer.propose(trials, BATCH, batch)]
        survivors, trained = climb(problem, population, epochs, seed)
        for index in population:
            value = float(problem.curves[index, seed, trained[index] - 1])
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
            value = max(0.0, float(problem.curves[index, seed, epoch - 1]))
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


def _halving_budget(problem: Problem) -> int:
    """Return the run-epochs of successive halving over the whole grid, without new seeds."""
    epochs = rung_epochs(problem.epochs, ETA, default_min_epochs(problem.epochs))
    return total_cost(make_brackets("halving", len(problem.configs), epochs, ETA))


def report(problem: Problem, methods: Mapping[str, Callable[[Problem, int], Outcome]]) -> None:
    """Print the cost and the choices of each method: medians over the seeds, with the range."""
    means, deviation = problem.judged_means(), problem.seed_deviation()
    best = float(np.max(means))
    runs = f"{len(problem.configs)} configurations of {problem.epochs} epochs"
    print(f"\n{problem.name}: {runs}, best {best:.4f}, standard deviation of a seed {deviation:.4f}")
    print(f"{'method':18}  {'share of run-epochs':24}  {'below the best, in deviations':30}  reached")
    for name, method in methods.items():
        outcomes = [method(problem, seed) for seed in SEARCH_SEEDS]
        costs = [row.cost for row in outcomes]
        gaps = [(best - float(means[row.chosen])) / deviation for row in outcomes]
        reached = sum(gap <= 1 for gap in gaps)
        cost = f"{median(costs):.3f} ({min(costs):.3f}-{max(costs):.3f})"
        gap = f"{median(gaps):.2f} ({min(gaps):.2f}-{max(gaps):.2f})"
        print(f"{name:18}  {cost:24}  {gap:30}  {reached} of {len(outcomes)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, default=Path("search.db"), help="Database of the trained grids.")
    parser.add_argument("--problem", choices=("optimizers", "mlp", "surface"), action="append")
    parser.add_argument("--short", action="store_true", help="Train small networks on few samples.")
    options = parser.parse_args()
    methods: dict[str, Callable[[Problem, int], Outcome]] = {
        "full grid": full_grid, "random": random_search, "halving": halving, "hyperband": hyperband,
    }  # fmt: skip
    if has_optuna():
        methods |= {"tpe": tpe, "Optuna TPE + HB": optuna_hyperband}
    else:
        print("tpe and Optuna are left out: optuna is not installed")
    for name in options.problem or ("surface", "optimizers", "mlp"):
        problem = make_surface()
        if name != "surface":
            problem = read_problem(name, write_grid(name), options.db, short=options.short)
        report(problem, methods)


def write_grid(name: str) -> Path:
    """Write the grid file of a problem, with ten seeds."""
    path = Path(f"bench-search-{name}.toml")
    text = MLP_GRID
    if name == "optimizers":
        text = (Path(__file__).parents[1] / "experiments" / "optimizers.toml").read_text()
        text = text.replace("seeds = [0, 1, 2]", "seeds = 10")
    path.write_text(text)
    return path


if __name__ == "__main__":
    main()
