"""The state of one run while it trains: metrics, best weights, early stopping."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from labbench.errors import InputError
from labbench.records import Boundary, Config, RunRecord, Runtime, Started, Stop
from labbench.train import checkpoints
from labbench.train.engine.module_state import Attributes
from labbench.train.engine.stepper import State
from labbench.train.metric_buffer import Recorder

BEST_BY = Stop("val/loss", "min")
"""What the best weights are judged by where the grid has no `[stop]`."""


class Best:
    """The weights of a run when it was at its best, for `keep = "best"`."""

    def __init__(self, by: Stop) -> None:
        self.by = by
        self.value = math.nan
        self.step = 0
        self.weights: Mapping[str, Tensor] = {}

    def is_beaten(self, measured: Mapping[str, float]) -> bool:
        """Whether the run has never been as good as it now is; NaN is never better."""
        value, sign = measured.get(self.by.metric, math.nan), 1 if self.by.goal == "max" else -1
        return sign * value > sign * self.value or (math.isnan(self.value) and not math.isnan(value))

    def take(self, measured: Mapping[str, float], step: int, weights: Mapping[str, Tensor]) -> None:
        self.value, self.step, self.weights = measured[self.by.metric], step, weights


class Member:
    """One run of a stack."""

    def __init__(self, run: RunRecord, config: Config, stop: Stop | None, runtime: Runtime) -> None:
        """`config` has every parameter."""
        self.run, self.config = run, config
        self.epochs: int = config["epochs"]
        self.epoch = 0
        """Epochs done."""
        self.compute = 0.0
        """Seconds of computing: its share of those of its stacks."""
        self.milliseconds = 0
        """How long it trained before this stack began."""
        self.judge = Judge(stop)
        self.best = Best(stop or BEST_BY) if runtime.keep == "best" else None
        self.resumed: State | None = None
        """The tensors with which it goes on, in place of those of a new model."""
        self.way: str | None = run.way if run.boundary else None
        """The way in which it was stepped before."""
        self.way_told: str | None = None
        """The way that the world was told of."""
        self.note: str | None = None
        """What its first weights are, where that may surprise."""
        self.warned = False
        """Whether it was said what is lost on resume."""
        self.recorder = Recorder(run, runtime.log_every)

    def started(self, device: str, way: str) -> Started:
        """Tell that it trains, in that way."""
        self.way_told = way
        return Started(self.run.key, self.run.attempt, socket.gethostname(), os.getpid(), device, way)

    def verdict(self, measured: Mapping[str, float]) -> str | None:
        """Why the run has finished, by what its last epoch measured; None where it goes on or has diverged."""
        if not measured:
            return None
        return self.judge.verdict(measured) or ("all epochs" if self.epoch == self.epochs else None)

    def save(self, files: Path, state: State, milliseconds: int) -> Boundary:
        """Write a snapshot of an epoch's end, when all points were handed over."""
        best = self.best.weights if self.best is not None else {}
        tensors = {
            **{f"model/{name}": tensor for name, tensor in state.tensors.items()},
            **{f"optimizer/{name}": tensor for name, tensor in state.memory.items()},
            **{f"best/{name}": tensor for name, tensor in best.items()},
            **{f"attributes/{name}": tensor for name, tensor in state.attributes.tensors.items()},
        }
        told = {
            "epoch": self.epoch,
            "compute": self.compute,
            "milliseconds": self.milliseconds + milliseconds,
            "judge": self.judge.state(),
            "recorder": self.recorder.state(),
            "attributes": state.attributes.trees,
            "best": None if self.best is None else {"value": self.best.value, "step": self.best.step},
        }
        checkpoints.save(files, self.run, self.recorder.step, tensors, told)
        return Boundary(self.run.key, self.run.attempt, self.recorder.step)

    def loss_of(self, attributes: Attributes) -> str | None:
        """Return the sentence that names the state which no snapshot can hold, once; None where all is saved."""
        if self.warned or not attributes.lost:
            return None
        self.warned = True
        names = ", ".join(f"self.{path}" for path in attributes.lost)
        return (
            f"{names} changed in training and cannot be saved: if the run is interrupted, it resumes with a new value "
            "(numbers, strings, lists, dicts, tensors, arrays and generators can be saved)"
        )

    def resume(self, files: Path, device: torch.device) -> None:
        """Go on from the run's boundary. Raises LabbenchError where its snapshot cannot be read."""
        tensors, told = checkpoints.load(files, self.run, device)
        attributes = Attributes(told.get("attributes", {}), _under("attributes/", tensors))
        self.resumed = State(_under("model/", tensors), _under("optimizer/", tensors), attributes)
        self.epoch, self.compute, self.milliseconds = told["epoch"], told["compute"], told["milliseconds"]
        self.judge.load(told["judge"])
        self.recorder.load(told["recorder"])
        if self.best is not None and told["best"] is not None:
            self.best.value, self.best.step = told["best"]["value"], told["best"]["step"]
            self.best.weights = _under("best/", tensors)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Judge:
    """Asked at each epoch's end whether the run goes on."""

    def __init__(self, stop: Stop | None) -> None:
        self.stop = stop
        self._best = -math.inf
        self._epochs_without_better = 0

    def state(self) -> dict[str, float]:
        """What a resumed run has to know."""
        return {"best": self._best, "epochs_without_better": self._epochs_without_better}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from there."""
        self._best, self._epochs_without_better = state["best"], int(state["epochs_without_better"])

    def verdict(self, measured: Mapping[str, float]) -> str | None:
        """The reason to end now, or None. NaN is never better. Raises InputError where the metric was not measured."""
        if self.stop is None:
            return None
        if self.stop.metric not in measured:
            known = ", ".join(sorted(measured))
            raise InputError(
                f"[stop] metric = {self.stop.metric!r} is not measured at an epoch's end; use one of {known}"
            )
        sign = 1 if self.stop.goal == "max" else -1
        value = sign * measured[self.stop.metric]  # the larger, the better
        if self.stop.target is not None and value >= sign * self.stop.target:
            return "target reached"
        if value > self._best + self.stop.min_delta:
            self._best, self._epochs_without_better = value, 0
        else:
            self._epochs_without_better += 1
        if self.stop.patience is not None and self._epochs_without_better >= self.stop.patience:
            return "early stop"
        return None
