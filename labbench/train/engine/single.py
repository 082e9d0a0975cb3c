"""The engine `loop`: one run with its plain module.

The loop uses torch's optimizers and is the reference for the other engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labbench.errors import InputError
from labbench.records import Config
from labbench.train.data.dataset import Split
from labbench.train.data.samples import Samples, call_model, concatenate, map_tensors, split_samples
from labbench.train.dtypes import place_model
from labbench.train.engine.dropout import swap_dropout
from labbench.train.engine.freezing import set_mode
from labbench.train.engine.module_state import AttributeTracker
from labbench.train.engine.optimizers import enable_sparse_gradients, make_optimizer
from labbench.train.engine.schedules import Schedule, StepCounter
from labbench.train.engine.stepper import StepResult, TrainingState, Workload
from labbench.train.tasks.loss_config import loss_configs
from labbench.train.tasks.optional_parts import make_parameter_groups
from labbench.train.tasks.sample_metrics import compute_losses, compute_metrics
from labbench.train.tasks.task import attributes_of, optional_parts


class SingleStepper:
    """`Stepper` of one run: S is 1."""

    engine = "loop"

    def __init__(self, model: nn.Module, config: Config, workload: Workload, step_counter: StepCounter) -> None:
        """Take ownership of `model`.

        The model is moved to the device of the workload's data, and its dropout layers are replaced.
        """
        self.model, self.task, self.data, self.step_counter = model, workload.task, workload.data, step_counter
        settings = workload.loop_config(config)
        self.schedule = Schedule([settings], workload.steps_per_epoch)
        self.smoothing: float = settings["label_smoothing"]
        self.clip: float | None = settings["clip"]
        self.loss_config = loss_configs(self.task, [config], self.data.dtype, self.data.device).first()
        swap_dropout(model, config["seed"], step_counter)
        place_model(model, self.data.device, self.data.dtype)
        if any(isinstance(module, nn.Conv2d) for module in model.modules()):
            # up to twice as fast on CPUs, most of all for pooling and normalization
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        workload.precision.adapt_batch_norm(model)
        self._precision, self._forward = workload.precision, workload.precision.maybe_compile(model)
        self.parameters = dict(model.named_parameters())
        parts = optional_parts(self.task)
        groups = make_parameter_groups(parts, model, config)
        self._has_groups, self._has_optimizer = (
            bool(parts.parameter_groups or parts.optimizer),
            parts.optimizer is not None,
        )
        self.optimizer = (
            make_optimizer(settings, groups, self.data.device)
            if parts.optimizer is None
            else check_optimizer(parts.optimizer(groups, config))
        )
        self._microbatch_size = parts.microbatch_size
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.settings = settings
        self.config, self.workload = config, workload
        self._attributes = AttributeTracker(model)
        own = {id(parameter) for parameter in self.parameters.values()}
        self._foreign = {path: p for path, p in attributes_of(self.task).parameters().items() if id(p) not in own}
        """Parameters in the task's attributes that are not part of the model, by path."""
        for parameter in self._foreign.values():  # data(config) may have trained them
            parameter.grad = None
        self.sparse: list[str] | None = None
        """Names of the parameters with sparse gradients; None before the first step."""

    def step(self, batch: Tensor) -> StepResult:
        """Update the run by the samples `batch`, shape (1, N); see `Stepper.step`.

        Raises:
            InputError: A gradient is sparse, and the optimizer or its settings do not support that.
        """
        for parameter in self.parameters.values():
            parameter.grad = None
        split, count = self.data.gather(batch[0]), batch.shape[1]  # (N, ...)
        if self._microbatch_size is None or self._microbatch_size >= count:
            result = self._add_gradients(split, count)
        else:
            microbatches = zip(*(split_samples(part, self._microbatch_size) for part in split), strict=True)
            result = concatenate([self._add_gradients(microbatch, count) for microbatch in microbatches], dim=1)
        if self.sparse is None:
            self._require_own_parameters()
            self.sparse = [n for n, p in self.parameters.items() if p.grad is not None and p.grad.is_sparse]
            if self.sparse and not self._has_optimizer:
                enable_sparse_gradients(self.optimizer, self.settings, self.sparse[0])
        # momentum moves every row, and torch's sparse momentum buffer would grow with each step
        if self.sparse and self.settings["momentum"] > 0 and not self._has_optimizer:
            for name in self.sparse:
                self.parameters[name].grad = self.parameters[name].grad.to_dense()  # type: ignore[union-attr]
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.clip)
        if not self.schedule.constant:
            self._set_rates(float(self.schedule.rates_at(self.step_counter.step)[0]))
        self.optimizer.step()
        self.step_counter.step += 1
        return result

    def _require_own_parameters(self) -> None:
        """Raise InputError if the loss has a gradient for a parameter of the task that is none of the model's."""
        for path, parameter in self._foreign.items():
            if parameter.grad is not None:
                raise InputError(
                    f"the loss depends on the parameter `{path}` of the task, which is not part of the model and would "
                    "never be trained: return it with the model's outputs, or freeze it with requires_grad_(False)"
                )

    def _add_gradients(self, split: Split, count: int) -> StepResult:
        """Add the gradients of some samples of a batch of `count`; return their losses and metrics."""
        inputs, targets = split  # (N, ...)
        outputs = self._compute_outputs(inputs)
        losses = compute_losses(self.task, outputs, targets, self.loss_config, self.smoothing)  # (N,)
        if not losses.requires_grad:
            raise InputError(
                "the loss does not depend on any parameter of the model: do not call detach(), item() or numpy() on "
                "the outputs, and leave torch.no_grad() out of forward and loss"
            )
        losses.backward(torch.full_like(losses, 1 / count))  # the gradient of the mean loss
        return _add_run_dimension(losses.detach(), compute_metrics(self.task, outputs, targets, self.loss_config))

    @torch.no_grad()
    def evaluate(self, split: Split) -> StepResult:
        inputs, targets = split  # (N, ...)
        outputs = self._compute_outputs(inputs)
        losses = compute_losses(self.task, outputs, targets, self.loss_config)  # (N,)
        return _add_run_dimension(losses, compute_metrics(self.task, outputs, targets, self.loss_config))

    def _set_rates(self, rate: float) -> None:
        """Set the learning rates of all groups, given the rate of the run's schedule."""
        lr: float = self.settings["lr"]
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate if base == lr else base * rate / (lr or 1.0)

    @torch.no_grad()
    def predict(self, split: Split) -> Samples:
        return map_tensors(lambda x: x.unsqueeze(0), self._compute_outputs(split[0]))

    def _compute_outputs(self, inputs: Samples) -> Any:
        return self._precision.run_forward(self.data.device, lambda: call_model(self._forward, inputs))

    def train(self, mode: bool) -> None:
        set_mode(self.model, mode)

    def state(self, index: int) -> TrainingState:
        optimizer_state: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    is_shared = not self._has_groups and value.dim() == 0
                    optimizer_state[kind if is_shared else f"{kind}.{name}"] = torch.as_tensor(value).clone()
        tensors = self.parameters | dict(self.model.named_buffers())
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return TrainingState(copies, optimizer_state, self._attributes.changes())

    def load(self, states: Sequence[TrainingState]) -> None:
        (state,) = states
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.tensors[name])
        for name in state.tensors.keys() - self.parameters.keys():  # a forward may have made or reshaped buffers
            path, _, buffer = name.rpartition(".")
            self.model.get_submodule(path)._buffers[buffer] = state.tensors[name].clone()
        self._attributes.restore(state.attributes)
        for key, value in state.optimizer_state.items():
            kind, _, name = key.partition(".")
            for parameter in [self.parameters[name]] if name else self.parameters.values():
                self.optimizer.state[parameter][kind] = _like_parameter(value, parameter)

    def keep(self, indices: Sequence[int]) -> None:
        """No-op: there is only one run."""

    def weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of the model's state_dict; see `Stepper.weights` for the shapes."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


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


def _add_run_dimension(losses: Tensor, metrics: Mapping[str, Tensor]) -> StepResult:
    """Return losses and metrics of shape (N,) with shape (1, N)."""
    return losses.unsqueeze(0), {name: values.unsqueeze(0) for name, values in metrics.items()}
