"""How many runs of a stack fit in memory: measured on CUDA before the first stack of a structure, learnt from failures.

What a stack takes grows by the same bytes with each run, so two sizes tell how many runs there is room for. Where
memory runs out all the same, half as many are tried the next time. Both are remembered while the process lives.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import ceil

import torch
from torch import nn

from labbench.errors import is_out_of_memory
from labbench.train.engine.stepper import Workload

MAX_STACK_SHARE = 0.9
"""Of the free memory for a stack; an allocator keeps some between its blocks."""
PROBE_RUNS = (1, 8)
"""Runs in the two stacks that are measured."""

_widths: dict[Hashable, int] = {}


def structure_key(model: nn.Module, workload: Workload) -> Hashable:
    """What the memory of a run depends on: its modules and tensors, the samples of a batch, types and device."""
    modules = tuple(type(module).__qualname__ for module in model.modules())
    tensors = tuple((tuple(tensor.shape), tensor.requires_grad) for tensor in [*model.parameters(), *model.buffers()])
    samples = workload.batch_size, tuple(workload.data.shape)
    return modules, tensors, samples, workload.data.dtype, workload.precision, str(workload.data.device)


def width_limit(structure: Hashable) -> int | None:
    """The most runs of the structure that may be tried at a time; None where nothing is known."""
    return _widths.get(structure)


def limit_width(structure: Hashable, width: int) -> None:
    """From now on at most `width` runs of the structure at a time."""
    _widths[structure] = min(width, _widths.get(structure, width))


def halve_width_on_oom(error: Exception, structure: Hashable, width: int) -> None:
    """If memory ran out with so many runs: half as many the next time."""
    if is_out_of_memory(error):
        limit_width(structure, max(1, ceil(width / 2)))


def estimate_width(free: int, peak_of: Callable[[int], int]) -> int:
    """How many runs fit in `free` bytes, at least 1, by what stacks of `PROBE_RUNS` runs take at their peak."""
    few, many = PROBE_RUNS
    smaller, larger = peak_of(few), peak_of(many)
    a_run = max(1.0, (larger - smaller) / (many - few))
    common = max(0.0, smaller - few * a_run)
    return max(1, int((MAX_STACK_SHARE * free - common) / a_run))


def width_upper_bound(free: int, model: nn.Module, dtype: torch.dtype) -> int:
    """How many runs of such a model can fit in `free` bytes at the very most: each has its weights and gradients."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return max(1, free // max(1, 2 * trained * dtype.itemsize))


def measure_cuda_peak(device: torch.device, work: Callable[[], object]) -> int:
    """The bytes that the work takes at its peak above what was taken before."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    peak: int = torch.cuda.max_memory_allocated(device) - before
    return peak
