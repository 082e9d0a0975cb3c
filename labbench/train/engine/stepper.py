"""The interface of the engines: update S runs by one batch each.

`SingleStepper` is the engine `loop`; `StackedStepper` is the engines `stacked` and `vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from labbench.params.param import loop_config
from labbench.records import Config, Engine
from labbench.train.data.dataset import DataSource, Split, usable_samples
from labbench.train.data.loading import DatasetSource
from labbench.train.data.samples import Samples
from labbench.train.engine.module_state import Attributes
from labbench.train.precision import Precision
from labbench.train.tasks.task import Task, optional_parts

StepResult: TypeAlias = tuple[Tensor, Mapping[str, Tensor]]
"""Losses, shape (S, N), and metrics of each sample by name, shape (S, N)."""


EVALUATION_BATCH_SIZE = 512
"""Samples per forward pass without gradients, unless `batch_size` is larger."""


@dataclass(frozen=True)
class Workload:
    """The task, data and batch size that the runs of a stack share."""

    task: Task
    data: DataSource
    """Training data; models are trained on its device and with its dtype."""
    batch_size: int
    precision: Precision = field(default_factory=Precision)
    name: str = ""
    """Name of the task."""
    files: Path | None = None
    """Folder of the database's files, with the models of other runs."""
    engine: Engine = "auto"
    """Engine of `[runtime] engine`; "auto" chooses by the rule in `grouping/loop_or_stack.py`."""
    fixed: Config = field(default_factory=dict)
    """Settings of the training loop that override every run's config."""

    gpu_layers: bool = False
    """Compute stacks with the layers for GPUs although the data are on a CPU, to check these layers."""

    @property
    def uses_gpu_layers(self) -> bool:
        """True if stacks use the layers for GPUs, and autograd; on a CPU they use the hand-written kernels."""
        return self.gpu_layers or self.data.device.type != "cpu"

    def loop_config(self, config: Config) -> Config:
        """Return the settings of the training loop for a run with this config."""
        return {**loop_config(config, self.task.params), **self.fixed}

    @property
    def uses_vmap_kernels(self) -> bool:
        """True if stacks of the engine `vmap` use hand-written layers, which have no second derivatives.

        The penalty of a task may need second derivatives.
        """
        return not self.uses_gpu_layers and self.precision.plain and optional_parts(self.task).penalty is None

    @property
    def samples_per_epoch(self) -> int:
        return usable_samples(self.data.samples, self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.samples_per_epoch / self.batch_size)

    @property
    def evaluation_batch_size(self) -> int:
        """Samples per forward pass without gradients."""
        if (size := optional_parts(self.task).evaluation_batch_size) is not None:
            return size
        if isinstance(self.data, DatasetSource):  # its samples may be large: only a training batch is known to fit
            return self.batch_size
        return max(EVALUATION_BATCH_SIZE, self.batch_size)


@dataclass(frozen=True)
class TrainingState:
    """State of one run for resuming its training.

    Config, step and state determine all later updates.
    """

    tensors: Mapping[str, Tensor]
    """Parameters and buffers by name."""
    optimizer_state: Mapping[str, Tensor]
    """State of the optimizer: scalars as `NAME`, per-parameter tensors as `NAME.PARAMETER`."""
    attributes: Attributes = field(default_factory=Attributes)
    """State that modules keep outside parameters and buffers."""
    state_dicts: Tensor | None = None
    """State dicts of the task's own optimizer and scheduler, as written by torch.save, uint8 (bytes,)."""
    averages: Mapping[str, Tensor] = field(default_factory=dict)
    """Moving averages of the trained parameters by name; empty before the first update and without `ema_decay`."""


def initial_state(model: nn.Module) -> TrainingState:
    """Return the state of a run that starts with this model."""
    return TrainingState(dict(model.named_parameters()) | dict(model.named_buffers()), {})


class Stepper(Protocol):
    """S runs at the same step."""

    engine: str
    data: DataSource

    def step(self, batch: Tensor) -> StepResult:
        """Update each run once by its samples.

        `batch` has the indices of the samples, shape (S, N), int64. Returns losses and metrics, shape (S, N), measured
        before the update.
        """

    def evaluate(self, split: Split) -> StepResult:
        """Return losses and metrics (S, N) of N samples, without an update."""

    def predict(self, split: Split) -> Samples:
        """Return the outputs (S, N, ...) for N samples, without an update."""

    def train(self, mode: bool) -> None:
        """Set training mode, or eval mode if `mode` is False, in which moving averages replace the weights."""

    def end_epoch(self, index: int, measured: Mapping[str, float]) -> Mapping[str, float]:
        """Update what a run updates per epoch, given the epoch's metrics by name; return further metrics."""

    def state(self, index: int) -> TrainingState:
        """Return a copy of the state of one run."""

    def load(self, states: Sequence[TrainingState]) -> None:
        """Restore these states, one per run."""

    def keep(self, indices: Sequence[int]) -> None:
        """Drop all runs except those with these indices."""

    def weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one run's state_dict, with the moving averages of its weights if there are any.

        Tensors have the shapes of a single model.
        """
