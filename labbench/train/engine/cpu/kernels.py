"""The layers' passes forward and back on a CPU, written by hand, for S runs at once.

Activations lie in memory as (S, features, samples) or (S, channels, height, width, samples): a matrix product takes
and leaves them so, batch normalisation finds each feature's samples side by side, and a convolution's patches are long
contiguous copies. Products are numpy's: its OpenBLAS keeps to one small matrix a run, so that no run's sums depend on
how many there are, and is over twice as fast as torch's MKL on recent processors that are not Intel's.

Where it can, a layer changes its input in place, and its buffers are used again for every tile of a stack, so that
they stay in the cache. Nothing reduces over runs: a run's numbers do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from labbench.train.engine.cpu.im2col import Patches, output_size, split_samples
from labbench.train.engine.layers import LAYER_FORWARDS, as_pair, pool

Array: TypeAlias = NDArray[Any]
LayerArrays: TypeAlias = Mapping[str, Array]
"""A layer's parameters, buffers or gradients by their names in it, each (S, ...)."""


class LayerKernel:
    """Of one layer: forward, and back after the last one forward.

    `forward` may change its input where `in_place` allows it, `backward` always may change the gradient it is given.
    What either returns is valid until the next call.
    """

    def __init__(self, layer: Any, *, in_place: bool, needs_input_grad: bool) -> None:
        self.layer = layer
        self.in_place = in_place
        """Whether the input may be changed."""
        self.needs_input_grad = needs_input_grad
        """Whether a gradient of the inputs is wanted."""
        self.saved: Any = None
        """What the way back needs of the last way forward."""
        self._buffers: dict[Any, Any] = {}

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """(S, features, ..., samples), and the same of the outputs."""
        raise NotImplementedError

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        """From the gradient of the outputs that of the inputs; those of parameters that learn go to `gradients`."""
        raise NotImplementedError

    def infer(self, arrays: LayerArrays, x: Array) -> Array:
        """Forward with no way back."""
        return self.forward(arrays, x)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory under that name, with any content; what was there last time is no longer valid."""
        key = name, shape, dtype
        found = self._buffers.get(key)
        if found is None:
            found = self._buffers[key] = np.empty(shape, dtype)
        return found

    def clear(self) -> None:
        """Let go of all memory that nobody else holds."""
        self.saved = None
        self._buffers.clear()

    def mutable_copy(self, x: Array) -> Array:
        """What is in `x`, where it may be changed."""
        if self.in_place:
            return x
        copy = self.buffer("input", x.shape, x.dtype)
        np.copyto(copy, x)
        return copy


class Linear(LayerKernel):
    """Of (S, ..., I, N), each of what lies between by itself."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        self.saved, weight = x, self._weight(arrays, x)
        y = self.buffer("output", (len(x), *x.shape[1:-2], *weight.shape[-2:-1], x.shape[-1]), x.dtype)
        np.matmul(weight, x, out=y)
        if "bias" in arrays:
            y += arrays["bias"].reshape(len(x), *[1] * (x.ndim - 3), -1, 1)
        return y

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        x = self.saved
        between = tuple(range(1, x.ndim - 2))
        if "weight" in gradients:
            if between:
                np.add.reduce(np.matmul(gradient, x.swapaxes(-2, -1)), axis=between, out=gradients["weight"])
            else:
                np.matmul(gradient, x.swapaxes(-2, -1), out=gradients["weight"])
        if "bias" in gradients:
            np.add.reduce(sum_last_dimension(gradient), axis=between, out=gradients["bias"])
        if not self.needs_input_grad:
            return None
        of_x = self.buffer("gradient", x.shape, gradient.dtype)
        return np.matmul(self._weight(arrays, x).swapaxes(-2, -1), gradient, out=of_x)

    def _weight(self, arrays: LayerArrays, x: Array) -> Array:
        weight = arrays["weight"]
        return weight.reshape(len(weight), *[1] * (x.ndim - 3), *weight.shape[1:])


