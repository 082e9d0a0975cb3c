"""Base of layer kernels, and operations on arrays with the samples innermost that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any]
LayerArrays: TypeAlias = Mapping[str, Array]
"""Parameters, buffers or gradients of a layer by name, each of shape (S, ...)."""

NO_FLOAT_WARNINGS = np.errstate(all="ignore")
"""Turns off numpy's floating-point warnings, because torch has none: the loss shows that a run diverges."""


class LayerKernel:
    """Forward and backward pass of one layer.

    `forward` may change its input if `in_place` is True; `backward` uses what the last `forward` saved and may always
    change its `grad_output`. The arrays that they return are valid until the next call.
    """

    def __init__(self, layer: Any, *, in_place: bool, needs_input_grad: bool) -> None:
        self.layer = layer
        self.in_place = in_place
        """True if `forward` may change its input."""
        self.needs_input_grad = needs_input_grad
        """True if `backward` must return d loss / d inputs."""
        self.saved: Any = None
        """Values that `backward` needs from the last `forward`."""
        self._buffers: dict[Any, Any] = {}

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs of shape (S, features, ..., N) for inputs x of shape (S, features, ..., N)."""
        raise NotImplementedError

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d inputs, shape (S, features, ..., N).

        Returns None if `needs_input_grad` is False. `grad_output` is d loss / d outputs. Gradients of the parameters
        are written to the arrays in `gradients`.
        """
        raise NotImplementedError

    def infer(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs in eval mode, with the shapes of `forward`.

        Nothing is saved for `backward`.
        """
        return self.forward(arrays, x)

    def get_buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an uninitialized array of this shape from the cache.

        Later calls with the same name, shape and dtype return the same array.
        """
        key = name, shape, dtype
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = self._buffers[key] = np.empty(shape, dtype)
        return buffer

    def clear(self) -> None:
        """Release all buffers."""
        self.saved = None
        self._buffers.clear()

    def mutable_copy(self, x: Array) -> Array:
        """Return x, or a copy if x must not change; any shape."""
        if self.in_place:
            return x
        copy = self.get_buffer("input", x.shape, x.dtype)
        np.copyto(copy, x)
        return copy


def matmul_into(left: Array, right: Array, into: Array) -> None:
    """Write left (M, K) @ right (K, N) to `into` (M, ...).

    The rows of `into` need not be contiguous.
    """
    if into[0].flags.c_contiguous:
        np.matmul(left, right, out=flatten_rest(into))
    else:
        into[...] = np.matmul(left, right).reshape(into.shape)


def flatten_rest(array: Array, dimensions: int = 1) -> Array:
    """Flatten all but the first `dimensions`: shape (..., rest)."""
    return array.reshape(*array.shape[:dimensions], -1)


def sum_last_dimension(array: Array) -> Array:
    """Sum an array of shape (..., N) over N.

    BLAS takes a third of the time of np.sum.
    """
    sums: Array = np.matmul(array, np.ones(array.shape[-1], array.dtype))
    return sums


def samples_to_channels(images: Array) -> Tensor:
    """Return images (S, C, H, W, N) as a channels-last tensor (S * C, N, H, W)."""
    stacked = np.ascontiguousarray(images).reshape(-1, *images.shape[2:])  # (S * C, H, W, N)
    return torch.from_numpy(stacked.transpose(0, 3, 1, 2))


def channels_to_samples(images: Tensor, like: Array) -> Array:
    """Undo `samples_to_channels`: (S * C, N, H', W') to (S, C, H', W', N).

    S and C are taken from `like`.
    """
    columns: Array = images.numpy().transpose(0, 2, 3, 1)
    return columns.reshape(*like.shape[:2], *columns.shape[1:])
