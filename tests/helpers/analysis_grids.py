"""Synthetic grids whose effects are known, as the observations that analysis takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from labbench.analysis import Observation

AXES: dict[str, Sequence[Any]] = {
    "optimizer": ["sgd", "adam"],
    "lr": [0.001, 0.01, 0.1, 1.0],
    "dropout": [0.0, 0.5],
    "batchnorm": [False, True],
}


def grid(
    truth: Callable[[Mapping[str, Any]], float | None],
    *,
    axes: Mapping[str, Sequence[Any]] = AXES,
    seeds: int = 3,
    spread: float = 0.01,
    rng: int = 0,
) -> list[Observation]:
    """Every combination of the axes; `truth` gives a config's mean, or None where all its runs diverge."""
    generator = np.random.default_rng(rng)
    observations = []
    for values in itertools.product(*axes.values()):
        config = dict(zip(axes, values, strict=True))
        mean = truth(config)
        for seed in range(seeds):
            value = None if mean is None else mean + spread * float(generator.standard_normal())
            observations.append(Observation({**config, "seed": seed}, seed, value, 1.0, diverged=mean is None))
    return observations


def nothing_matters(config: Mapping[str, Any]) -> float:
    """A world in which every set-up is as good as any other."""
    return 0.9


def optimizer_and_rate(config: Mapping[str, Any]) -> float:
    """Adam is better by 0.06 at its best rate of 0.01; sgd wants 0.1; batchnorm adds 0.02; dropout does nothing."""
    best_rate = -2.0 if config["optimizer"] == "adam" else -1.0
    distance = abs(np.log10(config["lr"]) - best_rate)
    return 0.85 + 0.06 * (config["optimizer"] == "adam") - 0.05 * distance + 0.02 * config["batchnorm"]


def grid_with_holes(truth: Callable[[Mapping[str, Any]], float], *, seeds: int = 2, rng: int = 0) -> list[Observation]:
    """A grid of `a` and `b` in which each was varied only while the other was 0; seeds spread by 0.02."""
    axes = {"a": range(4), "b": range(4)}
    cells = grid(truth, axes=axes, seeds=seeds, spread=0.02, rng=rng)
    return [run for run in cells if run.config["a"] == 0 or run.config["b"] == 0]
