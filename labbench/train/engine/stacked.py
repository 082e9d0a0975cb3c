"""The ways `stacked` and `vmap`: S runs whose models have one structure, as one model of stacked tensors.

Parameters and gradients are rows of one tensor each; what a run is allowed to have for itself (learning rate, dropout,
order of data) is one value a row. Nothing reduces over runs, so it changes no number how many of them go forward and
back at a time: on a CPU a stack is stepped in tiles whose activations stay in the cache, of a width that is tried out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn, vmap
from torch.func import functional_call

from labbench.records import Config
from labbench.train.data.dataset import Split
from labbench.train.dtypes import place
from labbench.train.engine.cpu.backprop import Backprop
from labbench.train.engine.cpu.kernels import Own
from labbench.train.engine.dropout import Dropout, Masks, StackedDropout, replace_dropout
from labbench.train.engine.flat_params import Rows
from labbench.train.engine.freezing import set_mode
from labbench.train.engine.layers import Layers
from labbench.train.engine.optimizers import StackOptimizer
from labbench.train.engine.schedules import Clock, Schedule
from labbench.train.engine.stepper import Lesson, Measured, State
from labbench.train.engine.tile_width import Trial
from labbench.train.tasks.loss_config import LossConfigs, loss_configs
from labbench.train.tasks.metrics import stacked_gradients_of, stacked_losses_of, stacked_metrics_of

Tensors: TypeAlias = Mapping[str, Tensor]
Passed: TypeAlias = tuple[Tensor, Any, Tensor]
"""Losses (S, N), outputs and targets of some runs."""
MakeMasks: TypeAlias = Callable[[Sequence[int], Sequence[float], int], Masks]
"""From the seeds of runs, their probabilities and the number of a dropout layer."""


@dataclass(frozen=True)
class Tile:
    """Neighbouring runs of a stack that go forward and back at a time, with views of what is theirs."""

    rows: slice
    leaves: Mapping[str, Tensor]
    """Parameters by name, (runs, ...), of which gradients are taken."""
    gradients: Mapping[str, Tensor]
    """Where those go."""
    fixed: Mapping[str, Tensor]
    """Buffers and frozen parameters."""
    masks: list[Masks]
    """By dropout layer."""
    loss_configs: LossConfigs
    """As the task's loss and metrics read them."""
    own: Sequence[Own] = ()
    """For passes written by hand: parameters and buffers by layer."""
    own_gradients: Sequence[Own] = ()
    """Likewise where gradients go."""


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
        self._loop_config = lesson.loop_config
        self.data, self._steps_per_epoch, self._batch_size = lesson.data, lesson.steps_per_epoch, lesson.batch_size
        self.names = canonical_names(model)
        trained = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
        self.rows = Rows(trained)
        kind = StackedDropout if way == "vmap" else Dropout
        self._dropouts = replace_dropout(model, kind, lambda layer: Masks([], [], layer, clock))
        self._arithmetic = lesson.arithmetic
        self._arithmetic.adapt(model)
        self._forward = self._arithmetic.compiled(Layers(model) if way == "stacked" else vmapped(model))
        self._by_hand = way == "stacked" and lesson.data.device.type == "cpu" and self._arithmetic.plain
        self._trial: Trial | None = None
        self._arrange(configs, dropouts, states)

    def _arrange(self, configs: Sequence[Config], dropouts: Sequence[Sequence[float]], states: Sequence[State]) -> None:
        """Set up these runs, all after equally many updates."""
        self._configs, self._probabilities = configs, dropouts
        settings = [self._loop_config(config) for config in configs]
        self._loss_configs = loss_configs(self.task, configs, self.data.dtype, self.data.device)
        tensors = [state.tensors for state in states]
        self.parameters = self.rows.filled(
            tensors, torch.empty(0, device=self.data.device, dtype=self.data.dtype)
        )  # (S, P)
        self.gradients = torch.zeros_like(self.parameters)  # (S, P)
        self.fixed = {
            name: place(torch.stack([each[name] for each in tensors]), self.data.device, self.data.dtype)
            for name in tensors[0]
            if name not in self.rows.shapes
        }
        self.optimizer = StackOptimizer(settings, self.rows, self.parameters, self.gradients)
        self.optimizer.load([state.memory for state in states])
        self.schedule = Schedule(settings, self._steps_per_epoch)
        self._rates = self._column(self.schedule.at(self.clock.step))
        smoothing = [each["label_smoothing"] for each in settings]
        self._smoothing = self._column(smoothing) if any(smoothing) else None
        clips = [each["clip"] for each in settings]
        self._clips = self._column([clip or torch.inf for clip in clips]) if any(clips) else None
        if self._by_hand:
            self._trial = self._trial.of(len(configs)) if self._trial is not None else Trial(len(configs))
        self._cut(self._trial.width if self._trial is not None else len(configs))

    def _cut(self, width: int) -> None:
        """Step so many runs at a time."""
        self._width, runs = width, len(self._configs)
        self._backprop = Backprop(self.model, self.rows.shapes, self._batch_size) if self._by_hand else None
        self._tiles = [self._tile(slice(start, min(start + width, runs))) for start in range(0, runs, width)]

    def whole(self, masks: MakeMasks) -> Tile:
        """All runs as one tile, with masks of dropout made by the caller."""
        return self._tile(slice(0, len(self._configs)), masks)

    def _tile(self, rows: slice, masks: MakeMasks | None = None) -> Tile:
        make = masks or (lambda seeds, probabilities, layer: Masks(seeds, probabilities, layer, self.clock))
        seeds = [config["seed"] for config in self._configs[rows]]
        leaves = {n: view.detach().requires_grad_() for n, view in self.rows.views(self.parameters[rows]).items()}
        gradients = self.rows.views(self.gradients[rows])
        fixed = {name: tensor[rows] for name, tensor in self.fixed.items()}
        of_layers = [
            make(seeds, [run[layer] for run in self._probabilities[rows]], layer)
            for layer in range(len(self._dropouts))
        ]
        loss_configs = self._loss_configs.rows(rows)
        if self._backprop is None:
            return Tile(rows, leaves, gradients, fixed, of_layers, loss_configs)
        own = self._backprop.own({**leaves, **fixed}), self._backprop.own(gradients)
        return Tile(rows, leaves, gradients, fixed, of_layers, loss_configs, *own)

    @property
    def settled(self) -> bool:
        """Whether it is known how many runs to step at a time."""
        return self._trial is None or self._trial.settled

    def step(self, batch: Tensor) -> Measured:
        if self._trial is not None and self._trial.width != self._width:
            self._cut(self._trial.width)
        began = time.thread_time()  # not what a busy machine lets through
        if not self.schedule.constant:
            self._rates = self._column(self.schedule.at(self.clock.step))
        measured = self.update(self._tiles, batch, self._rates)
        self.clock.step += 1
        if self._trial is not None:
            self._trial.took(time.thread_time() - began, batch.shape[1])
        return measured

    def update(self, tiles: Sequence[Tile], batch: Tensor, rates: Tensor) -> Measured:
        """The arithmetic of a step with these learning rates (S, 1): it only reads and writes tensors."""
        passed = [self._differentiate(tile, batch[tile.rows]) for tile in tiles]
        if self._clips is not None:
            norms = self.gradients.norm(dim=1, keepdim=True)  # (S, 1)
            self.gradients.mul_((self._clips / (norms + 1e-6)).clamp(max=1))  # as clip_grad_norm_ has it
        self.optimizer.step(rates)
        return self._measured(passed)

    def tensors(self) -> list[Tensor]:
        """All that an update changes and the next one depends on, where it lies."""
        return [self.parameters, *self.fixed.values(), *self.optimizer.tensors()]

    def _differentiate(self, tile: Tile, batch: Tensor) -> Passed:
        """Leave the gradients of these runs in their rows; what the forward pass gave."""
        S, N = batch.shape
        inputs, targets = (part.unflatten(0, (S, N)) for part in self.data.gather(batch.flatten()))
        smoothing = None if self._smoothing is None else self._smoothing[tile.rows]
        self._enter(tile)
        if self._backprop is not None:
            outputs = self._backprop.forward(tile.own, inputs)
            losses, gradient = stacked_gradients_of(self.task, outputs, targets, tile.loss_configs, smoothing)
            self._backprop.backward(tile.own, tile.own_gradients, gradient)
        else:
            outputs = self._outputs(tile, inputs)
            losses = stacked_losses_of(self.task, outputs, targets, tile.loss_configs, smoothing)
            gradients = torch.autograd.grad(losses, list(tile.leaves.values()), torch.full_like(losses, 1 / N))
            torch._foreach_copy_(list(tile.gradients.values()), gradients)
        return losses.detach(), outputs, targets

    @torch.no_grad()
    def evaluate(self, split: Split) -> Measured:
        return self._measured([self._evaluate(tile, split) for tile in self._tiles])

    def _evaluate(self, tile: Tile, split: Split) -> Passed:
        runs = tile.rows.stop - tile.rows.start
        inputs, targets = (part.expand(runs, *part.shape) for part in split)
        self._enter(tile)
        if self._backprop is not None:
            outputs = self._backprop.infer(tile.own, inputs)
        else:
            outputs = self._outputs(tile, inputs)
        return stacked_losses_of(self.task, outputs, targets, tile.loss_configs), outputs, targets

    def _enter(self, tile: Tile) -> None:
        """Let dropout have the masks of these runs."""
        for dropout, masks in zip(self._dropouts, tile.masks, strict=True):
            dropout.masks = masks

    def _outputs(self, tile: Tile, inputs: Tensor) -> Any:
        tensors = {**tile.leaves, **tile.fixed}
        return self._arithmetic.outputs(self.data.device, lambda: self._forward(tensors, inputs))

    @torch.no_grad()
    def _measured(self, passed: Sequence[Passed]) -> Measured:
        """The losses and metrics of all runs, in order."""
        losses, outputs, targets = passed[0] if len(passed) == 1 else map(torch.cat, zip(*passed, strict=True))
        return losses, stacked_metrics_of(self.task, outputs, targets, self._loss_configs)

    def _tensors(self, index: int) -> dict[str, Tensor]:
        """A copy of one run's parameters and buffers."""
        parameters = self.rows.views(self.parameters[index : index + 1])
        tensors = {name: view[0] for name, view in parameters.items()}
        tensors |= {name: tensor[index] for name, tensor in self.fixed.items()}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def train(self, mode: bool) -> None:
        set_mode(self.model, mode)

    def state(self, index: int) -> State:
        memory = {name: value.clone() for name, value in self.optimizer.state(index).items()}
        return State(self._tensors(index), memory)

    def load(self, states: Sequence[State]) -> None:
        self._arrange(self._configs, self._probabilities, states)

    def keep(self, indices: Sequence[int]) -> None:
        self._arrange(
            [self._configs[index] for index in indices],
            [self._probabilities[index] for index in indices],
            [self.state(index) for index in indices],
        )

    def weights(self, index: int) -> dict[str, Tensor]:
        tensors = self._tensors(index)
        return {name: tensors[own] for name, own in self.names.items()}

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
