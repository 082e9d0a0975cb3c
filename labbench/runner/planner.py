"""Partition of the runs of a grid into stacks, the runs that train together.

Runs whose tensors have the same shapes can share a stack; parameters such as learning rate and seed then have one
value per run. Any parameter not declared `per_run` separates runs, which is always correct.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, Params, with_defaults
from labbench.records import Command, RunRecord, Runtime, Stack, Stop

EFFICIENT_STACK_WIDTH = 36
"""Stack width above which the cost per run hardly decreases."""
MAX_STACK_WIDTH = 64
"""Maximum number of runs per stack on a CPU; on a GPU, memory limits it in training (`train.grouping.memory`)."""
MAX_STACKS_PER_WORKER = 4
"""Maximum number of stacks per worker; more than one, so that all workers end at about the same time."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """Settings that all stacks of a grid have in common."""

    task: str
    stop: Stop | None = None
    runtime: Runtime = field(default_factory=Runtime)
    files: str | None = None
    """Folder of the database's files."""
    command: Command | None = None
    """Script to start for each run instead of a task; then each stack has one run."""


def plan_stacks(
    runs: Iterable[RunRecord],
    settings: StackSettings,
    *,
    params: Params | None = None,
    workers: int = 1,
    device: str = "cpu",
) -> list[Stack]:
    """Partition the runs into stacks, sorted by decreasing training time.

    Args:
        runs: Runs to train, new or to be resumed.
        settings: Settings of the stacks.
        params: All parameters of the task and the training loop; by default the built-in task's.
        workers: Number of stacks that train in parallel.
        device: Device of each worker.
    """
    declared = params or {**TRAINING, **BUILTIN.get(settings.task, {})}
    groups: dict[Hashable, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(structure(run, declared), []).append(run)
    width = 1 if settings.command else best_width(sum(map(len, groups.values())), workers, device)
    order = _by_optimizer(declared)
    parts = [part for group in groups.values() for part in split_evenly(sorted(group, key=order), width)]
    stacks = [
        make_stack(
            part,
            task=settings.task,
            stop=settings.stop,
            runtime=settings.runtime,
            files=settings.files,
            command=settings.command,
        )
        for part in parts
    ]
    return sorted(stacks, key=lambda stack: -relative_cost(stack, declared))


def structure(run: RunRecord, params: Params) -> Hashable:
    """Return the values that the runs of a stack must share.

    These are the parameters that may change shapes or data, the boundary and, after it, the engine.
    """
    return shared_values(run, params), run.boundary, run.way if run.boundary else None


def shared_values(run: RunRecord, params: Params) -> Hashable:
    """Return the values of the parameters that may change shapes or data."""
    config = with_defaults(run.config, params)
    return tuple((key, repr(config[key])) for key in sorted(config) if not (key in params and params[key].per_run))


def best_width(runs: int, workers: int, device: str = "cpu") -> int:
    """Return the maximum width of a stack.

    Wide stacks are efficient; narrow ones keep all workers busy. Each GPU gets one stack, since a step hardly takes
    longer with more runs.
    """
    if device.startswith("cuda"):
        return max(1, math.ceil(runs / workers))
    pieces = max(1, min(MAX_STACKS_PER_WORKER, runs // (workers * EFFICIENT_STACK_WIDTH)))
    return min(MAX_STACK_WIDTH, max(1, math.ceil(runs / (workers * pieces))))


def split_evenly(runs: Sequence[RunRecord], width: int) -> list[Sequence[RunRecord]]:
    """Split runs into parts of at most `width` runs and of nearly equal size."""
    parts = math.ceil(len(runs) / width)
    edges = [round(index * len(runs) / parts) for index in range(parts + 1)]
    return [runs[start:end] for start, end in pairwise(edges)]


def relative_cost(stack: Stack, params: Params) -> float:
    """Estimate the training time of a stack in arbitrary units.

    The estimate is the number of epochs of all runs, weighted by batch size.
    """
    configs = [with_defaults(run.config, params) for run in stack.runs]
    epochs: float = sum(config.get("epochs", 1) * (1 + 32 / config.get("batch_size", 64)) for config in configs)
    return epochs


def describe_plan(stacks: Sequence[Stack]) -> str:
    """Describe a plan in one line, such as `144 runs in 6 stacks of 24`."""
    widths = sorted({len(stack.runs) for stack in stacks}, reverse=True)
    counts = [(width, sum(len(stack.runs) == width for stack in stacks)) for width in widths]
    parts = [f"{count} stack{'s' * (count > 1)} of {width}" for width, count in counts]
    total = sum(len(stack.runs) for stack in stacks)
    return f"{total} run{'s' * (total != 1)} in {' and '.join(parts)}" if parts else "no runs"


def make_stack(
    runs: Iterable[RunRecord],
    *,
    task: str,
    stop: Stop | None,
    runtime: Runtime,
    files: str | None = None,
    command: Command | None = None,
) -> Stack:
    """Return the stack of these runs.

    Keys with one common value are shared, others have one value per run.
    """
    runs = tuple(runs)
    first = runs[0].config
    shared = {key: value for key, value in first.items() if all(_has(run, key, value) for run in runs)}
    columns = {key: [run.config.get(key) for run in runs] for run in runs for key in run.config if key not in shared}
    return Stack(runs, shared, columns, task, stop, runtime, files, command)


def _by_optimizer(params: Params) -> Any:
    """Return a sort key that puts runs with the same optimizer together, because they share its updates."""
    keys = ["optimizer", "nesterov", "momentum", "beta1", "beta2", "alpha", "eps"]
    keys += sorted(key for key, param in params.items() if param.per_run and key not in TRAINING)  # such as dropout
    keys += ["weight_decay", "lr"]

    def key(run: RunRecord) -> list[str]:
        config = with_defaults(run.config, params)
        return [str(config.get(name)) for name in keys]

    return key


def _has(run: RunRecord, key: str, value: object) -> bool:
    return key in run.config and run.config[key] == value and type(run.config[key]) is type(value)