class Convolution(LayerKernel):
    """A product of the weights with the patches, run by run and a few rows at a time: small ones stay in the cache."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        self.saved, weight = x, arrays["weight"]
        size = output_size(x.shape[2:4], *self._geometry)
        y = self.buffer("output", (len(x), weight.shape[1], *size, x.shape[-1]), x.dtype)
        for part, patches in self._parts(x):
            for images, filters, outputs in zip(x[..., part], weight, y[..., part], strict=True):
                for rows, found in patches.iter_blocks(images):
                    matmul_into(flatten_rest(filters), found, outputs[:, rows])
        if "bias" in arrays:
            y += arrays["bias"][:, :, None, None, None]
        return y

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        x = self.saved
        of_x = self.buffer("gradient", x.shape, x.dtype) if self.needs_input_grad else None
        of_weight = gradients.get("weight")
        if of_weight is not None:
            of_weight[...] = 0
        for part, patches in self._parts(x):
            for run, of_outputs in enumerate(gradient[..., part]):
                if of_weight is not None:
                    for rows, found in patches.iter_blocks(x[run][..., part]):
                        product = np.matmul(found, flatten_rest(of_outputs[:, rows]).T).T  # faster than the other way
                        of_weight[run] += product.reshape(of_weight[run].shape)
                if of_x is not None:
                    patches.col2im(flatten_rest(arrays["weight"][run]), of_outputs, of_x[run][..., part])
        if "bias" in gradients:
            gradients["bias"][...] = sum_last_dimension(flatten_rest(gradient, 2))
        return of_x

    @property
    def _geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return self.layer.kernel_size, self.layer.stride, self.layer.padding

    def _parts(self, x: Array) -> Iterator[tuple[slice, Patches]]:
        """The samples in parts, each with room for its patches."""
        _, C, H, W, N = x.shape
        with_padding = prod(size + 2 * rim for size, rim in zip((H, W), self.layer.padding, strict=True))
        of_a_sample = C * max(prod(self.layer.kernel_size) * W, with_padding) * x.itemsize
        for part in split_samples(N, of_a_sample):
            key = "patches", (C, H, W, part.stop - part.start), x.dtype
            if key not in self._buffers:
                self._buffers[key] = Patches(key[1], *self._geometry, x.dtype)
            yield part, self._buffers[key]


class BatchNorm(LayerKernel):
    """In training as a group norm whose groups are the channels of all runs: the same formula, in half the time."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        values = x[0, 0].size
        if values == 1:
            raise ValueError(f"batch normalisation of a single value a channel: batches of {x.shape[1:]}")
        channels = x.shape[0] * x.shape[1]
        folded = torch.from_numpy(np.ascontiguousarray(x).reshape(1, channels, values))
        weight, bias = (  # the kernel takes no strides, which rows of parameters have
            torch.from_numpy(np.ascontiguousarray(arrays[name]).reshape(-1)) if name in arrays else None
            for name in ("weight", "bias")
        )
        y, means, scales = torch.native_group_norm(folded, weight, bias, 1, channels, values, channels, self.layer.eps)
        self.saved = folded, means, scales, weight
        if "running_mean" in arrays:
            arrays["num_batches_tracked"][...] += 1
            found = scales.numpy().reshape(x.shape[:2])
            unbiased = (1 / (found * found) - self.layer.eps) * (values / (values - 1))
            for name, new in (("running_mean", means.numpy().reshape(x.shape[:2])), ("running_var", unbiased)):
                arrays[name][...] = (1 - self.layer.momentum) * arrays[name] + self.layer.momentum * new
        return y.numpy().reshape(x.shape)

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        folded, means, scales, weight = self.saved
        channels, values = folded.shape[1:]
        wanted = [self.needs_input_grad, "weight" in gradients, "bias" in gradients]
        of_y = torch.from_numpy(gradient.reshape(folded.shape))
        of_x, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            of_y, folded, means, scales, weight, 1, channels, values, channels, wanted
        )
        for name, found in (("weight", of_weight), ("bias", of_bias)):
            if name in gradients:
                gradients[name][...] = found.numpy().reshape(gradients[name].shape)
        return of_x.numpy().reshape(gradient.shape) if self.needs_input_grad else None

    def infer(self, arrays: LayerArrays, x: Array) -> Array:
        if "running_mean" not in arrays:
            return self.forward(arrays, x)
        scale = 1 / np.sqrt(arrays["running_var"] + x.dtype.type(self.layer.eps))
        scale = scale * arrays["weight"] if "weight" in arrays else scale
        shift = arrays["bias"] - arrays["running_mean"] * scale if "bias" in arrays else -arrays["running_mean"] * scale
        y, behind = self.mutable_copy(x), (..., *[None] * (x.ndim - 2))
        y *= scale[behind]
        y += shift[behind]
        return y


class ReLU(LayerKernel):
    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        y = self.mutable_copy(x)
        torch.relu_(torch.from_numpy(y))  # in a sixth of the time of numpy's maximum
        self.saved = y
        return y

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        """Dropout may have multiplied the output: where that made a zero, the gradient is one already."""
        of_x = torch.from_numpy(gradient)
        torch.ops.aten.threshold_backward.grad_input(of_x, torch.from_numpy(self.saved), 0, grad_input=of_x)
        return gradient


class Dropout(LayerKernel):
    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        mask = self.layer.draw_mask(torch.from_numpy(x).movedim(-1, 1))
        self.saved = None if mask is None else mask.movedim(1, -1).numpy()
        return x if self.saved is None else np.multiply(x, self.saved, out=self.mutable_copy(x))

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        if self.saved is not None:
            gradient *= self.saved
        return gradient


