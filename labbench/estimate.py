"""How long a grid may take: the first epoch of a few of its stacks, really trained, and the rest reckoned from it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from labbench.executors.attempt import attempt
from labbench.params import TRAINING
from labbench.records import Failed, Points, RunRecord, Stack

SAMPLES = 3
"""Stacks of which an epoch is trained: the first, the last and one between."""


def estimate_seconds(stacks: Sequence[Stack], device: str, *, workers: int) -> float | None:
    """Seconds of wall time for the stacks on so many workers; None where the samples do not train."""
    middle_too = sorted({0, len(stacks) // 2, len(stacks) - 1})[:SAMPLES]
    timed = [seconds for index in middle_too for seconds in epoch_seconds(stacks[index], device)]
    if not timed:
        return None
    epochs = sum(epochs_of(run) for stack in stacks for run in stack.runs)
    return fmean(timed) * epochs / min(workers, len(stacks))


def epoch_seconds(stack: Stack, device: str) -> list[float]:
    """What the first epoch of each run takes: its own share of the stack's time. Empty where one fails."""
    if stack.command is not None:
        return []
    seconds: dict[str, float] = {}
    for event in attempt(stack, device, frozenset()):
        if isinstance(event, Failed):
            return []
        if isinstance(event, Points) and event.metric == "time/compute_s":
            seconds.setdefault(event.run, event.values[0])
        if len(seconds) == len(stack.runs):
            break
    return list(seconds.values())


def epochs_of(run: RunRecord) -> float:
    return float(run.config.get("epochs", TRAINING["epochs"].default))
