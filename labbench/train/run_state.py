"""State of one run in training: progress, measured points, best weights, checkpoints."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from labbench.records import ALL_EPOCHS, AT_RUNG, Boundary, Config, RunRecord, Runtime, Started, Stop
from labbench.system.hardware import read_hardware
from labbench.train import checkpoints
from labbench.train.active_runs import StopRequests
from labbench.train.checkpoint_header import describe_variable
from labbench.train.early_stopping import EarlyStopping
from labbench.train.engine.module_state import Attributes
from labbench.train.engine.stepper import TrainingState
from labbench.train.metric_buffer import MetricBuffer

DEFAULT_CRITERION = Stop("val/loss", "min")
"""Criterion of the best weights if the grid has no `[stop]`; without validation data it is `train/loss`."""


class BestWeights:
    """Best weights of a run by a criterion, for `keep = "best"`."""

    def __init__(self, criterion: Stop) -> None:
        self.criterion = criterion
        self.value = math.nan
        self.step = 0
        self.weights: Mapping[str, Tensor] = {}

    def is_new_best(self, measured: Mapping[str, float]) -> bool:
        """Return True if `measured` is a new best (NaN never is)."""
        if self.criterion is DEFAULT_CRITERION and measured and "val/loss" not in measured:
            self.criterion = Stop("train/loss", "min")
        value, sign = measured.get(self.criterion.metric, math.nan), 1 if self.criterion.goal == "max" else -1
        return sign * value > sign * self.value or (math.isnan(self.value) and not math.isnan(value))

    def update(self, measured: Mapping[str, float], step: int, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights (tensors of any shape, by name) as the best so far."""
        self.value, self.step, self.weights = measured[self.criterion.metric], step, weights


class TrainingRun:
    """Training state of one run of a stack."""

    def __init__(
        self, record: RunRecord, config: Config, stop: Stop | None, runtime: Runtime, pause_after: int | None = None
    ) -> None:
        """`config` has a value for every parameter, defaults included; the stack defines `pause_after`."""
        self.record, self.config, self.pause_after = record, config, pause_after
        self.epochs: int = config["epochs"]
        self.precision = runtime.precision
        self.epoch = 0
        """Number of finished epochs."""
        self.compute_seconds = 0.0
        """Compute time in seconds: the run's share of the compute time of its stacks."""
        self.previous_milliseconds = 0
        """Training time in milliseconds before this stack began."""
        self.early_stopping = EarlyStopping(stop)
        self.best = BestWeights(stop or DEFAULT_CRITERION) if runtime.keep == "best" else None
        self.resume_state: TrainingState | None = None
        """State from a checkpoint, which replaces the initial state of a new model."""
        self.kept_step: int | None = None
        """Step of the checkpoint that is kept after the end of the run."""
        self.engine: str | None = record.way if record.boundary else None
        """Engine that trained the run before it was interrupted."""
        self.reported_engine: str | None = None
        """Engine in the last Started event."""
        self.note: str | None = None
        """Log line about the initial weights, if their origin may be unexpected."""
        self.has_warned = False
        """True after the warning about state that no checkpoint can hold."""
        self.metric_buffer = MetricBuffer(record, runtime.log_every)

    def started_event(self, device: str, engine: str) -> Started:
        """Record the engine and return the run's `Started` event."""
        self.reported_engine = engine
        host, hardware = socket.gethostname(), read_hardware(device)
        return Started(self.record.key, self.record.attempt, host, os.getpid(), device, engine, hardware)

    def reason_to_stop(self, measured: Mapping[str, float]) -> str | None:
        """Return the reason why the run has finished.

        Returns None if it continues or has diverged; nothing is measured for a diverged run.

        Raises:
            InputError: If the metric of `[stop]` is not among the values.
        """
        if not measured:
            return None
        return self.early_stopping.reason_to_stop(measured) or (ALL_EPOCHS if self.epoch == self.epochs else None)

    def reason_to_leave(self, stop_requests: StopRequests) -> str | None:
        """Return the reason why the run returns to the queue at the end of this epoch; None if it continues."""
        if stop_requests.is_requested(self.record.key):
            return "interrupted"
        return AT_RUNG if self.pause_after is not None and self.epoch >= self.pause_after else None

    def save(self, files: Path, state: TrainingState, milliseconds: int) -> Boundary:
        """Write a checkpoint; all points must have been drained."""
        best = self.best.weights if self.best is not None else {}
        tensors = {
            **{f"model/{name}": tensor for name, tensor in state.tensors.items()},
            **{f"optimizer/{name}": tensor for name, tensor in state.optimizer_state.items()},
            **{f"best/{name}": tensor for name, tensor in best.items()},
            **{f"attributes/{name}": tensor for name, tensor in state.attributes.tensors.items()},
            **({} if state.state_dicts is None else {"state_dicts": state.state_dicts}),
            **{f"averages/{name}": tensor for name, tensor in state.averages.items()},
        }
        metadata = {
            "epoch": self.epoch,
            "compute": self.compute_seconds,
            "milliseconds": self.previous_milliseconds + milliseconds,
            "judge": self.early_stopping.state(),
            "recorder": self.metric_buffer.state(),
            "attributes": state.attributes.trees,
            "lost": list(state.attributes.lost),
            "precision": self.precision,
            "best": None if self.best is None else {"value": self.best.value, "step": self.best.step},
        }
        checkpoints.save_checkpoint(files, self.record, self.metric_buffer.step, tensors, metadata)
        return Boundary(self.record.key, self.record.attempt, self.metric_buffer.step)

    def unsaved_state_warning(self, attributes: Attributes) -> str | None:
        """Return a warning that names the state that no checkpoint can hold.

        Returns None if there is no such state, or if the warning was returned before.
        """
        if self.has_warned or not attributes.lost:
            return None
        self.has_warned = True
        names = ", ".join(map(describe_variable, attributes.lost))
        return (
            f"{names} changed in training and cannot be saved in a checkpoint: if the run is interrupted, it resumes "
            "with a new value (numbers, strings, lists, dicts, tensors, arrays and generators can be saved)"
        )

    def resume(self, files: Path, device: torch.device) -> None:
        """Restore the state at the run's boundary.

        Raises:
            LabbenchError: If the checkpoint is missing or damaged.
        """
        tensors, metadata = checkpoints.load_checkpoint(files, self.record, device)
        attributes = Attributes(metadata.get("attributes", {}), _select_prefix("attributes/", tensors))
        self.resume_state = TrainingState(
            _select_prefix("model/", tensors),
            _select_prefix("optimizer/", tensors),
            attributes,
            tensors.get("state_dicts"),
            _select_prefix("averages/", tensors),
        )
        self.epoch, self.compute_seconds, self.previous_milliseconds = (
            metadata["epoch"],
            metadata["compute"],
            metadata["milliseconds"],
        )
        self.early_stopping.load(metadata["judge"])
        self.metric_buffer.load(metadata["recorder"])
        if self.best is not None and metadata["best"] is not None:
            self.best.value, self.best.step = metadata["best"]["value"], metadata["best"]["step"]
            self.best.weights = _select_prefix("best/", tensors)


def _select_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
