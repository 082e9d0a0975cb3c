"""Train a config in a test and sort the events of its training by run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from labbench.errors import InputError
from labbench.records import Boundary, Event, Failed, Finished, Points, RunRecord, Runtime, Started, Stop
from labbench.runner.planner import make_stack
from labbench.train.active_runs import StopRequests
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


def train_interrupted(
    task: Task, configs: Iterable[dict[str, Any]], files: Path, runtime: Runtime
) -> list[dict[str, dict[int, float]]]:
    """Train runs that are interrupted after two epochs and resumed; return their curves without times."""
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    events: list[Event] = []
    while runs:
        requests = StopRequests()
        stack = make_stack(runs, task="", stop=None, runtime=replace(runtime, snapshot_every=0.0), files=str(files))
        attempt: list[Event] = []
        for event in train(stack, task, "cpu", requests):
            attempt.append(event)
            if isinstance(event, Boundary) and runs[0].attempt == 1:
                requests.request([event.run])
        steps = {event.run: event.step for event in attempt if isinstance(event, Boundary)}
        engines = {event.run: event.way for event in attempt if isinstance(event, Started)}
        ends = {event.run: event.status for event in attempt if isinstance(event, Finished)}
        events += attempt
        runs = [
            replace(run, boundary=steps[run.key], way=engines[run.key], attempt=run.attempt + 1)
            for run in runs
            if ends[run.key] == "queued"
        ]
    by_run = histories(raise_failure(events))
    assert all(history.finished and history.finished.attempt == 2 for history in by_run.values())
    return [without_times(by_run[key]) for key in sorted(by_run, key=int)]


def without_times(history: History) -> dict[str, dict[int, float]]:
    """Return the curves of a run, except of its compute time."""
    return {name: curve for name, curve in history.curves.items() if name != "time/compute_s"}
