"""The one interface behind which runs are stepped, whichever way: some runs, some samples, one update of each.

`SingleStepper` is the way `loop`; `StackedStepper` has two, `stacked` and `vmap`.
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
from labbench.train.engine.module_state import Attributes
from labbench.train.precision import Precision
from labbench.train.tasks.task import Task

StepResult: TypeAlias = tuple[Tensor, Mapping[str, Tensor]]
"""Losses of S runs (S, N), and by name what else was measured of each sample (S, N)."""


EVALUATION_BATCH_SIZE = 512
"""Samples in a forward pass that needs no gradients, unless `batch_size` is larger."""


@dataclass(frozen=True)
class Workload:
    """What the runs of a stack have in common: what they learn, from which data, in which batches."""

    task: Task
    data: DataSource
    """Where, and in the precision in which, models are trained."""
    batch_size: int
    precision: Precision = field(default_factory=Precision)
    name: str = ""
    """The task's."""
    files: Path | None = None
    """The database's, for what other runs kept."""
    engine: Engine = "auto"
    """The way in which runs are to be stepped; auto: by the rule in `choice`."""
    fixed: Config = field(default_factory=dict)
    """Settings of the training loop that replace those of the runs."""

    def loop_config(self, config: Config) -> Config:
        """Return the settings of the training loop for a run of this config, apart from the task's own parameters."""
        return {**loop_config(config, self.task.params), **self.fixed}

    @property
    def samples_per_epoch(self) -> int:
        return usable_samples(self.data.samples, self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.samples_per_epoch / self.batch_size)

    @property
    def evaluation_batch_size(self) -> int:
        """Samples in a forward pass that needs no gradients."""
        if isinstance(self.data, DatasetSource):  # whose samples may be large: a batch is known to fit
            return self.batch_size
        return max(EVALUATION_BATCH_SIZE, self.batch_size)


@dataclass(frozen=True)
class TrainingState:
    """Everything that a run's next updates depend on, besides its config and the number of updates done."""

    tensors: Mapping[str, Tensor]
    """Parameters and buffers by their names in the model."""
    optimizer_state: Mapping[str, Tensor]
    """The optimizer's: scalars as `NAME`, what it keeps of a parameter as `NAME.PARAMETER`."""
    attributes: Attributes = field(default_factory=Attributes)
    """What modules keep outside their tensors."""


def initial_state(model: nn.Module) -> TrainingState:
    """The state of a run whose model is new."""
    return TrainingState(dict(model.named_parameters()) | dict(model.named_buffers()), {})


class Stepper(Protocol):
    """S runs at the same step."""

    engine: str
    data: DataSource

    def step(self, batch: Tensor) -> StepResult:
        """One update of each run by the samples with these numbers (S, N); what it measured before the update."""

    def evaluate(self, split: Split) -> StepResult:
        """Losses and metrics of these samples (N, ...) for each run; nothing changes."""

    def train(self, mode: bool) -> None:
        """Into training mode, or out of it."""

    def state(self, index: int) -> TrainingState:
        """A copy of the state of one run."""

    def load(self, states: Sequence[TrainingState]) -> None:
        """Go on from these states, one a run."""

    def keep(self, indices: Sequence[int]) -> None:
        """Let all runs but these go."""

    def weights(self, index: int) -> dict[str, Tensor]:
        """What the state_dict of one run's model is now."""
