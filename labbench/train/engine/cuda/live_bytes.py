"""Peak memory of a step, from a trace of the tensors that it allocates and releases.

On the device `meta` a trace takes milliseconds and no memory, so that the width of a stack can be chosen before its
first step on a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from labbench.train.data.dataset import Split
from labbench.train.engine.cuda.device_check import iter_tensors
from labbench.train.engine.stacked import StackedStepper

ALLOCATION_BYTES = 512
"""Smallest block of torch's allocator on CUDA; sizes are rounded up to a multiple of it."""

CAPTURE_STATES, CAPTURE_STEPS = 3, 2
"""In a capture: the state, a copy to restore and one to compare; the memory of a plain step and of the graph."""


class LiveBytes(TorchDispatchMode):
    """Context manager that counts the bytes of tensors allocated on a device inside it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.current = self.peak = 0
        self._live: set[int] = set()

    def __enter__(self) -> LiveBytes:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = {id(tensor.untyped_storage()) for tensor in iter_tensors((args, kwargs))}
        for tensor in iter_tensors(result):
            storage = tensor.untyped_storage()
            is_new = id(storage) not in operands and id(storage) not in self._live
            if is_new and tensor.device.type == self.device.type:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = -(-storage.nbytes() // ALLOCATION_BYTES) * ALLOCATION_BYTES
        self._live.add(id(storage))
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._release, id(storage), size)

    def _release(self, key: int, size: int) -> None:
        self._live.discard(key)
        self.current -= size


def state_bytes(stack: StackedStepper) -> int:
    """Return the bytes of parameters, buffers, gradients, and state and direction of the optimizer."""
    return sum(tensor.nbytes for tensor in stack.tensors()) + 2 * stack.updates.parameters.nbytes


def step_bytes(stack: StackedStepper, batch: Tensor, held_out: Split) -> int:
    """Return the peak bytes that a step and an evaluation allocate, without the state.

    `batch` has shape (S, N); `held_out` has the samples of a batch of the evaluation.
    """
    with LiveBytes(stack.data.device) as live:
        stack.train(True)
        stack.step(batch)
        stack.train(False)
        stack.evaluate(held_out)
    return live.peak


def stack_bytes(stack: StackedStepper, batch: Tensor, held_out: Split, *, captures: bool) -> int:
    """Return the peak bytes of a stack on a GPU; more if its step is captured as a graph.

    `batch` has shape (S, N).
    """
    state, step = state_bytes(stack), step_bytes(stack, batch, held_out)
    return CAPTURE_STATES * state + CAPTURE_STEPS * step if captures else state + step
