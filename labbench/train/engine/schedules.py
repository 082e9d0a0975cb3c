"""Learning-rate schedules as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labbench.records import Config

PCT_START, DIV_FACTOR, FINAL_DIV_FACTOR = 0.3, 25.0, 1e4
"""torch's defaults for OneCycleLR."""


class Schedule:
    """The learning rates of S runs."""

    def __init__(self, configs: Sequence[Config], steps_per_epoch: int) -> None:
        self.constant = all(config["schedule"] == "constant" and config["warmup"] == 0 for config in configs)
        self.base = np.array([config["lr"] for config in configs])  # (S,)
        self._configs = configs
        self._steps_per_epoch = steps_per_epoch

    def at(self, step: int) -> NDArray[np.float64]:
        """The rates (S,) of the update that follows `step` updates."""
        if self.constant:
            return self.base
        return np.array([learning_rate(config, step, self._steps_per_epoch) for config in self._configs])


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one run after `step` updates."""
    lr: float = config["lr"]
    gamma: float = config["gamma"]
    warmup: int = config["warmup"]
    total: int = config["epochs"] * steps_per_epoch
    schedule = config["schedule"]
    if schedule == "onecycle":
        return lr * one_cycle(step, total)
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    if schedule == "step":
        falls: int = (step - warmup) // (config["step_epochs"] * steps_per_epoch)
        return lr * gamma**falls
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2
    return lr


def one_cycle(step: int, total: int) -> float:
    """The share of the largest rate, `total` updates from the beginning to the end of the cycle."""
    top, last = PCT_START * total - 1, total - 1
    low, lowest = 1 / DIV_FACTOR, 1 / DIV_FACTOR / FINAL_DIV_FACTOR
    if step <= top:
        return cosine_anneal(low, 1.0, step / top)
    return cosine_anneal(1.0, lowest, (step - top) / (last - top))


def cosine_anneal(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


class StepCounter:
    """Optimizer updates done so far."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
