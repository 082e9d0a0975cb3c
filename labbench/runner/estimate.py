"""Estimate of a grid's training time from one epoch of its first, middle and last stack."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from labbench.executors.in_process import InProcessExecutor
from labbench.params.param import TRAINING
from labbench.records import EngineNote, Failed, Points, RunRecord, Stack
from labbench.runner.planner import relative_cost


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimate of a grid's training."""

    seconds: float | None
    """Wall time in seconds; None if a sampled stack fails."""
    engine_notes: Mapping[str, int]
    """Number of runs by message about their engine, in the sampled stacks."""


def estimate_training(
    stacks: Sequence[Stack], device: str, *, workers: int, epochs_done: Mapping[str, int] | None = None
) -> Estimate:
    """Estimate the training of the stacks on `workers`, with the start of the workers and the loading of each stack.

    `epochs_done` is the number of epochs after which a run begins, by key; 0 for other runs.
    """
    done = epochs_done or {}
    began = time.monotonic()
    import labbench.train.loop  # noqa: F401 (a worker's start takes as long)

    start_seconds = time.monotonic() - began
    sampled = [stacks[index] for index in sorted({0, len(stacks) // 2, len(stacks) - 1})]
    seconds = sampled_cost = loading = 0.0
    notes: Counter[str] = Counter()
    for stack in sampled:
        began = time.monotonic()
        from_start = replace(stack, runs=tuple(replace(run, boundary=0) for run in stack.runs))
        epoch = epoch_seconds(from_start, device, notes)
        loading += max(0.0, time.monotonic() - began - sum(epoch.values())) / len(sampled)
        seconds += sum(epoch[run.key] * epochs_left(run, done) for run in stack.runs if run.key in epoch)
        sampled_cost += cost_left(stack, done) if epoch else 0.0
    if not sampled_cost:
        return Estimate(None, notes)
    total_cost = sum(cost_left(stack, done) for stack in stacks)
    all_stacks = seconds / sampled_cost * total_cost + loading * len(stacks)
    return Estimate(start_seconds + all_stacks / min(workers, len(stacks)), notes)


def epoch_seconds(stack: Stack, device: str, notes: Counter[str]) -> dict[str, float]:
    """Train one epoch of a stack, and count messages about engines in `notes`.

    Returns an empty dict if a run fails.
    """
    if stack.command is not None:
        return {}
    seconds: dict[str, float] = {}
    for event in InProcessExecutor(device).execute([stack]):
        if isinstance(event, Failed):
            return {}
        if isinstance(event, EngineNote):
            notes.update(event.text.splitlines())
        if isinstance(event, Points) and event.metric == "time/compute_s":
            seconds.setdefault(event.run, event.values[0])
        if len(seconds) == len(stack.runs):
            break
    return seconds


def epochs_left(run: RunRecord, done: Mapping[str, int]) -> float:
    """Return the number of epochs that a run trains, given the number of epochs after which runs begin, by key."""
    return float(run.config.get("epochs", TRAINING["epochs"].default)) - done.get(run.key, 0)


def cost_left(stack: Stack, done: Mapping[str, int]) -> float:
    """Return the relative cost of the epochs that a stack trains."""
    left = sum(epochs_left(run, done) for run in stack.runs)
    return relative_cost(stack, TRAINING) * left / sum(epochs_left(run, {}) for run in stack.runs)
