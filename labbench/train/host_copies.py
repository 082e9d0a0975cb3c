"""Copies between host and device; copies to the host are the only points at which training waits for the device.

A GPU computes while the host prepares the next steps; each wait leaves one of the two idle. An ordinary copy to the
device waits, too, until all steps before it are computed; `to_device` does not.
`engine/cuda/device_check.py` checks that nothing else waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class SyncPoint(Enum):
    """Points at which the host waits, each with the reason."""

    FLUSH = "the training losses of all runs since the last flush, in one copy; a diverged stack ends early"
    MEANS = "the means of an epoch's metrics of all runs, in one copy; they decide which runs stop"
    PROBE = "gradient norms and dead units of a watched run, in one copy per epoch"
    PORTRAIT = "histograms and pictures of a watched run, in epochs that are powers of two and at its end"
    TASK_METRICS = "metrics of a whole split, computed by the code of the task"
    FILE = "tensors written to a checkpoint, or to the model kept at the end of a run"
    ATTRIBUTES = "tensors that modules of the task keep outside parameters and buffers, for a checkpoint"
    SETUP = "before the first step: a few samples, to check the stack, and the optimizer of a resumed run"


_current: ContextVar[SyncPoint | None] = ContextVar("sync_point", default=None)


@contextmanager
def sync_point(point: SyncPoint) -> Iterator[None]:
    """Allow the host to wait for the device inside the block, and to compute with tensors on the host."""
    token = _current.set(point)
    try:
        yield
    finally:
        _current.reset(token)


def current_sync_point() -> SyncPoint | None:
    """Return the innermost sync point, None outside of any."""
    return _current.get()


def to_host(tensor: Tensor, point: SyncPoint) -> NDArray[Any]:
    """Return a tensor of any shape as an array on the host, in one copy."""
    with sync_point(point):
        array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of any shape on a device; the host does not wait until it is copied.

    The copy to CUDA is from pinned memory, which torch reuses only after the copy.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")  # Metal may read the memory after its reuse
