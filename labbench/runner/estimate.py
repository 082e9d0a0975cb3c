"""Estimates of a grid's training time: from one epoch of three stacks before the start, then from its progress.

`estimate_training` trains the first, middle and last stack as `labbench run` does, in the same processes and as many at
the same time, so that their start, the loading of data and the competition for the cores count too.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import psutil

from labbench.executors import Executor
from labbench.params.param import TRAINING
from labbench.records import EngineNote, Event, Failed, Finished, Points, RunRecord, Stack, Started
from labbench.runner.planner import make_stack, relative_cost

MAX_SECONDS = 20.0
"""Time after which the measurement ends, once a run has been measured."""
MIN_SECONDS, MIN_SHARE = 5.0, 0.02
"""Seconds and share of the work after which `TimeLeft` gives an estimate."""
MAX_WAIT_SECONDS = 60.0
"""Seconds after which `TimeLeft` gives an estimate from any share."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimate of a grid's training."""

    seconds: float | None
    """Wall time in seconds; None if a sampled stack fails."""
    engine_notes: Mapping[str, int]
    """Number of runs by message about their engine, in the sampled stacks."""
    failures: Sequence[Failed] = ()
    """Failures of runs of the sampled stacks."""


def estimate_training(
    stacks: Sequence[Stack],
    executor: Executor,
    *,
    epochs_done: Mapping[str, int] | None = None,
    stages: Sequence[tuple[float, int]] = (),
) -> Estimate:
    """Estimate the time of `labbench run` for these stacks with this executor, from the start of the process on.

    `epochs_done` is the number of epochs after which a run begins, by key; 0 for other runs. A search trains only the
    runs of its `stages`, one stage after another: pairs of a number of runs and their epochs.
    """
    done, preparation = epochs_done or {}, time.time() - psutil.Process().create_time()
    sampled = [stacks[index] for index in sorted({0, len(stacks) // 2, len(stacks) - 1})]
    measured = Measurement()
    if all(stack.command is None for stack in sampled):
        measured.measure([_first_epoch(stack) for stack in sampled], executor)
    timings = [timing for stack in sampled if (timing := measured.stack_timing(stack, [run.key for run in stack.runs]))]
    if not timings:
        return Estimate(None, measured.engine_notes, measured.failures)
    loading = sum(timing.loading for timing in timings) / len(timings)
    rate = sum(timing.run_epoch * sum(epochs_left(run, done) for run in timing.stack.runs) for timing in timings) / sum(
        cost_left(timing.stack, done) for timing in timings
    )
    costs, workers = [rate * cost_left(stack, done) for stack in stacks], executor.capacity()
    if stages:
        run_epoch = sum(costs) / sum(epochs_left(run, done) for stack in stacks for run in stack.runs)
        width = sum(len(stack.runs) for stack in stacks) / len(stacks)
        training = sum(_stage_seconds(runs, epochs * run_epoch, loading, width, workers) for runs, epochs in stages)
    else:
        training = schedule_length([loading + cost for cost in costs], workers)
    return Estimate(preparation + measured.start_seconds + training, measured.engine_notes, measured.failures)


@dataclass(frozen=True, slots=True)
class StackTiming:
    """Times of one epoch of a stack, in seconds."""

    stack: Stack
    run_epoch: float
    """Mean time of one epoch of one run: its share of the epoch of the stack."""
    loading: float
    """Time besides the epochs: data, checks, and the evaluation at the end."""


@dataclass
class Measurement:
    """Times of the events of a training."""

    start_seconds: float = 0.0
    """Time from the first stack to the first event: the start of the processes."""
    _engine_notes: dict[str, list[str]] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)
    _ended: dict[str, float] = field(default_factory=dict)
    _epochs: dict[str, float] = field(default_factory=dict)
    _failed: dict[str, Failed] = field(default_factory=dict)

    @property
    def engine_notes(self) -> Mapping[str, int]:
        """Number of runs by message about their engine, without the failed ones."""
        return Counter(note for run, notes in self._engine_notes.items() if run not in self._failed for note in notes)

    @property
    def failures(self) -> list[Failed]:
        return list(self._failed.values())

    def measure(self, stacks: Sequence[Stack], executor: Executor) -> None:
        """Train the stacks and record the times of their events.

        The training ends after `MAX_SECONDS` if a run has been measured.
        """
        start = time.monotonic()
        for event in executor.execute(stacks):
            if event is not None:
                self._take(event, time.monotonic() - start)
            if self._epochs and time.monotonic() - start > MAX_SECONDS:
                break

    def _take(self, event: Event, seconds: float) -> None:
        match event:
            case Started(run=run):
                self.start_seconds = self.start_seconds or seconds
                self._began.setdefault(run, seconds)
            case EngineNote(run=run, text=text):
                self._engine_notes.setdefault(run, []).extend(text.splitlines())
            case Points(run=run, metric="time/compute_s", values=values):
                self._epochs.setdefault(run, values[0])
            case Finished(run=run):
                self._ended[run] = seconds
            case Failed(run=run):
                self._failed[run] = event

    def stack_timing(self, stack: Stack, runs: Sequence[str]) -> StackTiming | None:
        """Return the times of a stack with these runs; None if a run has failed or none has been measured."""
        epochs = [self._epochs[run] for run in runs if run in self._epochs]
        if not epochs or not self._failed.keys().isdisjoint(runs):
            return None
        ends = [self._ended[run] for run in runs if run in self._ended]
        wall = max(ends) - min(self._began[run] for run in runs if run in self._began) if ends else sum(epochs)
        return StackTiming(stack, sum(epochs) / len(epochs), max(0.0, wall - sum(epochs)))


def _first_epoch(stack: Stack) -> Stack:
    """Return the stack with runs of one epoch from the start."""
    runs = [replace(run, boundary=0, config={**run.config, "epochs": 1}) for run in stack.runs]
    return make_stack(runs, task=stack.task, stop=stack.stop, runtime=replace(stack.runtime, keep="none"))


def schedule_length(seconds: Sequence[float], workers: int) -> float:
    """Return the time in which workers train stacks of these durations, each taking the next one when it is free."""
    free = [0.0] * max(1, workers)
    for duration in seconds:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def _stage_seconds(runs: float, run_seconds: float, loading: float, width: float, workers: int) -> float:
    """Return the time of a stage of a search, whose runs train in stacks of `width`, or one for each worker."""
    count = max(min(workers, math.ceil(runs)), math.ceil(runs / width))
    return schedule_length([loading + run_seconds * runs / count] * count, workers)


def epochs_left(run: RunRecord, done: Mapping[str, int]) -> float:
    """Return the number of epochs that a run trains, given the number of epochs after which runs begin, by key."""
    return float(run.config.get("epochs", TRAINING["epochs"].default)) - done.get(run.key, 0)


def cost_left(stack: Stack, done: Mapping[str, int]) -> float:
    """Return the relative cost of the epochs that a stack trains."""
    left = sum(epochs_left(run, done) for run in stack.runs)
    return relative_cost(stack, TRAINING) * left / sum(epochs_left(run, {}) for run in stack.runs)


class TimeLeft:
    """Estimate of the time left; the start of the processes, before the first progress, does not count."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        """Time and share of the first progress."""

    def estimate(self, now: float, share: float) -> float | None:
        """Return the seconds left, given the completed share of the work; None before an estimate means something."""
        if share and self._began is None:
            self._began = now, share
        if self._began is None or share >= 1:
            return None
        seconds, gain = now - self._began[0], share - self._began[1]
        is_reliable = (seconds >= MIN_SECONDS and gain >= MIN_SHARE) or seconds >= MAX_WAIT_SECONDS
        return seconds * (1 - share) / gain if is_reliable and gain > 0 else None
