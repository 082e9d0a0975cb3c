"""Matrix products, convolutions and pooling of S runs on a CPU, samples innermost.

Activations lie in memory as (S, features, samples) or (S, channels, height, width, samples): then a convolution's
patches are long contiguous copies, pooling is a maximum of whole vectors, and both end where a matrix product wants
them. Products are numpy's: its OpenBLAS keeps to one small matrix a run, so that no run's sums depend on how many there
are, and is over twice as fast as torch's MKL on processors that are not Intel's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function

Array: TypeAlias = NDArray[Any]
FEWEST_SAMPLES = 8
"""In a batch for which samples innermost pay: with fewer, vectors are too short."""
PATCHES_BYTES = 2**25
"""Of the patches of one run's images at a time: 32 MB, however many samples are looked at."""
_QUIET = np.errstate(all="ignore")
"""A run that diverges is told by its loss."""


def serves(x: Tensor) -> bool:
    """Whether these kernels take such activations (S, N, ...)."""
    on_cpu = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    theirs = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return on_cpu and x.shape[1] >= FEWEST_SAMPLES and not theirs


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(S, I, N) by weights (S, O, I) and biases (S, O): (S, O, N)."""
    y: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """(S, N, C, H, W) by weights (S, O, C, kernel height, kernel width) and biases (S, O): (S, N, O, H', W')."""
    images = x.movedim(1, -1)  # (S, C, H, W, N)
    bytes_a_sample = weight[0, 0].numel() * x.shape[3] * x.shape[4] * x.element_size()  # about: strides make it less
    at_a_time = max(FEWEST_SAMPLES, PATCHES_BYTES // bytes_a_sample)
    parts = [_Convolution.apply(part, weight, bias, stride, padding) for part in images.split(at_a_time, dim=-1)]  # type: ignore[no-untyped-call]
    y: Tensor = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return y.movedim(-1, 1)


def max_pool(x: Tensor, window: tuple[int, int]) -> Tensor:
    """The largest of each window beside the next: (S, N, C, H, W); the gradient goes to the first of equals."""
    y: Tensor = _MaxPool.apply(x.movedim(1, -1), window)  # type: ignore[no-untyped-call]
    return y.movedim(-1, 1)


def avg_pool(x: Tensor, window: tuple[int, int]) -> Tensor:
    """The mean of each window beside the next: (S, N, C, H, W)."""
    y: Tensor = _AvgPool.apply(x.movedim(1, -1), window)  # type: ignore[no-untyped-call]
    return y.movedim(-1, 1)


class _Linear(Function):
    @staticmethod
    @_QUIET
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        y = torch.from_numpy(np.matmul(weight.numpy(), x.numpy()))
        return y if bias is None else y.add_(bias.unsqueeze(2))

    @staticmethod
    @_QUIET
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = (saved.numpy() for saved in ctx.saved_tensors)
        gradient = gradients[0].numpy()  # (S, O, N)
        of_x = torch.from_numpy(np.matmul(weight.swapaxes(1, 2), gradient)) if ctx.needs_input_grad[0] else None
        of_weight = torch.from_numpy(np.matmul(gradient, x.swapaxes(1, 2)))
        return of_x, of_weight, gradients[0].sum(dim=2) if ctx.biased else None


class _Convolution(Function):
    """As a product of the weights with all patches, run by run, so that a run's patches stay in the cache."""

    @staticmethod
    @_QUIET
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        patches = _Patches(x.shape, weight.shape, stride, padding, x.numpy().dtype)
        ctx.save_for_backward(x, weight)
        ctx.biased, ctx.stride, ctx.padding = bias is not None, stride, padding
        y = x.new_empty(len(x), weight.shape[1], *patches.size)  # (S, O, H', W', N)
        for image, filters, outputs in zip(x.numpy(), weight.numpy(), y.numpy(), strict=True):
            np.matmul(_flat(filters), patches.of(image), out=_flat(outputs))
        return y if bias is None else y.add_(bias[:, :, None, None, None])

    @staticmethod
    @_QUIET
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        patches = _Patches(x.shape, weight.shape, ctx.stride, ctx.padding, x.numpy().dtype)
        gradient = gradients[0].contiguous()
        of_x = torch.zeros(x.shape, dtype=x.dtype) if ctx.needs_input_grad[0] else None
        of_weight = torch.empty_like(weight)
        for run, of_outputs in enumerate(gradient.numpy()):
            of_filters, filters = _flat(of_weight[run].numpy()), _flat(weight[run].numpy())
            of_filters[...] = np.matmul(patches.of(x[run].numpy()), _flat(of_outputs).T).T  # faster than the other way
            if of_x is not None:
                patches.put_back(filters, _flat(of_outputs), of_x[run].numpy())
        return of_x, of_weight, gradient.sum(dim=(2, 3, 4)) if ctx.biased else None, None, None


