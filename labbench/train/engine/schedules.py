"""Learning-rate schedules as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labbench.records import Config

PCT_START, DIV_FACTOR, FINAL_DIV_FACTOR = 0.3, 25.0, 1e4
"""Defaults of `torch.optim.lr_scheduler.OneCycleLR`."""


class Schedule:
    """Learning rates of S runs."""

    def __init__(self, configs: Sequence[Config], steps_per_epoch: int) -> None:
        self.constant = all(config["schedule"] == "constant" and config["warmup"] == 0 for config in configs)
        self.base = np.array([config["lr"] for config in configs])  # (S,)
        self._configs = configs
        self._steps_per_epoch = steps_per_epoch

    def rates_at(self, step: int) -> NDArray[np.float64]:
        """Return the learning rates, shape (S,), of the update that follows `step` updates."""
        if self.constant:
            return self.base
        return np.array([learning_rate(config, step, self._steps_per_epoch) for config in self._configs])


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one run after `step` updates.

    Sources: "step" is `torch.optim.lr_scheduler.StepLR`; "cosine" is Loshchilov & Hutter, SGDR (2017), equation 5,
    without restarts; "onecycle" is Smith & Topin, Super-Convergence (2018), see `one_cycle`. Warmup is linear from
    `lr / (warmup + 1)`; "onecycle" has its own warmup.
    """
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
        decays: int = (step - warmup) // (config["step_epochs"] * steps_per_epoch)
        return lr * gamma**decays
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2
    return lr


def one_cycle(step: int, total: int) -> float:
    """Return the one-cycle learning rate as a fraction of the maximum.

    The cycle has `total` updates.

    Source: Smith & Topin, Super-Convergence (2018), as in `torch.optim.lr_scheduler.OneCycleLR` with cosine annealing
    in two phases.
    """
    top, last = PCT_START * total - 1, total - 1
    initial, final = 1 / DIV_FACTOR, 1 / DIV_FACTOR / FINAL_DIV_FACTOR
    if step <= top:
        return cosine_anneal(initial, 1.0, step / top)
    return cosine_anneal(1.0, final, (step - top) / (last - top))


def cosine_anneal(start: float, end: float, fraction: float) -> float:
    """Interpolate from `start` to `end` along half a cosine.

    `fraction` is 0 at the start and 1 at the end.
    """
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))


class StepCounter:
    """Number of optimizer updates done."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
