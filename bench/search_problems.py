"""Problems of bench/search.py and bench/search_peers.py: grids whose learning curves are all known.

A trained grid lies in a database, `labbench run` trains what is missing there, so an interrupted script goes on.

Shapes: C configurations, S seeds, E epochs; better values are larger.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labbench.configs import canonical_json
from labbench.runner.search.candidates import Candidate
from labbench.store.reader import Reader

Floats = NDArray[np.float64]
METRIC = "val/accuracy"
SEARCH_COUNT = 5
"""Number of searches of each method."""
POOL_SEEDS, JUDGE_SEEDS = range(6), range(6, 11)
"""Seeds that searches use, and those that judge their choices."""
NEW_SEEDS = 3
SEED_COUNT = len(POOL_SEEDS) + len(JUDGE_SEEDS)

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
seeds = 11
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """Grid whose curves are all known."""

    name: str
    configs: Sequence[Mapping[str, Any]]
    curves: Floats
    """Best value up to each epoch, shape (C, S, E); -inf for a diverged run."""
    grid_seeds: int = 1
    """Number of seeds of each configuration in the full grid."""
    truth: Floats | None = None
    """True means, shape (C,), if they are known."""

    @property
    def epochs(self) -> int:
        return int(self.curves.shape[2])

    @property
    def full_cost(self) -> int:
        """Epochs of all runs of the full grid."""
        return len(self.configs) * self.grid_seeds * self.epochs

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(index, config, ()) for index, config in enumerate(self.configs)]

    def search_curves(self, search: int) -> Floats:
        """Return the mean over the seeds of the grid that a search trains, shape (C, E)."""
        seeds = [(search + shift) % len(POOL_SEEDS) for shift in range(self.grid_seeds)]
        means: Floats = self.curves[:, seeds].mean(axis=1)
        return means

    def new_seed_means(self, search: int) -> Floats:
        """Return the mean final value over the new seeds of a search, shape (C,)."""
        seeds = [(search + self.grid_seeds + shift) % len(POOL_SEEDS) for shift in range(NEW_SEEDS)]
        means: Floats = self.curves[:, seeds, -1].mean(axis=1)
        return means

    def best_mean(self) -> float:
        """Return the judged mean of the configuration that is best over the seeds of searches.

        The largest of the judged means would be the one with the luckiest judging seeds.
        """
        if self.truth is not None:
            return float(self.truth.max())
        return float(self.judged_means()[self.curves[:, list(POOL_SEEDS), -1].mean(axis=1).argmax()])

    def judged_means(self) -> Floats:
        """Return the mean over the seeds that no search sees, or the true mean, shape (C,)."""
        if self.truth is not None:
            return self.truth
        means: Floats = self.curves[:, list(JUDGE_SEEDS), -1].mean(axis=1)
        return means

    def seed_deviation(self) -> float:
        """Return the pooled standard deviation of a seed over the configurations without a diverged run."""
        final = self.curves[:, list(JUDGE_SEEDS), -1]
        finite = final[np.isfinite(final).all(axis=1)]
        return float(np.sqrt(finite.var(axis=1, ddof=1).mean()))


def make_surface() -> Problem:
    """Return a synthetic problem: 400 points of a smooth surface, learning curves that cross, and noise."""
    generator = np.random.default_rng(0)
    axis = np.linspace(-1, 1, 20)
    x, y = (part.ravel() for part in np.meshgrid(axis, axis, indexing="ij"))  # (400,)
    final = 1 - 0.5 * (x - 0.3) ** 2 - 0.3 * (y + 0.2) ** 2 - 0.2 * x * y  # (400,)
    speed = 2.0 + 6.0 * (x + 1) / 2  # (400,): epochs; good points with a large x learn more slowly
    epochs = np.arange(1, 28)
    mean = final[:, None] * (1 - np.exp(-epochs / speed[:, None]))  # (400, 27)
    run_noise = 0.02 * generator.standard_normal((400, SEED_COUNT, 1))
    step_noise = 0.01 * generator.standard_normal((400, SEED_COUNT, 27))
    curves = np.maximum.accumulate(mean[:, None] + run_noise + step_noise, axis=2)
    configs = [{"x": float(a), "y": float(b)} for a, b in zip(x, y, strict=True)]
    many = 0.02 * generator.standard_normal((400, 500, 1)) + 0.01 * generator.standard_normal((400, 500, 27))
    truth = (mean[:, None] + many).max(axis=2).mean(axis=1)  # of the best values of runs, as curves
    return Problem("surface", configs, curves, truth=truth)


def write_grid(name: str) -> Path:
    """Write the grid file of a problem, with `SEED_COUNT` seeds."""
    path = Path(f"bench-search-{name}.toml")
    text = MLP_GRID
    if name == "optimizers":
        text = (Path(__file__).parents[1] / "experiments" / "optimizers.toml").read_text()
        text = text.replace("seeds = [0, 1, 2]", f"seeds = {SEED_COUNT}")
    path.write_text(text)
    return path


def train_problem(name: str, db: Path, *, short: bool) -> None:
    """Train the runs of a problem's grid that are missing in a database."""
    words = [sys.executable, "-m", "labbench", "--db", str(db), "run", str(write_grid(name)), "--full"]
    words += [word for setting in (SHORT if short else ()) for word in ("--set", setting)]
    subprocess.run(words, check=True)


def read_problem(name: str, db: Path, *, grid_seeds: int = 1) -> Problem:
    """Return the curves of a trained grid."""
    with Reader(db) as reader:
        runs = reader.runs(f"experiment={name}", summaries=False)
        epochs = max(run.config["epochs"] for run in runs)
        rows = [reader.epoch_values([run.key for run in runs], METRIC, epoch) for epoch in range(1, epochs + 1)]
    configs: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        config = without_seed(run.config)
        configs[canonical_json(config)] = config
    indices = {text: index for index, text in enumerate(configs)}
    curves = np.full((len(configs), SEED_COUNT, epochs), -np.inf)
    for run in runs:
        index = indices[canonical_json(without_seed(run.config))]
        for epoch, by_key in enumerate(rows):
            if run.status == "finished" and run.key in by_key:
                curves[index, run.config["seed"], epoch] = by_key[run.key].high
    return Problem(name, list(configs.values()), curves, grid_seeds)


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed"}
