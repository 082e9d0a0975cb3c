"""A run while it trains: what it has learnt about itself, apart from its tensors."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from labbench.records import Config, RunRecord, Runtime, Started, Stop
from labbench.train.recorder import Recorder
from labbench.train.stepper import State
from labbench.train.stopping import Judge

BEST_BY = Stop("val/loss", "min")
"""What the best weights are judged by where the grid has no `[stop]`."""


@dataclass
class Best:
    """The weights of a run when it was at its best."""

    by: Stop
    value: float = math.nan
    step: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def better(self, measured: Mapping[str, float]) -> bool:
        """Whether the run has never been as good as it now is; NaN is never better."""
        value, sign = measured.get(self.by.metric, math.nan), 1 if self.by.goal == "max" else -1
        return sign * value > sign * self.value or (math.isnan(self.value) and not math.isnan(value))


class Member:
    """One run of a stack."""

    def __init__(self, run: RunRecord, config: Config, stop: Stop | None, runtime: Runtime) -> None:
        """`config` has every parameter."""
        self.run, self.config, self.runtime = run, config, runtime
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
        self.recorder: Recorder

    def started(self, device: str, way: str) -> Started:
        """Tell that it trains, in that way."""
        self.way_told = way
        return Started(self.run.key, self.run.attempt, socket.gethostname(), os.getpid(), device, way)

    def begin(self, steps_per_epoch: int) -> None:
        """Get ready to record a training of that length."""
        self.recorder = Recorder(self.run, self.runtime.log_every, self.epochs * steps_per_epoch)

    def verdict(self, measured: Mapping[str, float]) -> str | None:
        """Why the run has finished, by what its last epoch measured; None where it goes on or has diverged."""
        if not measured:
            return None
        return self.judge.verdict(measured) or ("all epochs" if self.epoch == self.epochs else None)
