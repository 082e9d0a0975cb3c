"""The engines `stacked` and `vmap`: S runs as one model of stacked tensors.

The models of the runs have one structure. Parameters and gradients are rows of one tensor each; hyperparameters that
may differ between runs (learning rate, dropout probability, order of the data) are one value per row. No operation
reduces over runs, so results do not depend on the number of runs that go forward and backward together. On a CPU a
stack is therefore split into tiles whose activations fit in the cache; `TileWidthTuner` chooses their width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from labbench.records import Config
from labbench.train.data.dataset import Split
from labbench.train.data.samples import Samples, concatenate, count_samples, map_tensors, split_samples
from labbench.train.engine.cpu.backprop import Backprop
from labbench.train.engine.cpu.layer_kernel import LayerArrays
from labbench.train.engine.cpu.tile_width import TileWidthTuner
from labbench.train.engine.cpu.vmap_convolution import stack_convolutions
from labbench.train.engine.cpu.vmap_normalization import stack_normalizations
from labbench.train.engine.cuda.gpu_layers import GPU_LAYER_FORWARDS
from labbench.train.engine.dropout import (
    DropoutMasks,
    SeededDropout,
    VmapDropout,
    dropout_probabilities,
    replace_dropout,
)
from labbench.train.engine.flat_params import FlatParameters, canonical_names
from labbench.train.engine.freezing import set_mode
from labbench.train.engine.layers import LAYER_FORWARDS, StackedSequential
from labbench.train.engine.recurrent import stack_recurrent_layers
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stack_update import StackUpdate
from labbench.train.engine.stepper import StepResult, TrainingState, Workload, initial_state
from labbench.train.engine.vmap_calls import map_forward, stack_embeddings
from labbench.train.precision import place
from labbench.train.tasks.loss_config import LossConfigs, loss_configs
from labbench.train.tasks.penalties import StackedPenalty, add_gradients
from labbench.train.tasks.sample_metrics import (
    compute_stacked_gradients,
    compute_stacked_losses,
    compute_stacked_metrics,
)
from labbench.train.tasks.task import optional_parts

ForwardResult: TypeAlias = tuple[Tensor, Any, Samples]
"""Losses (S, N), outputs (S, N, ...) and targets (S, N, ...) of a tile."""
MakeMasks: TypeAlias = Callable[[Sequence[int], Sequence[float], int], DropoutMasks]
"""Make the masks of a dropout layer from the seeds and probabilities of S runs and the index of the layer."""

MIN_EVALUATED_SAMPLES = 64
"""Minimum number of samples per run at a time in evaluations with `vmap` on a CPU."""


@dataclass(frozen=True)
class Tile:
    """Neighbouring runs of a stack that go forward and backward together.

    All tensors are views of the tensors of the stack.
    """

    rows: slice
    """Rows of the stack, R of them."""
    leaves: Mapping[str, Tensor]
    """Trained parameters by name, shape (R, ...); leaves of the autograd graph."""
    gradients: Mapping[str, Tensor]
    """Gradients of the leaves by name, shape (R, ...); overwritten by each step."""
    fixed: Mapping[str, Tensor]
    """Buffers and frozen parameters by name, shape (R, ...)."""
    masks: list[DropoutMasks]
    """Masks of each dropout layer."""
    loss_configs: LossConfigs
    """Configs as the task's loss and metrics read them."""
    layer_arrays: Sequence[LayerArrays] = ()
    """Parameters and buffers of each layer for the CPU kernels, shape (R, ...)."""
    layer_gradients: Sequence[LayerArrays] = ()
    """Gradients of each layer for the CPU kernels, shape (R, ...)."""


@dataclass(frozen=True)
class StackMember:
    """One run of a stack."""

    config: Config
    dropouts: Sequence[float]
    """Dropout probabilities by layer."""
    state: TrainingState

    @classmethod
    def from_model(cls, model: nn.Module, config: Config, state: TrainingState | None = None) -> StackMember:
        """Describe a run by its model, which is not modified.

        `state` is the state to resume, if any.
        """
        return cls(config, dropout_probabilities(model), state or initial_state(model))


