"""Limits on the width of stacks, set by the available memory.

On CUDA the limit is measured before the first stack of a structure; on every device it is halved when memory runs out.
The memory of a stack grows by the same number of bytes with each run, so two measurements give the number of runs that
fit. If memory still runs out, the next attempt has half as many runs. Both limits are stored for the life of the
process.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import ceil

import torch
from torch import nn

from labbench.errors import is_out_of_memory
from labbench.train.engine.stepper import Workload

MAX_STACK_SHARE = 0.9
"""Fraction of the free memory that a stack may use; the allocator loses some to fragmentation."""
PROBE_RUNS = (1, 8)
"""Numbers of runs of the two stacks that are measured."""

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


def estimate_width(free: int, peak_of: Callable[[int], int]) -> int:
    """Return the number of runs that fit in `free` bytes, at least 1.

    `peak_of` measures the peak memory in bytes of a stack with a given number of runs.
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
