"""Learning-rate schedules as functions of the step, and schedulers of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils._pytree import tree_map_only

from labbench.errors import InputError
from labbench.records import Config
from labbench.train.engine.optimizers import make_optimizer
from labbench.train.host_copies import SyncPoint, sync_point
from labbench.train.tasks.optional_parts import OptionalParts

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


IMPLEMENTATION_KEYS = ("params", "fused", "foreach", "capturable", "differentiable")
"""Keys of a parameter group that are no settings."""


@dataclass(frozen=True)
class TaskScheduler:
    """Scheduler of a task, stepped after each epoch or each optimizer step."""

    scheduler: LRScheduler
    interval: str = "epoch"
    """"epoch" or "step"."""
    monitor: str | None = None
    """Metric of ReduceLROnPlateau; default: `val/loss`, without validation data `train/loss`."""

    @property
    def rate(self) -> float:
        """Learning rate of the first parameter group."""
        return float(self.scheduler.optimizer.param_groups[0]["lr"])

    def end_step(self) -> None:
        """Update the learning rates after an optimizer step."""
        if self.interval == "step":
            self.scheduler.step()

    def end_epoch(self, measured: Mapping[str, float]) -> None:
        """Update the learning rates after an epoch, given its metrics by name.

        Raises:
            InputError: The monitored metric is not measured.
        """
        if self.interval != "epoch":
            return
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
            return
        metric = self.monitor or ("val/loss" if "val/loss" in measured else "train/loss")
        if metric not in measured:
            raise InputError(
                f"the task's scheduler monitors {metric!r}, which is not measured; choose from {', '.join(measured)}"
            )
        self.scheduler.step(measured[metric])

    def state(self) -> dict[str, Any]:
        """Return the state of the scheduler, and the settings of the parameter groups."""
        return {
            "scheduler": self.scheduler.state_dict(),
            "groups": [
                {key: value for key, value in group.items() if key not in IMPLEMENTATION_KEYS}
                for group in self.scheduler.optimizer.param_groups
            ],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""
        self.scheduler.load_state_dict(state["scheduler"])
        for group, values in zip(self.scheduler.optimizer.param_groups, state["groups"], strict=True):
            group.update(values)


def make_scheduler(
    parts: OptionalParts, optimizer: Optimizer, settings: Config, config: Config
) -> TaskScheduler | None:
    """Return the scheduler of a task for a run's optimizer, or None if it has none.

    `settings` is the config of the training loop, `config` the run's.

    Raises:
        InputError: The task returns no scheduler of this optimizer, or the config has a schedule, too.
    """
    if parts.scheduler is None:
        return None
    if settings["schedule"] != "constant" or settings["warmup"]:
        setting = f"warmup = {settings['warmup']}" if settings["warmup"] else f'schedule = "{settings["schedule"]}"'
        raise InputError(f"{setting} and the task's own scheduler exclude each other: remove one of them")
    result: Any = parts.scheduler(optimizer, dict(config))
    options = dict(result) if isinstance(result, Mapping) else {"scheduler": result}
    scheduler, interval = options.get("scheduler"), options.get("interval", "epoch")
    unknown = options.keys() - {"scheduler", "interval", "monitor"}
    if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer or unknown:
        raise InputError(
            "the task's scheduler(optimizer, config) must return a torch LRScheduler of that optimizer, or a dict like "
            f'{{"scheduler": ..., "interval": "step", "monitor": "val/loss"}}, not {result!r}'
        )
    if interval not in ("epoch", "step") or (interval == "step" and isinstance(scheduler, ReduceLROnPlateau)):
        raise InputError(
            f'the task\'s scheduler has the interval {interval!r}: use "epoch" (ReduceLROnPlateau always) or "step"'
        )
    return TaskScheduler(scheduler, interval, options.get("monitor"))


class TaskSchedules:
    """Learning rates of S runs by the task's own schedulers.

    Each scheduler changes the learning rate of an optimizer of one parameter that is never stepped.
    """

    constant = False

    def __init__(self, parts: OptionalParts, settings: Sequence[Config], configs: Sequence[Config]) -> None:
        """Make the schedulers of S runs, given the settings of the training loop and the configs.

        Raises:
            InputError: The task returns no usable scheduler, or it changes more than the learning rate.
        """
        self.schedulers = [self._make(parts, *each) for each in zip(settings, configs, strict=True)]
        self._last_rates = [scheduler.rate for scheduler in self.schedulers]

    def _make(self, parts: OptionalParts, settings: Config, config: Config) -> TaskScheduler:
        optimizer = make_optimizer(settings, [nn.Parameter(torch.zeros(1))], torch.device("cpu"))
        (before,) = ({**group} for group in optimizer.param_groups)
        scheduler = make_scheduler(parts, optimizer, settings, config)
        assert scheduler is not None
        optimizer.step()  # without gradients, it does nothing; torch warns of a scheduler that is stepped before it
        (group,) = optimizer.param_groups
        changed = [key for key, value in before.items() if key not in ("params", "lr") and group[key] != value]
        if changed:
            raise InputError(f"the task's scheduler changes `{changed[0]}` of the optimizer besides the learning rate")
        return scheduler

    @property
    def changes_within_epochs(self) -> bool:
        """True if a scheduler is stepped after each optimizer step."""
        return any(scheduler.interval == "step" for scheduler in self.schedulers)

    def rates_at(self, step: int) -> NDArray[np.float64]:
        """Return the learning rates, shape (S,), of the next update."""
        return np.array([scheduler.rate for scheduler in self.schedulers])

    def end_step(self) -> None:
        """Update the learning rates after an optimizer step of all runs."""
        if self.changes_within_epochs:
            self._last_rates = [scheduler.rate for scheduler in self.schedulers]
            for scheduler in self.schedulers:
                scheduler.end_step()

    def end_epoch(self, index: int, measured: Mapping[str, float]) -> dict[str, float]:
        """Step the scheduler of a run after an epoch; return the learning rate of its last step."""
        scheduler = self.schedulers[index]
        rate = self._last_rates[index] if scheduler.interval == "step" else scheduler.rate
        scheduler.end_epoch(measured)
        return {"train/lr": rate}


def save_state_dicts(states: Mapping[str, Any]) -> Tensor:
    """Return the state dicts of a task's own optimizer or scheduler as torch.save writes them, uint8 (bytes,).

    Raises:
        InputError: They contain other objects than numbers, strings, lists, dicts and tensors.
    """
    buffer = BytesIO()
    try:
        with sync_point(SyncPoint.FILE):
            torch.save(tree_map_only(Tensor, lambda tensor: tensor.cpu(), states), buffer)
            buffer.seek(0)
            torch.load(buffer, weights_only=True)
    except Exception as error:  # any object may refuse to be pickled
        raise InputError(
            "the state_dict() of the task's optimizer and scheduler may contain numbers, strings, lists, dicts and "
            f"tensors only, so that a checkpoint can store it: {str(error).partition(chr(10))[0]}"
        ) from error
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def load_state_dicts(saved: Tensor) -> dict[str, Any]:
    """Return the state dicts that `save_state_dicts` wrote, uint8 (bytes,), with tensors on the CPU.

    Nothing in them is executed.
    """
    with sync_point(SyncPoint.SETUP):
        states: dict[str, Any] = torch.load(BytesIO(saved.cpu().numpy().tobytes()), "cpu", weights_only=True)
    return states
