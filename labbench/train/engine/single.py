"""The way `loop`: one run, its plain module and torch's own optimizer. What the other ways are measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labbench.records import Config
from labbench.train.data.dataset import Split
from labbench.train.dtypes import place_model
from labbench.train.engine.dropout import swap_dropout
from labbench.train.engine.freezing import set_mode
from labbench.train.engine.module_state import AttributeWatch
from labbench.train.engine.optimizers import make_optimizer, take_sparse_gradients
from labbench.train.engine.schedules import Clock, Schedule
from labbench.train.engine.stepper import Lesson, Measured, State
from labbench.train.tasks.loss_config import loss_configs
from labbench.train.tasks.metrics import losses_of, metrics_of


class Alone:
    """A stack of a single run."""

    way = "loop"

    def __init__(self, model: nn.Module, config: Config, lesson: Lesson, clock: Clock) -> None:
        """The model is taken over, to where the lesson's data lies."""
        self.model, self.task, self.data, self.clock = model, lesson.task, lesson.data, clock
        settings = lesson.loop_config(config)
        self.schedule = Schedule([settings], lesson.steps_per_epoch)
        self.smoothing: float = settings["label_smoothing"]
        self.clip: float | None = settings["clip"]
        self.loss_config = loss_configs(self.task, [config], self.data.dtype, self.data.device).first()
        swap_dropout(model, config["seed"], clock)
        place_model(model, self.data.device, self.data.dtype)
        if any(isinstance(module, nn.Conv2d) for module in model.modules()):
            # up to twice as fast on CPUs: pooling and normalisation above all
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        lesson.arithmetic.adapt(model)
        self._arithmetic, self._forward = lesson.arithmetic, lesson.arithmetic.compiled(model)
        self.parameters = dict(model.named_parameters())
        self.optimizer = make_optimizer(settings, self.parameters.values(), self.data.device)
        self.settings = settings
        self.config, self.lesson = config, lesson
        self._attributes = AttributeWatch(model)
        self.sparse: list[str] | None = None
        """Names of the parameters whose gradients are sparse; None before the first step."""

    def step(self, batch: Tensor) -> Measured:
        inputs, targets = self.data.gather(batch[0])
        outputs = self._outputs(inputs)
        losses = losses_of(self.task, outputs, targets, self.loss_config, self.smoothing)  # (N,)
        for parameter in self.parameters.values():
            parameter.grad = None
        losses.backward(torch.full_like(losses, 1 / len(losses)))  # the gradient of their mean
        if self.sparse is None:
            self.sparse = [n for n, p in self.parameters.items() if p.grad is not None and p.grad.is_sparse]
            if self.sparse:
                take_sparse_gradients(self.optimizer, self.settings, self.sparse[0])
        if self.sparse and self.settings["momentum"] > 0:  # every row moves: torch's sparse buffer grows with each step
            for name in self.sparse:
                self.parameters[name].grad = self.parameters[name].grad.to_dense()  # type: ignore[union-attr]
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.clip)
        if not self.schedule.constant:
            self.optimizer.param_groups[0]["lr"] = float(self.schedule.at(self.clock.step)[0])
        self.optimizer.step()
        self.clock.step += 1
        return _of_one_run(losses.detach(), metrics_of(self.task, outputs, targets, self.loss_config))

    @torch.no_grad()
    def evaluate(self, split: Split) -> Measured:
        inputs, targets = split
        outputs = self._outputs(inputs)
        losses = losses_of(self.task, outputs, targets, self.loss_config)
        return _of_one_run(losses, metrics_of(self.task, outputs, targets, self.loss_config))

    def _outputs(self, inputs: Tensor) -> Any:
        return self._arithmetic.outputs(self.data.device, lambda: self._forward(inputs))

    def train(self, mode: bool) -> None:
        set_mode(self.model, mode)

    def state(self, index: int) -> State:
        memory: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    memory[kind if value.dim() == 0 else f"{kind}.{name}"] = value.clone()
        tensors = self.parameters | dict(self.model.named_buffers())
        return State(
            {name: tensor.detach().clone() for name, tensor in tensors.items()}, memory, self._attributes.now()
        )

    def load(self, states: Sequence[State]) -> None:
        (state,) = states
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.tensors[name])
        for name in state.tensors.keys() - self.parameters.keys():  # a forward may have made or reshaped buffers
            path, _, own = name.rpartition(".")
            self.model.get_submodule(path)._buffers[own] = state.tensors[name].clone()
        self._attributes.restore(state.attributes)
        for key, value in state.memory.items():
            kind, _, name = key.partition(".")
            for parameter in [self.parameters[name]] if name else self.parameters.values():
                self.optimizer.state[parameter][kind] = value.clone()

    def keep(self, indices: Sequence[int]) -> None:
        """There is only the one."""

    def weights(self, index: int) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def _of_one_run(losses: Tensor, metrics: Mapping[str, Tensor]) -> Measured:
    return losses.unsqueeze(0), {name: values.unsqueeze(0) for name, values in metrics.items()}
