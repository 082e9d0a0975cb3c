"""Which runs train together: a plan is a partition of the runs into stacks.

Runs whose tensors have the same shapes can share a stack; learning rates, seeds and the like are then one value a run.
Whatever is not known to be harmless separates, which is always right.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, Params, with_defaults
from labbench.records import Command, RunRecord, Runtime, Stack, Stop

TARGET_STACKS_PER_WORKER = 36
"""Runs in a stack from which on another one hardly makes it cheaper for each."""
MAX_STACK_WIDTH = 64
"""Runs in a stack at the most; not on a GPU, where memory alone decides, once the stack is there (`train.memory`)."""
PIECES = 4
"""Stacks for each worker at the most, where they can be wide enough: so that all workers end at about one time."""


def plan_stacks(
    runs: Iterable[RunRecord],
    *,
    task: str,
    stop: Stop | None = None,
    runtime: Runtime | None = None,
    files: str | None = None,
    params: Params | None = None,
    workers: int = 1,
    device: str = "cpu",
    command: Command | None = None,
) -> list[Stack]:
    """Every run in exactly one stack, those that take longest first.

    `params` are all that the task understands, by default those of the built-in one; `workers` is how many stacks train
    at a time, each on a device of that kind.
    """
    known = params or {**TRAINING, **BUILTIN.get(task, {})}
    alike: dict[Hashable, list[RunRecord]] = {}
    for run in runs:
        alike.setdefault(structure(run, known), []).append(run)
    width = 1 if command else best_width(sum(map(len, alike.values())), workers, device)
    parts = [part for group in alike.values() for part in split_evenly(sorted(group, key=_by_optimizer(known)), width)]
    common: dict[str, Any] = {"task": task, "stop": stop, "runtime": runtime or Runtime(), "files": files}
    stacks = [make_stack(part, **common, command=command) for part in parts]
    return sorted(stacks, key=lambda stack: -relative_cost(stack, known))


def structure(run: RunRecord, params: Params) -> Hashable:
    """What two runs must have in common to train together: all that may change shapes or data, and where they go on."""
    config = with_defaults(run.config, params)
    fixed = tuple((key, repr(config[key])) for key in sorted(config) if not (key in params and params[key].per_run))
    return fixed, run.boundary, run.way if run.boundary else None


def best_width(runs: int, workers: int, device: str = "cpu") -> int:
    """How many runs a stack takes at the most, for so many workers to be busy to the end with wide stacks.

    A GPU's step takes hardly longer for more runs: one stack for each GPU.
    """
    if device.startswith("cuda"):
        return max(1, math.ceil(runs / workers))
    pieces = max(1, min(PIECES, runs // (workers * TARGET_STACKS_PER_WORKER)))
    return min(MAX_STACK_WIDTH, max(1, math.ceil(runs / (workers * pieces))))


def split_evenly(runs: Sequence[RunRecord], width: int) -> list[Sequence[RunRecord]]:
    """Parts of at most `width` runs, as equal as can be."""
    parts = math.ceil(len(runs) / width)
    edges = [round(index * len(runs) / parts) for index in range(parts + 1)]
    return [runs[start:end] for start, end in pairwise(edges)]


def relative_cost(stack: Stack, params: Params) -> float:
    """How long it may take, in no unit: epochs of all runs, dearer in small batches."""
    configs = [with_defaults(run.config, params) for run in stack.runs]
    epochs: float = sum(config.get("epochs", 1) * (1 + 32 / config.get("batch_size", 64)) for config in configs)
    return epochs


def describe_plan(stacks: Sequence[Stack]) -> str:
    """The plan in a line, as people want it before a long training: `144 runs in 6 stacks of 24`."""
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
    """The stack of these runs: keys on which all agree are shared, the others become one value a run."""
    members = tuple(runs)
    first = members[0].config
    shared = {key: value for key, value in first.items() if all(_has(run, key, value) for run in members)}
    columns = {
        key: [run.config.get(key) for run in members] for run in members for key in run.config if key not in shared
    }
    return Stack(members, shared, columns, task, stop, runtime, files, command)


def _by_optimizer(params: Params) -> Any:
    """A sort key that brings runs of one optimizer together: their updates are made by one."""
    keys = ["optimizer", "nesterov", "momentum", "beta1", "beta2", "alpha", "eps"]
    keys += sorted(key for key, param in params.items() if param.per_run and key not in TRAINING)  # such as dropout
    keys += ["weight_decay", "lr"]

    def key(run: RunRecord) -> list[str]:
        config = with_defaults(run.config, params)
        return [str(config.get(name)) for name in keys]

    return key


def _has(run: RunRecord, key: str, value: object) -> bool:
    return key in run.config and run.config[key] == value and type(run.config[key]) is type(value)
