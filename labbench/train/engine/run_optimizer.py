"""Optimizer and learning rates of a run that trains alone, with the task's own optimizer and scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from labbench.errors import InputError
from labbench.records import Config
from labbench.spelling import spell_number
from labbench.train.engine.optimizers import make_optimizer
from labbench.train.engine.schedules import Schedule, load_state_dicts, make_scheduler, save_state_dicts
from labbench.train.engine.stepper import Workload
from labbench.train.host_copies import SyncPoint, sync_point
from labbench.train.tasks.optional_parts import make_parameter_groups
from labbench.train.tasks.task import optional_parts


class RunOptimizer:
    """Optimizer and learning rates of one run: torch's as the config says, or the task's own."""

    def __init__(self, model: nn.Module, config: Config, workload: Workload) -> None:
        """Make the optimizer of the model's parameters.

        Raises:
            InputError: The task's parameter groups, optimizer or scheduler are not usable.
        """
        self.settings, parts = workload.loop_config(config), optional_parts(workload.task)
        self.parameters = dict(model.named_parameters())
        groups = make_parameter_groups(parts, model, config)
        self._has_groups = bool(parts.parameter_groups or parts.optimizer)
        self._is_own = parts.optimizer is not None
        self.optimizer = (
            make_optimizer(self.settings, groups, workload.data.device)
            if parts.optimizer is None
            else check_optimizer(parts.optimizer(groups, dict(config)))
        )
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._schedule = Schedule([self.settings], workload.steps_per_epoch)
        self._scheduler = make_scheduler(parts, self.optimizer, self.settings, config)
        self._last_rate = 0.0
        """Learning rate of the last step, of the first parameter group."""
        self._is_sparse = False
        self.save_state_dicts()  # raise before the training, not at the first checkpoint

    def step(self, step: int, sparse: Sequence[str]) -> None:
        """Update the parameters, after `step` updates; `sparse` are the names of those with sparse gradients.

        Raises:
            InputError: The optimizer or its settings do not support sparse gradients.
        """
        if sparse and not self._is_own:
            self._prepare_sparse_gradients(sparse)
        if self.settings["clip"] is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.settings["clip"])
        if not self._schedule.constant:
            self._set_rates(float(self._schedule.rates_at(step)[0]))
        self.optimizer.step()
        if self._scheduler is not None:
            self._last_rate = self._scheduler.rate
            self._scheduler.end_step()

    def _prepare_sparse_gradients(self, names: Sequence[str]) -> None:
        if not self._is_sparse:
            enable_sparse_gradients(self.optimizer, self.settings, names[0])
            self._is_sparse = True
        # momentum moves every row, and torch's sparse momentum buffer would grow with each step
        if self.settings["momentum"] > 0:
            for name in names:
                self.parameters[name].grad = self.parameters[name].grad.to_dense()  # type: ignore[union-attr]

    def _set_rates(self, rate: float) -> None:
        """Set the learning rates of all groups, given the rate of the run's schedule."""
        lr: float = self.settings["lr"]
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate if base == lr else base * rate / (lr or 1.0)

    def end_epoch(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Step the task's scheduler; return the learning rate of the epoch's last step."""
        if self._scheduler is None:
            return {}
        self._scheduler.end_epoch(measured)
        return {"train/lr": self._last_rate}

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the optimizer's tensors: `NAME` of shape (), `NAME.PARAMETER` of the shape of the parameter.

        Empty if `save_state_dicts` returns them.
        """
        if self._is_own:
            return {}
        state: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    is_shared = not self._has_groups and value.dim() == 0
                    state[kind if is_shared else f"{kind}.{name}"] = torch.as_tensor(value).clone()
        return state

    def save_state_dicts(self) -> Tensor | None:
        """Return the state of a task's own optimizer or scheduler, uint8 (bytes,).

        Raises:
            InputError: It contains other objects than numbers, strings, lists, dicts and tensors.
        """
        states: dict[str, Any] = {"optimizer": self.optimizer.state_dict()} if self._is_own else {}
        if self._scheduler is not None:
            states["scheduler"] = self._scheduler.state()
        return save_state_dicts(states) if states else None

    def load(self, state: Mapping[str, Tensor], state_dicts: Tensor | None = None) -> None:
        """Restore `state`, tensors in the shapes of the parameters, and `save_state_dicts`, uint8 (bytes,)."""
        states = {} if state_dicts is None else load_state_dicts(state_dicts)
        if "optimizer" in states:
            with sync_point(SyncPoint.SETUP):
                self.optimizer.load_state_dict(states["optimizer"])
        if self._scheduler is not None and "scheduler" in states:
            self._scheduler.load(states["scheduler"])
        for key, value in state.items():
            kind, _, name = key.partition(".")
            for parameter in [self.parameters[name]] if name else self.parameters.values():
                self.optimizer.state[parameter][kind] = self._place_step(value) if kind == "step" else value.clone()
        for parameter in self.parameters.values():
            values = self.optimizer.state.get(parameter, {})
            tensors = {kind: value for kind, value in values.items() if isinstance(value, Tensor)}
            values |= {kind: _like_parameter(value, parameter) for kind, value in tensors.items()}

    def _place_step(self, step: Tensor) -> Tensor:
        """Return a copy of a step count, shape (), where the optimizer reads it: on the host, except fused kernels.

        A checkpoint is read to the device, and reading the count there would wait in every step.
        """
        if any(group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups):
            return step.clone()
        with sync_point(SyncPoint.SETUP):
            return step.to("cpu", copy=True)


def check_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer that the task made.

    Raises:
        InputError: It is no torch optimizer, or needs a closure.
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        raise InputError(
            "the task's optimizer(params, config) must return a torch.optim.Optimizer whose step() needs no closure, "
            f"not {type(optimizer).__name__}"
        )
    return optimizer


def _like_parameter(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a copy of an optimizer's value in the memory format of its parameter, if it has a value per element.

    Torch's fused optimizers take the elements in the order of the memory, so a contiguous value of a parameter in
    `channels_last` would be paired with other elements.
    """
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def enable_sparse_gradients(optimizer: optim.Optimizer, config: Config, parameter: str) -> None:
    """Make the optimizer accept sparse gradients, such as the gradients of `nn.Embedding(sparse=True)`.

    Fused kernels do not support sparse gradients and are turned off.

    Raises:
        InputError: The optimizer, weight decay or clipping of `config` does not support them; the message names
            the parameter `parameter`.
    """
    conflicts = {
        f'optimizer = "{config["optimizer"]}"': config["optimizer"] not in ("sgd", "adagrad"),
        f"weight_decay = {spell_number(config['weight_decay'])}": config["weight_decay"] > 0,
        f"clip = {config['clip']}": config["clip"] is not None,
    }
    for setting, is_unsupported in conflicts.items():
        if is_unsupported:
            raise InputError(
                f"{setting} does not support the sparse gradient of {parameter}: use nn.Embedding(sparse=False), or "
                "sgd or adagrad without weight_decay and clip"
            )
    for group in optimizer.param_groups:
        group["fused"] = None
