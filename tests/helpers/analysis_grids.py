"""Synthetic grids with known effects, as observations for the analysis."""

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
    """Return one observation per combination of the axes and seed.

    `truth` returns the mean of a config, or None if all its runs diverge.
    """
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
    """Return the same mean for every config."""
    return 0.9


def optimizer_and_rate(config: Mapping[str, Any]) -> float:
    """Return a mean with known effects.

    Adam is better by 0.06; the best learning rate is 0.01 for Adam and 0.1 for SGD; batchnorm adds 0.02; dropout has
    no effect.
    """
    best_rate = -2.0 if config["optimizer"] == "adam" else -1.0
    distance = abs(np.log10(config["lr"]) - best_rate)
    return 0.85 + 0.06 * (config["optimizer"] == "adam") - 0.05 * distance + 0.02 * config["batchnorm"]


def grid_with_holes(truth: Callable[[Mapping[str, Any]], float], *, seeds: int = 2, rng: int = 0) -> list[Observation]:
    """Return a grid of `a` and `b` in which each was varied only while the other was 0; seeds spread by 0.02."""
    axes = {"a": range(4), "b": range(4)}
    cells = grid(truth, axes=axes, seeds=seeds, spread=0.02, rng=rng)
    return [run for run in cells if run.config["a"] == 0 or run.config["b"] == 0]