class MaxPool(LayerKernel):
    """torch's own, to which the samples are channels: it is quick where they are innermost."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        images = samples_to_channels(x)
        y, chosen = F.max_pool2d(images, *self._geometry, return_indices=True)
        self.saved = images, chosen
        return channels_to_samples(y, x)

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        images, chosen = self.saved
        of_images = torch.ops.aten.max_pool2d_with_indices_backward(
            samples_to_channels(gradient), images, *self._geometry, chosen
        )
        return channels_to_samples(of_images, gradient)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        layer = self.layer
        return *map(as_pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation)), layer.ceil_mode


class AvgPool(LayerKernel):
    """torch's own, likewise."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        self.saved = samples_to_channels(x)
        return channels_to_samples(torch.ops.aten.avg_pool2d(self.saved, *self._geometry), x)

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        of_images = torch.ops.aten.avg_pool2d_backward(samples_to_channels(gradient), self.saved, *self._geometry)
        return channels_to_samples(of_images, gradient)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        layer = self.layer
        sides = map(as_pair, (layer.kernel_size, layer.stride, layer.padding))
        return *sides, layer.ceil_mode, layer.count_include_pad, layer.divisor_override


class Flatten(LayerKernel):
    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        self.saved = x.shape
        return x.reshape(len(x), -1, x.shape[-1])

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        return gradient.reshape(self.saved)


class AutogradKernel(LayerKernel):
    """Any other known layer, by torch's own operations and a graph of this layer alone."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        inputs = self._to_tensor(x).requires_grad_(self.needs_input_grad)
        leaves = {name: torch.from_numpy(value) for name, value in arrays.items()}
        for name, parameter in self.layer.named_parameters(recurse=False):
            leaves[name].requires_grad_(parameter.requires_grad)
        with torch.enable_grad():
            outputs = LAYER_FORWARDS[type(self.layer)](self.layer, leaves, inputs)
        self.saved = inputs, leaves, outputs
        return self._to_columns(outputs.detach())

    def infer(self, arrays: LayerArrays, x: Array) -> Array:
        leaves = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return self._to_columns(LAYER_FORWARDS[type(self.layer)](self.layer, leaves, self._to_tensor(x)))

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, gradient: Array) -> Array | None:
        inputs, leaves, outputs = self.saved
        sources = [leaves[name] for name in gradients] + [inputs] * self.needs_input_grad
        found = torch.autograd.grad(outputs, sources, self._to_tensor(gradient))
        for value, of_own in zip(gradients.values(), found, strict=False):
            value[...] = of_own.numpy()
        return self._to_columns(found[-1], "gradient") if self.needs_input_grad else None

    def _to_tensor(self, columns: Array) -> Tensor:
        """(S, N, ...), in memory alike for one run and for many: what torch's kernels do may depend on that."""
        tensor = torch.from_numpy(np.ascontiguousarray(columns)).movedim(-1, 1)
        flattens = (
            LAYER_FORWARDS[type(self.layer)] is pool
        )  # the samples of one run are a view then, those of many a copy
        return tensor.contiguous() if flattens else tensor

    def _to_columns(self, tensor: Tensor, name: str = "output") -> Array:
        """(S, N, ...) with the samples innermost in memory, where it may be changed."""
        columns = tensor.movedim(1, -1).numpy()
        copy = self.buffer(name, columns.shape, columns.dtype)
        np.copyto(copy, columns)
        return copy


def matmul_into(left: Array, right: Array, into: Array) -> None:
    """A product as large as `into` (rows, ...), whose rows need not be contiguous."""
    if into[0].flags.c_contiguous:
        np.matmul(left, right, out=flatten_rest(into))
    else:
        into[...] = np.matmul(left, right).reshape(into.shape)


def flatten_rest(array: Array, dimensions: int = 1) -> Array:
    """The first dimensions, and all others as one."""
    return array.reshape(*array.shape[:dimensions], -1)


def sum_last_dimension(array: Array) -> Array:
    """Over the last dimension, by BLAS: in a third of numpy's own time."""
    sums: Array = np.matmul(array, np.ones(array.shape[-1], array.dtype))
    return sums


def samples_to_channels(images: Array) -> Tensor:
    """(S, C, H, W, N) as torch's (S * C, N, H, W), whose channels lie last in memory."""
    one_after_another = np.ascontiguousarray(images).reshape(-1, *images.shape[2:])
    return torch.from_numpy(one_after_another.transpose(0, 3, 1, 2))


def channels_to_samples(images: Tensor, like: Array) -> Array:
    """The way back to (S, C, H', W', N)."""
    columns: Array = images.numpy().transpose(0, 2, 3, 1)
    return columns.reshape(*like.shape[:2], *columns.shape[1:])
