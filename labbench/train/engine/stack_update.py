"""Updates of a stack: parameters and gradients as rows, clipping, optimizers, learning rates and moving averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from labbench.records import Config
from labbench.train.engine.flat_params import FlatParameters
from labbench.train.engine.optimizers import StackOptimizer
from labbench.train.engine.schedules import Schedule, TaskSchedules, load_state_dicts, save_state_dicts
from labbench.train.engine.stepper import TrainingState, Workload
from labbench.train.engine.weight_averages import WeightAverages
from labbench.train.host_copies import to_device
from labbench.train.tasks.task import optional_parts


class StackUpdate:
    """Parameters of S runs, and what turns their gradients into an update."""

    def __init__(
        self,
        workload: Workload,
        flat_parameters: FlatParameters,
        configs: Sequence[Config],
        states: Sequence[TrainingState],
    ) -> None:
        """Load the states of the runs, all at the same step."""
        self._data, self._flat_parameters = workload.data, flat_parameters
        settings = [workload.loop_config(config) for config in configs]
        empty = torch.empty(0, device=workload.data.device, dtype=workload.data.dtype)
        self.parameters = flat_parameters.pack([state.tensors for state in states], empty)  # (S, P)
        self.gradients = torch.zeros_like(self.parameters)  # (S, P)
        self.optimizer = StackOptimizer(settings, flat_parameters, self.parameters, self.gradients)
        self.optimizer.load([state.optimizer_state for state in states])
        parts = optional_parts(workload.task)
        self.schedule: Schedule | TaskSchedules
        if parts.scheduler is None:
            self.schedule = Schedule(settings, workload.steps_per_epoch)
        else:
            self.schedule = TaskSchedules(parts, settings, configs)
            for scheduler, state in zip(self.schedule.schedulers, states, strict=True):
                if state.state_dicts is not None:
                    scheduler.load(load_state_dicts(state.state_dicts)["scheduler"])
        self._rates: Tensor | None = None  # (S, 1)
        clips = [run["clip"] for run in settings]
        self._clips = self._as_column([clip or torch.inf for clip in clips]) if any(clips) else None
        smoothing = [run["label_smoothing"] for run in settings]
        self._smoothing = self._as_column(smoothing) if any(smoothing) else None
        self._ema_decays: list[float | None] = [run["ema_decay"] for run in settings]
        self._averages = self._make_averages(states)

    def _make_averages(self, states: Sequence[TrainingState]) -> WeightAverages | None:
        """Return the moving averages of the runs; the average of a run without decay equals its weights."""
        if all(decay is None for decay in self._ema_decays):
            return None
        averages = WeightAverages([self.parameters], self._as_column([decay or 0.0 for decay in self._ema_decays]))
        started = to_device(torch.tensor([[bool(state.averages)] for state in states]), self._data.device)  # (S, 1)
        rows = [state.averages or state.tensors for state in states]
        averages.load([self._flat_parameters.pack(rows, self.parameters)], started)
        return averages

    def smoothing_of(self, rows: slice) -> Tensor | None:
        """Return the label smoothing of R runs, shape (R, 1), or None if no run of the stack has any."""
        return None if self._smoothing is None else self._smoothing[rows]

    def rates_at(self, step: int) -> Tensor:
        """Return the learning rates, shape (S, 1), of the update that follows `step` updates."""
        if self._rates is None or not self.schedule.constant:
            self._rates = self._as_column(self.schedule.rates_at(step).tolist())
        return self._rates

    def apply(self, rates: Tensor) -> None:
        """Clip the gradients and update the parameters, with learning rates of shape (S, 1)."""
        if self._clips is not None:
            norms = self.gradients.norm(dim=1, keepdim=True)  # (S, 1)
            self.gradients.mul_((self._clips / (norms + 1e-6)).clamp(max=1))  # as clip_grad_norm_ does
        self.optimizer.step(rates)
        if self._averages is not None:
            self._averages.update()

    def end_step(self) -> None:
        """Step the task's schedulers that are stepped after each update."""
        if isinstance(self.schedule, TaskSchedules):
            self.schedule.end_step()

    def end_epoch(self, index: int, measured: Mapping[str, float]) -> dict[str, float]:
        """Step the task's scheduler of a run after an epoch; see `Stepper.end_epoch`."""
        return self.schedule.end_epoch(index, measured) if isinstance(self.schedule, TaskSchedules) else {}

    def tensors(self) -> list[Tensor]:
        """Return all tensors that an update changes, not copied: (S, P), (S, 1) and the optimizer's."""
        averages = [] if self._averages is None else self._averages.tensors()
        return [self.parameters, *self.optimizer.tensors(), *averages]

    def use_averages(self, averaged: bool) -> None:
        """Put the moving averages, if there are any, in the place of the weights, or the weights back."""
        if self._averages is not None:
            self._averages.use(averaged)

    def using(self, *, averaged: bool) -> AbstractContextManager[None]:
        """Return a context in which the runs have the moving averages of their weights, or the weights."""
        return nullcontext() if self._averages is None else self._averages.using(averaged=averaged)

    def weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one run's parameters by name, in the model's shapes."""
        return self._copy_row(self.parameters, index)

    def state(self, index: int, fixed: Mapping[str, Tensor], *, has_updated: bool) -> TrainingState:
        """Return a copy of the state of one run in the model's shapes, with its `fixed` tensors.

        `has_updated` is False before any step.
        """
        averages: dict[str, Tensor] = {}
        with self.using(averaged=False):
            tensors = {**self.weights(index), **fixed}
            if self._averages is not None and self._ema_decays[index] is not None and has_updated:
                averages = self._copy_row(self._averages.averages[0], index)
        state_dicts = None
        if isinstance(self.schedule, TaskSchedules):
            state_dicts = save_state_dicts({"scheduler": self.schedule.schedulers[index].state()})
        optimizer_state = {name: value.clone() for name, value in self.optimizer.state(index).items()}
        return TrainingState(tensors, optimizer_state, state_dicts=state_dicts, averages=averages)

    def _copy_row(self, rows: Tensor, index: int) -> dict[str, Tensor]:
        """Return a copy of one run's row of (S, P) by parameter name."""
        views = self._flat_parameters.views(rows[index : index + 1])
        return {name: view[0].detach().clone() for name, view in views.items()}

    def _as_column(self, values: Sequence[float]) -> Tensor:
        """Return S numbers as a tensor of shape (S, 1)."""
        return to_device(torch.tensor(values, dtype=self._data.dtype), self._data.device).unsqueeze(1)
