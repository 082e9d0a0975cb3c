"""Train a config in a test and sort the events of its training by run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from labbench.errors import InputError
from labbench.records import Event, Failed, Finished, Points, RunRecord, Runtime, Started, Stop
from labbench.runner.planner import make_stack
from labbench.train.loop import train
from labbench.train.tasks.task import Task, load_task

torch.set_num_threads(1)  # the steps are too small to share, and the cores may be busy

CPU = torch.device("cpu")


def run_of(config: dict[str, Any], key: str = "run00000") -> RunRecord:
    return RunRecord(1, key, "a run", "an experiment", "running", config)


@dataclass
class History:
    """Events of one run."""

    started: Started | None = None
    finished: Finished | None = None
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    """By metric: value by step, in the order of logging."""

    def last(self, metric: str) -> float:
        return list(self.curves[metric].values())[-1]


def histories(events: Iterable[Event]) -> dict[str, History]:
    """Sort events by run; assert that no step of a metric is logged twice."""
    result: dict[str, History] = {}
    for event in events:
        history = result.setdefault(event.run, History())
        if isinstance(event, Started):
            history.started = event
        elif isinstance(event, Finished):
            history.finished = event
        elif isinstance(event, Points):
            assert len(event.steps) == len(event.times) == len(event.values)
            curve = history.curves.setdefault(event.metric, {})
            assert not curve.keys() & set(event.steps)
            curve.update(zip(event.steps, event.values, strict=True))
    return result


def raise_failure(events: Iterable[Event]) -> list[Event]:
    """Return the events; raise InputError with the message of the first run that failed."""
    result = list(events)
    for event in result:
        if isinstance(event, Failed):
            raise InputError(event.message)
    return result


def train_run(
    config: dict[str, Any],
    *,
    task: Task | None = None,
    stop: Stop | None = None,
    runtime: Runtime | None = None,
) -> History:
    """Train one run of the config on the CPU, on the digits task by default."""
    stack = make_stack([run_of(config)], task="digits", stop=stop, runtime=runtime or Runtime())
    return histories(train(stack, task or load_task("digits"), "cpu"))["run00000"]
