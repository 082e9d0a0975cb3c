"""The engine `loop`: one run with its plain module.

The loop uses torch's optimizers and is the reference for the other engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from labbench.errors import InputError
from labbench.records import Config
from labbench.train.data.dataset import Split
from labbench.train.data.samples import MISSING_RETURN, Samples, call_model, concatenate, map_tensors, split_samples
from labbench.train.engine.dropout import SeededDropout, swap_dropout
from labbench.train.engine.freezing import set_mode
from labbench.train.engine.module_state import AttributeTracker, TaskTracker
from labbench.train.engine.run_optimizer import RunOptimizer
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stepper import StepResult, TrainingState, Workload
from labbench.train.engine.weight_averages import make_averages
from labbench.train.host_copies import to_device
from labbench.train.precision import place_model
from labbench.train.tasks.loss_config import loss_configs
from labbench.train.tasks.penalties import compute_penalty
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
        self.smoothing: float = settings["label_smoothing"]
        self.config, self.workload = config, workload
        self.loss_config = loss_configs(self.task, [config], self.data.dtype, self.data.device).first()
        swap_dropout(model, config["seed"], step_counter)
        place_model(model, self.data.device, self.data.dtype)
        if any(isinstance(module, nn.Conv2d) for module in model.modules()):
            # up to twice as fast on CPUs, most of all for pooling and normalization
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        workload.precision.adapt_batch_norm(model)
        self._precision, self._forward = workload.precision, workload.precision.maybe_compile(model, SeededDropout)
        self.parameters = dict(model.named_parameters())
        self._optimizer = RunOptimizer(model, config, workload)
        self._averages = make_averages(self.parameters, settings["ema_decay"])
        parts = optional_parts(self.task)
        self._microbatch_size, self._has_penalty = parts.microbatch_size, parts.penalty is not None
        self._attributes = AttributeTracker(model)
        self._variables = TaskTracker(model, attributes_of(self.task))
        own_ids = {id(parameter) for parameter in self.parameters.values()}
        self._foreign = {path: p for path, p in attributes_of(self.task).parameters().items() if id(p) not in own_ids}
        """Parameters in the task's attributes that are not part of the model, by path."""
        for parameter in self._foreign.values():  # data(config) may have trained them
            parameter.grad = None
        self._has_averages = False
        """True once the averages have been updated."""
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
        self._optimizer.step(self.step_counter.step, self.sparse)
        if self._averages is not None:
            self._averages.update()
            self._has_averages = True
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
        if self._has_penalty:
            losses = losses + self._precision.run_forward(
                self.data.device, lambda: compute_penalty(self.task, self.model, inputs, self.loss_config)
            )
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

    @torch.no_grad()
    def predict(self, split: Split) -> Samples:
        return map_tensors(lambda x: x.unsqueeze(0), self._compute_outputs(split[0]))

    def _compute_outputs(self, inputs: Samples) -> Any:
        outputs = self._precision.run_forward(self.data.device, lambda: call_model(self._forward, inputs))
        if outputs is None and not self._has_penalty:
            raise InputError(f"forward of {type(self.model).__name__} returned None: {MISSING_RETURN}")
        return outputs

    def train(self, mode: bool) -> None:
        set_mode(self.model, mode)
        if self._averages is not None:
            self._averages.use(not mode)

    def end_epoch(self, index: int, measured: Mapping[str, float]) -> Mapping[str, float]:
        return self._optimizer.end_epoch(measured)

    def state(self, index: int) -> TrainingState:
        tensors = self.parameters | dict(self.model.named_buffers())
        averages = {}
        with self._using(averaged=False):
            copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        if self._has_averages:
            with self._using(averaged=True):
                averages = {n: p.detach().clone() for n, p in self.parameters.items() if p.requires_grad}
        attributes, state_dicts = (
            self._attributes.changes() | self._variables.changes(),
            self._optimizer.save_state_dicts(),
        )
        return TrainingState(copies, self._optimizer.state(), attributes, state_dicts, averages)

    def _using(self, *, averaged: bool) -> AbstractContextManager[None]:
        """Return a context in which the model has the moving averages of its weights, or the weights."""
        return nullcontext() if self._averages is None else self._averages.using(averaged=averaged)

    def load(self, states: Sequence[TrainingState]) -> None:
        (state,) = states
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.tensors[name])
        for name in state.tensors.keys() - self.parameters.keys():  # a forward may have made or reshaped buffers
            path, _, buffer = name.rpartition(".")
            self.model.get_submodule(path)._buffers[buffer] = state.tensors[name].clone()
        self._attributes.restore(state.attributes)
        self._variables.restore(state.attributes)
        self._optimizer.load(state.optimizer_state, state.state_dicts)
        if self._averages is not None and state.averages:
            trained = [name for name, parameter in self.parameters.items() if parameter.requires_grad]
            self._averages.load(
                [state.averages[name] for name in trained], to_device(torch.tensor(True), self.data.device)
            )
            self._has_averages = True

    def keep(self, indices: Sequence[int]) -> None:
        """No-op: there is only one run."""

    def weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of the model's state_dict, in the model's shapes; see `Stepper.weights`."""
        with self._using(averaged=True):
            return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def _add_run_dimension(losses: Tensor, metrics: Mapping[str, Tensor]) -> StepResult:
    """Return losses and metrics of shape (N,) with shape (1, N)."""
    return losses.unsqueeze(0), {name: values.unsqueeze(0) for name, values in metrics.items()}
