"""Estimate of a grid's training time from one epoch of its first, middle and last stack."""

from __future__ import annotations

from collections.abc import Sequence

from labbench.executors.attempt import train_with_retries
from labbench.params.param import TRAINING
from labbench.records import Failed, Points, RunRecord, Stack
from labbench.runner.planner import relative_cost
from labbench.train.active_runs import StopRequests


def estimate_seconds(stacks: Sequence[Stack], device: str, *, workers: int) -> float | None:
    """Return the estimated wall time in seconds of the stacks on `workers`.

    Returns None if the sampled stacks fail.
    """
    sampled = [stacks[index] for index in sorted({0, len(stacks) // 2, len(stacks) - 1})]
    seconds = sampled_cost = 0.0
    for stack in sampled:
        epoch = epoch_seconds(stack, device)
        seconds += sum(epoch[run.key] * epochs_left(run) for run in stack.runs if run.key in epoch)
        sampled_cost += relative_cost(stack, TRAINING) if epoch else 0.0
    if not sampled_cost:
        return None
    return seconds / sampled_cost * sum(relative_cost(stack, TRAINING) for stack in stacks) / min(workers, len(stacks))


def epoch_seconds(stack: Stack, device: str) -> dict[str, float]:
    """Train one epoch of a stack; return each run's share of the time in seconds, by key.

    Returns an empty dict if a run fails.
    """
    if stack.command is not None:
        return {}
    seconds: dict[str, float] = {}
    for event in train_with_retries(stack, device, StopRequests()):
        if isinstance(event, Failed):
            return {}
        if isinstance(event, Points) and event.metric == "time/compute_s":
            seconds.setdefault(event.run, event.values[0])
        if len(seconds) == len(stack.runs):
            break
    return seconds


def epochs_left(run: RunRecord) -> float:
    """Return the number of epochs that a run trains."""
    return float(run.config.get("epochs", TRAINING["epochs"].default))