class _Patches:
    """The patches that a convolution's filters look at, of the images of one run at a time."""

    def __init__(
        self,
        images: Sequence[int],
        filters: Sequence[int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dtype: np.dtype[Any],
    ) -> None:
        """`images` is (S, C, H, W, N), `filters` (S, O, C, kernel height, kernel width)."""
        _, C, H, W, N = images
        *_, kernel_height, kernel_width = filters
        high, wide = H + 2 * padding[0], W + 2 * padding[1]
        self.size = (high - kernel_height) // stride[0] + 1, (wide - kernel_width) // stride[1] + 1, N  # H', W', N
        self._padded: Array = np.zeros((C, high, wide, N), dtype)
        self._inside = np.s_[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W]
        self._patches: Array = np.empty((C, kernel_height, kernel_width, *self.size), dtype)
        channel, row, column, sample = self._padded.strides
        self._windows = as_strided(
            self._padded, self._patches.shape, (channel, row, column, row * stride[0], column * stride[1], sample)
        )
        ends = [stride[i] * (self.size[i] - 1) + 1 for i in (0, 1)]
        self._shifts = [
            (dy, dx, np.s_[:, dy : dy + ends[0] : stride[0], dx : dx + ends[1] : stride[1]])
            for dy, dx in product(range(kernel_height), range(kernel_width))
        ]

    def of(self, images: Array) -> Array:
        """Of images (C, H, W, N): (C * kernel height * kernel width, H' * W' * N). Valid until the next call."""
        self._padded[self._inside] = images
        np.copyto(self._patches, self._windows)
        return self._flat()

    def put_back(self, filters: Array, gradient: Array, images: Array) -> None:
        """Add up the gradients of all patches, filters (O, ...) by (O, H' * W' * N), where their pixels came from."""
        np.matmul(filters.T, gradient, out=self._flat())
        sums = np.zeros_like(self._padded)
        for dy, dx, shifted in self._shifts:
            sums[shifted] += self._patches[:, dy, dx]
        images[...] = sums[self._inside]

    def _flat(self) -> Array:
        return self._patches.reshape(-1, self._patches[0, 0, 0].size)


def _flat(array: Array) -> Array:
    """A view (first, all others)."""
    return array.reshape(len(array), -1)


class _MaxPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[int, int]) -> Tensor:
        y, *others = _corners(x, window)
        for values in others:
            y = torch.maximum(y, values)
        y = y.contiguous()
        ctx.save_for_backward(x, y)
        ctx.window = window
        return y

    @staticmethod
    @_QUIET
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, y = ctx.saved_tensors
        of_x = _room_for(x.shape, ctx.window, gradients[0])
        remaining: Array = gradients[0].clone(memory_format=torch.contiguous_format).numpy()
        *places, last = _corners(of_x, ctx.window)
        for values, place in zip(_corners(x, ctx.window), places, strict=False):
            taken = place.numpy()
            np.multiply(remaining, values.numpy() == y.numpy(), out=taken)
            remaining -= taken
        last.copy_(torch.from_numpy(remaining))
        return of_x, None


class _AvgPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[int, int]) -> Tensor:
        first, *others = _corners(x, window)
        y = first.clone(memory_format=torch.contiguous_format)
        for values in others:
            y += values
        ctx.shape, ctx.window = x.shape, window
        return y.div_(window[0] * window[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        of_x = _room_for(ctx.shape, ctx.window, gradients[0])
        share = gradients[0] / (ctx.window[0] * ctx.window[1])
        for place in _corners(of_x, ctx.window):
            place.copy_(share)
        return of_x, None


def _room_for(shape: Sequence[int], window: tuple[int, int], like: Tensor) -> Tensor:
    """For gradients of images: zeros where pixels belong to no window."""
    whole = all(shape[2 + i] % window[i] == 0 for i in (0, 1))
    return like.new_empty(shape) if whole else like.new_zeros(shape)


def _corners(x: Tensor, window: tuple[int, int]) -> Iterator[Tensor]:
    """Of (S, C, H, W, N) the first pixels of all whole windows, their second ones, and so on, row by row."""
    high, wide = (x.shape[2 + i] // window[i] * window[i] for i in (0, 1))
    for dy, dx in product(range(window[0]), range(window[1])):
        yield x[:, :, dy : high : window[0], dx : wide : window[1]]
