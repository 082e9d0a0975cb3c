"""The ways `stacked` and `vmap`: S runs whose models have one structure, as one model of stacked tensors.

Parameters and gradients are rows of one tensor each; what a run is allowed to have for itself (learning rate, dropout,
order of data) is one value a row. Nothing reduces over runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn, vmap
from torch.func import functional_call

from labbench.records import Config
from labbench.train.clock import Clock
from labbench.train.data import Split
from labbench.train.dropout import Dropout, Masks, StackedDropout, replace_dropout
from labbench.train.layers import Layers
from labbench.train.measures import stacked_losses_of, stacked_metrics_of
from labbench.train.rows import Rows
from labbench.train.schedules import Schedule
from labbench.train.stepper import Lesson, Measured, State
from labbench.train.updates import StackOptimizer

Tensors: TypeAlias = Mapping[str, Tensor]


class Together:
    """S runs with models of one structure."""

    def __init__(
        self,
        way: str,
        model: nn.Module,
        dropouts: Sequence[Sequence[float]],
        states: Sequence[State],
        configs: Sequence[Config],
        lesson: Lesson,
        clock: Clock,
    ) -> None:
        """`model` is a model of the structure, taken over; `dropouts` are the probabilities of each run, by layer."""
        self.way, self.model, self.task, self.clock = way, model, lesson.task, clock
        self.data, self._steps_per_epoch = lesson.data, lesson.steps_per_epoch
        self.names = canonical_names(model)
        trained = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
        self.rows = Rows(trained)
        kind = StackedDropout if way == "vmap" else Dropout
        self._dropouts = replace_dropout(model, kind, lambda layer: Masks([], [], layer, clock))
        self._forward = Layers(model) if way == "stacked" else vmapped(model)
        self._arrange(configs, dropouts, states)

    def _arrange(self, configs: Sequence[Config], dropouts: Sequence[Sequence[float]], states: Sequence[State]) -> None:
        """Set up these runs, all after equally many updates."""
        self._configs, self._probabilities = configs, dropouts
        place: dict[str, Any] = {"device": self.data.device, "dtype": self.data.dtype}
        tensors = [state.tensors for state in states]
        self.parameters = self.rows.filled(tensors, torch.empty(0, **place))  # (S, P)
        self.gradients = torch.zeros_like(self.parameters)  # (S, P)
        self._leaves = {name: view.detach().requires_grad_() for name, view in self.rows.views(self.parameters).items()}
        self._gradient_views = list(self.rows.views(self.gradients).values())
        self.fixed = {
            name: _placed(torch.stack([each[name] for each in tensors]), **place)
            for name in tensors[0]
            if name not in self._leaves
        }
        seeds = [config["seed"] for config in configs]
        for layer, dropout in enumerate(self._dropouts):
            dropout.masks = Masks(seeds, [row[layer] for row in dropouts], layer, self.clock)
        self.optimizer = StackOptimizer(configs, self.rows, self.parameters, self.gradients)
        self.optimizer.load([state.memory for state in states])
        self.schedule = Schedule(configs, self._steps_per_epoch)
        self._rates = self._column(self.schedule.at(self.clock.step))
        smoothing = [config["label_smoothing"] for config in configs]
        self._smoothing = self._column(smoothing) if any(smoothing) else None
        clips = [config["clip"] for config in configs]
        self._clips = self._column([clip or torch.inf for clip in clips]) if any(clips) else None

    def step(self, batch: Tensor) -> Measured:
        S, N = batch.shape
        inputs, targets = (part.index_select(0, batch.flatten()).unflatten(0, (S, N)) for part in self.data.train)
        outputs = self._forward(self._leaves | self.fixed, inputs)
        losses = stacked_losses_of(self.task, outputs, targets, self._smoothing)  # (S, N)
        gradients = torch.autograd.grad(losses, list(self._leaves.values()), torch.full_like(losses, 1 / N))
        torch._foreach_copy_(self._gradient_views, gradients)
        if self._clips is not None:
            norms = self.gradients.norm(dim=1, keepdim=True)  # (S, 1)
            self.gradients.mul_((self._clips / (norms + 1e-6)).clamp(max=1))  # as clip_grad_norm_ has it
        if not self.schedule.constant:
            self._rates = self._column(self.schedule.at(self.clock.step))
        self.optimizer.step(self._rates)
        self.clock.step += 1
        with torch.no_grad():
            return losses.detach(), stacked_metrics_of(self.task, outputs, targets)

    @torch.no_grad()
    def evaluate(self, split: Split) -> Measured:
        S = len(self.parameters)
        inputs, targets = (part.expand(S, *part.shape) for part in split)
        outputs = self._forward(self._leaves | self.fixed, inputs)
        return stacked_losses_of(self.task, outputs, targets), stacked_metrics_of(self.task, outputs, targets)

    def train(self, mode: bool) -> None:
        self.model.train(mode)

    def state(self, index: int) -> State:
        return State(
            {name: tensor[index].detach().clone() for name, tensor in (self._leaves | self.fixed).items()},
            {name: value.clone() for name, value in self.optimizer.state(index).items()},
        )

    def load(self, states: Sequence[State]) -> None:
        self._arrange(self._configs, self._probabilities, states)

    def keep(self, indices: Sequence[int]) -> None:
        self._arrange(
            [self._configs[index] for index in indices],
            [self._probabilities[index] for index in indices],
            [self.state(index) for index in indices],
        )

    def weights(self, index: int) -> dict[str, Tensor]:
        tensors = self._leaves | self.fixed
        return {name: tensors[own][index].detach().clone() for name, own in self.names.items()}

    def _column(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=self.data.dtype, device=self.data.device).unsqueeze(1)


def canonical_names(model: nn.Module) -> dict[str, str]:
    """By each name in the model's state_dict the one under which the tensor is listed: tied ones have several."""
    listed = [*model.named_parameters(), *model.named_buffers()]
    by_tensor = {id(tensor): name for name, tensor in listed}
    return {name: by_tensor[id(tensor)] for name, tensor in model.state_dict(keep_vars=True).items()}


def vmapped(model: nn.Module) -> Callable[[Tensors, Tensor], Any]:
    """The module's own forward, mapped over runs."""

    def forward(tensors: Tensors, inputs: Tensor) -> Any:
        return functional_call(model, dict(tensors), (inputs,))

    return vmap(forward)


def _placed(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