class StackedStepper:
    """`Stepper` of S runs whose models have one structure."""

    def __init__(
        self,
        engine: str,
        model: nn.Module,
        members: Sequence[StackMember],
        workload: Workload,
        step_counter: StepCounter,
    ) -> None:
        """Take ownership of `model`, a model of the members' structure."""
        self.engine, self.model, self.task, self.step_counter = engine, model, workload.task, step_counter
        self._workload, self.data, self._precision = workload, workload.data, workload.precision
        self.names = canonical_names(model)
        self.flat_parameters = FlatParameters({n: p.shape for n, p in model.named_parameters() if p.requires_grad})
        kind = VmapDropout if engine == "vmap" else SeededDropout
        self._dropouts = replace_dropout(model, kind, lambda layer: DropoutMasks([], [], layer, step_counter))
        self._precision.adapt_batch_norm(model)
        self._forward = self._precision.maybe_compile(make_forward(engine, model, workload), SeededDropout)
        self._max_evaluated = (
            max(MIN_EVALUATED_SAMPLES, workload.batch_size)
            if engine == "vmap" and workload.data.device.type == "cpu"
            else None
        )
        """Maximum number of samples per run in a forward pass of an evaluation."""
        self._penalty = None if optional_parts(self.task).penalty is None else StackedPenalty(model, self.task)
        self._uses_gpu_layers = workload.uses_gpu_layers
        self._uses_kernels = engine == "stacked" and not self._uses_gpu_layers and self._precision.plain
        if engine == "vmap" and workload.uses_vmap_kernels:
            stack_convolutions(model)
            stack_normalizations(model)
        self._tuner: TileWidthTuner | None = None
        self._set_up(members)

    def _set_up(self, members: Sequence[StackMember]) -> None:
        """Load these runs, all at the same step."""
        configs, states = [member.config for member in members], [member.state for member in members]
        self._configs, self._probabilities = configs, [member.dropouts for member in members]
        self._loss_configs = loss_configs(self.task, configs, self.data.dtype, self.data.device)
        self.updates = StackUpdate(self._workload, self.flat_parameters, configs, states)
        tensors = [state.tensors for state in states]
        self.fixed = {
            name: place(torch.stack([run[name] for run in tensors]), self.data.device, self.data.dtype)
            for name in tensors[0]
            if name not in self.flat_parameters.shapes
        }
        if self._uses_kernels:
            self._tuner = (
                self._tuner.for_runs(len(configs)) if self._tuner is not None else TileWidthTuner(len(configs))
            )
        self._split_into_tiles(self._tuner.width if self._tuner is not None else len(configs))

    def _split_into_tiles(self, width: int) -> None:
        """Split the stack into tiles of `width` runs."""
        self._width, runs = width, len(self._configs)
        self._backprop = (
            Backprop(self.model, self.flat_parameters.shapes, self._workload.batch_size) if self._uses_kernels else None
        )
        self._tiles = [self._make_tile(slice(start, min(start + width, runs))) for start in range(0, runs, width)]

    def make_whole_tile(self, masks: MakeMasks) -> Tile:
        """Return all runs as one tile, with dropout masks made by the caller."""
        return self._make_tile(slice(0, len(self._configs)), masks)

    def _make_tile(self, rows: slice, masks: MakeMasks | None = None) -> Tile:
        make = masks or (
            lambda seeds, probabilities, layer: DropoutMasks(seeds, probabilities, layer, self.step_counter)
        )
        seeds = [config["seed"] for config in self._configs[rows]]
        leaves = {
            n: view.detach().requires_grad_()
            for n, view in self.flat_parameters.views(self.updates.parameters[rows]).items()
        }
        gradients = self.flat_parameters.views(self.updates.gradients[rows])
        fixed = {name: tensor[rows] for name, tensor in self.fixed.items()}
        masks_by_layer = [
            make(seeds, [run[layer] for run in self._probabilities[rows]], layer)
            for layer in range(len(self._dropouts))
        ]
        loss_configs = self._loss_configs.rows(rows)
        if self._backprop is None:
            return Tile(rows, leaves, gradients, fixed, masks_by_layer, loss_configs)
        arrays, gradient_arrays = (self._backprop.layer_arrays(tensors) for tensors in ({**leaves, **fixed}, gradients))
        return Tile(rows, leaves, gradients, fixed, masks_by_layer, loss_configs, arrays, gradient_arrays)

    @property
    def is_settled(self) -> bool:
        """True once the tile width is chosen."""
        return self._tuner is None or self._tuner.is_settled

    def step(self, batch: Tensor) -> StepResult:
        """Update each run by its samples, `batch` of shape (S, N); see `Stepper.step`."""
        if self._tuner is not None and self._tuner.width != self._width:
            self._split_into_tiles(self._tuner.width)
        start = time.thread_time()  # CPU time, which other processes do not change
        result = self.update(self._tiles, batch, self.updates.rates_at(self.step_counter.step))
        self.updates.end_step()
        self.step_counter.step += 1
        if self._tuner is not None:
            self._tuner.record_step(time.thread_time() - start, batch.shape[1])
        return result

    def update(self, tiles: Sequence[Tile], batch: Tensor, rates: Tensor) -> StepResult:
        """Compute one step: gradients, clipping and the optimizer's update.

        Shapes: `batch` (S, N), learning rates `rates` (S, 1). The function only reads and writes tensors, so a CUDA
        graph can capture it.
        """
        results = [self._forward_backward(tile, batch[tile.rows]) for tile in tiles]
        self.updates.apply(rates)
        return self._step_result(results)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that an update changes, not copied.

        The list has the parameters (S, P), the buffers (S, ...), the optimizer state and the moving averages.
        """
        return [*self.updates.tensors(), *self.fixed.values()]

    def _forward_backward(self, tile: Tile, batch: Tensor) -> ForwardResult:
        """Write the gradients of a tile; `batch` has shape (R, N)."""
        S, N = batch.shape
        inputs, targets = (
            map_tensors(lambda x: x.unflatten(0, (S, N)), part) for part in self.data.gather(batch.flatten())
        )
        smoothing = self.updates.smoothing_of(tile.rows)
        self._use_masks(tile)
        if self._backprop is not None:
            outputs = self._backprop.forward(tile.layer_arrays, inputs)
            losses, gradient = compute_stacked_gradients(self.task, outputs, targets, tile.loss_configs, smoothing)
            self._backprop.backward(tile.layer_arrays, tile.layer_gradients, gradient)
            if self._penalty is not None:
                penalties = self._compute_penalties(tile, inputs)
                add_gradients(penalties, tile.leaves, tile.gradients)
                losses = losses + penalties
        else:
            outputs = self._compute_outputs(tile, inputs)
            losses = compute_stacked_losses(self.task, outputs, targets, tile.loss_configs, smoothing)
            if self._penalty is not None:
                losses = losses + self._compute_penalties(tile, inputs)
            leaves, ones = list(tile.leaves.values()), torch.full_like(losses, 1 / N)
            gradients = torch.autograd.grad(losses, leaves, ones, allow_unused=True)
            rows, views = self.updates.gradients[tile.rows], tile.gradients.values()
            self.flat_parameters.write(rows, views, gradients, at_once=self._uses_gpu_layers)
            if unused := [name for name, g in zip(tile.leaves, gradients, strict=True) if g is None]:
                self.updates.optimizer.skip_weight_decay(unused)
        return losses.detach(), outputs, targets

    @torch.no_grad()
    def evaluate(self, split: Split) -> StepResult:
        """Return losses and metrics (S, N) of the split's N samples.

        On a CPU, `vmap` gets about as many samples at a time as in training, so that the memory is bounded.
        """
        limit = self._max_evaluated
        parts = [split] if limit is None else zip(*(split_samples(part, limit) for part in split), strict=True)
        results = [self._step_result([self._evaluate(tile, part) for tile in self._tiles]) for part in parts]
        if len(results) == 1:
            return results[0]
        losses, metrics = zip(*results, strict=True)
        return torch.cat(losses, 1), {name: torch.cat([each[name] for each in metrics], 1) for name in metrics[0]}

    @torch.no_grad()
    def predict(self, split: Split) -> Samples:
        limit = self._max_evaluated or count_samples(split[0])
        parts = [
            concatenate([self._predict(tile, inputs) for tile in self._tiles])
            for inputs in split_samples(split[0], limit)
        ]
        return concatenate(parts, dim=1)

    def _predict(self, tile: Tile, inputs: Samples) -> Samples:
        """Return the outputs of a tile (R, N, ...) for inputs (N, ...)."""
        runs = tile.rows.stop - tile.rows.start
        expanded = map_tensors(lambda x: x.expand(runs, *x.shape), inputs)
        self._use_masks(tile)
        if self._backprop is not None:
            return self._backprop.infer(tile.layer_arrays, expanded)
        return self._compute_outputs(tile, expanded)

    def _evaluate(self, tile: Tile, split: Split) -> ForwardResult:
        runs = tile.rows.stop - tile.rows.start
        targets = map_tensors(lambda x: x.expand(runs, *x.shape), split[1])
        outputs = self._predict(tile, split[0])
        return compute_stacked_losses(self.task, outputs, targets, tile.loss_configs), outputs, targets

    def _use_masks(self, tile: Tile) -> None:
        """Use a tile's masks in the dropout layers."""
        for dropout, masks in zip(self._dropouts, tile.masks, strict=True):
            dropout.masks = masks

    def _compute_outputs(self, tile: Tile, inputs: Samples) -> Any:
        tensors = {**tile.leaves, **tile.fixed}
        return self._precision.run_forward(self.data.device, lambda: self._forward(tensors, inputs))

    def _compute_penalties(self, tile: Tile, inputs: Samples) -> Tensor:
        """Return the penalties of a tile, shape (R, N)."""
        assert self._penalty is not None
        tensors, of_runs = {**tile.leaves, **tile.fixed}, self._penalty.of_runs
        penalties: Tensor = self._precision.run_forward(
            self.data.device, lambda: of_runs(tensors, inputs, tile.loss_configs)
        )
        return penalties

    @torch.no_grad()
    def _step_result(self, results: Sequence[ForwardResult]) -> StepResult:
        """Return losses and metrics of all runs, shape (S, N), given the results of all tiles."""
        losses, outputs, targets = concatenate(results)
        return losses, compute_stacked_metrics(self.task, outputs, targets, self._loss_configs)

    def _fixed_tensors(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one run's buffers and frozen parameters."""
        return {name: tensor[index].detach().clone() for name, tensor in self.fixed.items()}

    def train(self, mode: bool) -> None:
        set_mode(self.model, mode)
        self.updates.use_averages(not mode)

    def end_epoch(self, index: int, measured: Mapping[str, float]) -> Mapping[str, float]:
        return self.updates.end_epoch(index, measured)

    def state(self, index: int) -> TrainingState:
        return self.updates.state(index, self._fixed_tensors(index), has_updated=self.step_counter.step > 0)

    def load(self, states: Sequence[TrainingState]) -> None:
        self._set_up(list(map(StackMember, self._configs, self._probabilities, states)))

    def keep(self, indices: Sequence[int]) -> None:
        with self.updates.using(averaged=False):  # else each state would swap weights and averages
            states = [self.state(index) for index in indices]
        kept = zip(indices, states, strict=True)
        self._set_up([StackMember(self._configs[index], self._probabilities[index], state) for index, state in kept])
        self.train(self.model.training)

    def weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one run's state_dict, in the model's shapes; see `Stepper.weights`."""
        with self.updates.using(averaged=True):
            tensors = {**self.updates.weights(index), **self._fixed_tensors(index)}
        return {name: tensors[canonical].clone() for name, canonical in self.names.items()}


def make_forward(engine: str, model: nn.Module, workload: Workload) -> Callable[[Mapping[str, Tensor], Any], Any]:
    """Return the forward of S runs as a function of stacked tensors (S, ...) and inputs (S, N, ...)."""
    if engine == "vmap":
        stack_recurrent_layers(model)
        stack_embeddings(model)
        return map_forward(model)
    return StackedSequential(model, GPU_LAYER_FORWARDS if workload.uses_gpu_layers else LAYER_FORWARDS)
