"""Limits on the width of stacks, set by the available memory.

On CUDA the limit is computed before the first stack of a structure, from a step that is traced without allocating
memory, or measured if it cannot be traced; on every device the limit is halved when memory runs out. The memory of a
stack grows by the same number of bytes with each run, so two widths give the number of runs that fit. If memory still
runs out, the next attempt has half as many runs. Both limits are stored for the life of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from math import ceil

import torch
from torch import nn

from labbench.errors import is_out_of_memory
from labbench.train.data.dataset import Data
from labbench.train.data.placement import free_bytes
from labbench.train.engine.cuda.cuda_graph import can_capture
from labbench.train.engine.cuda.live_bytes import stack_bytes
from labbench.train.engine.stepper import Workload
from labbench.train.grouping.loop_or_stack import first_batch
from labbench.train.grouping.steppers import make_trial_stepper
from labbench.train.run_state import TrainingRun

META = torch.device("meta")

MAX_STACK_SHARE = 0.9
"""Fraction of the free memory that a stack may use; the allocator loses some to fragmentation."""
PROBE_RUNS = (1, 8)
"""Numbers of runs of the two stacks that are traced or measured."""

_widths: dict[Hashable, int] = {}
"""Maximum width by structure."""


def structure_key(model: nn.Module, workload: Workload) -> Hashable:
    """Return a key for runs that need the same amount of memory.

    The key consists of modules, tensors, shape of a batch, dtype, precision and device.
    """
    modules = tuple(type(module).__qualname__ for module in model.modules())
    tensors = tuple((tuple(tensor.shape), tensor.requires_grad) for tensor in [*model.parameters(), *model.buffers()])
    samples = workload.batch_size, workload.data.shape
    return modules, tensors, samples, workload.data.dtype, workload.precision, str(workload.data.device)


def width_limit(structure: Hashable) -> int | None:
    """Return the maximum width of a stack of the structure.

    Returns None if there is no limit yet.
    """
    return _widths.get(structure)


def limit_width(structure: Hashable, width: int) -> None:
    """Limit later stacks of the structure to `width` runs; a limit never grows."""
    _widths[structure] = min(width, _widths.get(structure, width))


def halve_width_on_oom(error: BaseException, structure: Hashable, width: int) -> None:
    """Halve the limit of the structure after an out-of-memory error.

    `width` is the width of the stack that failed; other errors are ignored.
    """
    if is_out_of_memory(error):
        limit_width(structure, max(1, ceil(width / 2)))


def choose_width(structure: Hashable, runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> int:
    """Return the maximum width of a stack of these runs.

    The models of the runs must have one structure.
    """
    limit, free = width_limit(structure), free_bytes(workload.data.device)
    if limit is None and free is not None and len(runs) > max(PROBE_RUNS):
        try:
            limit = estimate_width(free, lambda width: peak_bytes(runs[:width], models, workload))
            limit_width(structure, limit)
        except Exception:  # a stack may fail for any reason: the check that follows reports it
            return len(runs)
    return min(len(runs), limit or len(runs))


def peak_bytes(runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> int:
    """Return the peak memory of a stack of the runs in bytes: from a trace, or measured if there can be none."""
    if isinstance(workload.data, Data):
        try:
            return trace_peak(runs, models, workload)
        except Exception:  # a user's model or loss may need values, and a trace has none
            pass
    return measure_cuda_peak(workload.data.device, partial(try_step, runs, models, workload))


def trace_peak(runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> int:
    """Return the peak memory of a stack of the runs on a GPU in bytes, without allocating any."""
    assert isinstance(workload.data, Data)
    on_meta = replace(workload, data=workload.data.to(META, workload.data.dtype))
    stack = make_trial_stepper(runs, models, on_meta)
    batch = first_batch([run.config["seed"] for run in runs], on_meta)
    held_out = on_meta.data.sample_validation(workload.evaluation_batch_size)
    return stack_bytes(stack, batch, held_out, captures=can_capture(workload))


def try_step(runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> None:
    """Do one update and one evaluation with copies of the runs.

    The peak memory of a stack is measured during this call.
    """
    stack = make_trial_stepper(runs, models, workload)
    stack.train(True)
    stack.step(first_batch([run.config["seed"] for run in runs], workload))
    stack.train(False)
    stack.evaluate(workload.data.sample_validation(workload.evaluation_batch_size))


def estimate_width(free: int, peak_of: Callable[[int], int]) -> int:
    """Return the number of runs that fit in `free` bytes, at least 1.

    `peak_of` returns the peak memory in bytes of a stack with a given number of runs.
    """
    few, many = PROBE_RUNS
    smaller, larger = peak_of(few), peak_of(many)
    run_bytes = max(1.0, (larger - smaller) / (many - few))
    shared_bytes = max(0.0, smaller - few * run_bytes)
    return max(1, int((MAX_STACK_SHARE * free - shared_bytes) / run_bytes))


def width_upper_bound(free: int, model: nn.Module, dtype: torch.dtype) -> int:
    """Return an upper bound of the runs that fit in `free` bytes.

    The bound counts weights and gradients only, and is at least 1.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return max(1, free // max(1, 2 * trained * dtype.itemsize))


def measure_cuda_peak(device: torch.device, work: Callable[[], object]) -> int:
    """Return the peak memory of `work` on a CUDA device, in bytes.

    Memory that was allocated before is not counted.
    """
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    peak: int = torch.cuda.max_memory_allocated(device) - before
    return peak
