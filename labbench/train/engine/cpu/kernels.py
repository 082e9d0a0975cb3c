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

from labbench.train.engine.cpu.im2col import Patches, in_parts, outputs_of
from labbench.train.engine.layers import LAYERS, pair, per_image

Array: TypeAlias = NDArray[Any]
Own: TypeAlias = Mapping[str, Array]
"""A layer's parameters, buffers or gradients by their names in it, each (S, ...)."""


class Passes:
    """Of one layer: forward, and back after the last one forward.

    `forward` may change its input where `in_place` allows it, `backward` always may change the gradient it is given.
    What either returns is valid until the next call.
    """

    def __init__(self, layer: Any, *, in_place: bool, passes_back: bool) -> None:
        self.layer = layer
        self.in_place = in_place
        """Whether the input may be changed."""
        self.passes_back = passes_back
        """Whether a gradient of the inputs is wanted."""
        self.saved: Any = None
        """What the way back needs of the last way forward."""
        self._room: dict[Any, Any] = {}

    def forward(self, own: Own, x: Array) -> Array:
        """(S, features, ..., samples), and the same of the outputs."""
        raise NotImplementedError

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        """From the gradient of the outputs that of the inputs; those of parameters that learn go to `gradients`."""
        raise NotImplementedError

    def infer(self, own: Own, x: Array) -> Array:
        """Forward with no way back."""
        return self.forward(own, x)

    def room(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory under that name, with any content; what was there last time is no longer valid."""
        key = name, shape, dtype
        found = self._room.get(key)
        if found is None:
            found = self._room[key] = np.empty(shape, dtype)
        return found

    def clear(self) -> None:
        """Let go of all memory that nobody else holds."""
        self.saved = None
        self._room.clear()

    def own_copy(self, x: Array) -> Array:
        """What is in `x`, where it may be changed."""
        if self.in_place:
            return x
        copy = self.room("input", x.shape, x.dtype)
        np.copyto(copy, x)
        return copy


class Linear(Passes):
    """Of (S, ..., I, N), each of what lies between by itself."""

    def forward(self, own: Own, x: Array) -> Array:
        self.saved, weight = x, self._weight(own, x)
        y = self.room("output", (len(x), *x.shape[1:-2], *weight.shape[-2:-1], x.shape[-1]), x.dtype)
        np.matmul(weight, x, out=y)
        if "bias" in own:
            y += own["bias"].reshape(len(x), *[1] * (x.ndim - 3), -1, 1)
        return y

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        x = self.saved
        between = tuple(range(1, x.ndim - 2))
        if "weight" in gradients:
            if between:
                np.add.reduce(np.matmul(gradient, x.swapaxes(-2, -1)), axis=between, out=gradients["weight"])
            else:
                np.matmul(gradient, x.swapaxes(-2, -1), out=gradients["weight"])
        if "bias" in gradients:
            np.add.reduce(sums_of_last(gradient), axis=between, out=gradients["bias"])
        if not self.passes_back:
            return None
        of_x = self.room("gradient", x.shape, gradient.dtype)
        return np.matmul(self._weight(own, x).swapaxes(-2, -1), gradient, out=of_x)

    def _weight(self, own: Own, x: Array) -> Array:
        weight = own["weight"]
        return weight.reshape(len(weight), *[1] * (x.ndim - 3), *weight.shape[1:])


class Convolution(Passes):
    """A product of the weights with the patches, run by run and a few rows at a time: small ones stay in the cache."""

    def forward(self, own: Own, x: Array) -> Array:
        self.saved, weight = x, own["weight"]
        size = outputs_of(x.shape[2:4], *self._geometry)
        y = self.room("output", (len(x), weight.shape[1], *size, x.shape[-1]), x.dtype)
        for part, patches in self._parts(x):
            for images, filters, outputs in zip(x[..., part], weight, y[..., part], strict=True):
                for rows, found in patches.of(images):
                    multiply(flat(filters), found, outputs[:, rows])
        if "bias" in own:
            y += own["bias"][:, :, None, None, None]
        return y

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        x = self.saved
        of_x = self.room("gradient", x.shape, x.dtype) if self.passes_back else None
        of_weight = gradients.get("weight")
        if of_weight is not None:
            of_weight[...] = 0
        for part, patches in self._parts(x):
            for run, of_outputs in enumerate(gradient[..., part]):
                if of_weight is not None:
                    for rows, found in patches.of(x[run][..., part]):
                        product = np.matmul(found, flat(of_outputs[:, rows]).T).T  # faster than the other way
                        of_weight[run] += product.reshape(of_weight[run].shape)
                if of_x is not None:
                    patches.put_back(flat(own["weight"][run]), of_outputs, of_x[run][..., part])
        if "bias" in gradients:
            gradients["bias"][...] = sums_of_last(flat(gradient, 2))
        return of_x

    @property
    def _geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return self.layer.kernel_size, self.layer.stride, self.layer.padding

    def _parts(self, x: Array) -> Iterator[tuple[slice, Patches]]:
        """The samples in parts, each with room for its patches."""
        _, C, H, W, N = x.shape
        with_padding = prod(size + 2 * rim for size, rim in zip((H, W), self.layer.padding, strict=True))
        of_a_sample = C * max(prod(self.layer.kernel_size) * W, with_padding) * x.itemsize
        for part in in_parts(N, of_a_sample):
            key = "patches", (C, H, W, part.stop - part.start), x.dtype
            if key not in self._room:
                self._room[key] = Patches(key[1], *self._geometry, x.dtype)
            yield part, self._room[key]


class BatchNorm(Passes):
    """In training as a group norm whose groups are the channels of all runs: the same formula, in half the time."""

    def forward(self, own: Own, x: Array) -> Array:
        values = x[0, 0].size
        if values == 1:
            raise ValueError(f"batch normalisation of a single value a channel: batches of {x.shape[1:]}")
        channels = x.shape[0] * x.shape[1]
        folded = torch.from_numpy(np.ascontiguousarray(x).reshape(1, channels, values))
        weight, bias = (  # the kernel takes no strides, which rows of parameters have
            torch.from_numpy(np.ascontiguousarray(own[name]).reshape(-1)) if name in own else None
            for name in ("weight", "bias")
        )
        y, means, scales = torch.native_group_norm(folded, weight, bias, 1, channels, values, channels, self.layer.eps)
        self.saved = folded, means, scales, weight
        if "running_mean" in own:
            own["num_batches_tracked"][...] += 1
            found = scales.numpy().reshape(x.shape[:2])
            unbiased = (1 / (found * found) - self.layer.eps) * (values / (values - 1))
            for name, new in (("running_mean", means.numpy().reshape(x.shape[:2])), ("running_var", unbiased)):
                own[name][...] = (1 - self.layer.momentum) * own[name] + self.layer.momentum * new
        return y.numpy().reshape(x.shape)

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        folded, means, scales, weight = self.saved
        channels, values = folded.shape[1:]
        wanted = [self.passes_back, "weight" in gradients, "bias" in gradients]
        of_y = torch.from_numpy(gradient.reshape(folded.shape))
        of_x, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            of_y, folded, means, scales, weight, 1, channels, values, channels, wanted
        )
        for name, found in (("weight", of_weight), ("bias", of_bias)):
            if name in gradients:
                gradients[name][...] = found.numpy().reshape(gradients[name].shape)
        return of_x.numpy().reshape(gradient.shape) if self.passes_back else None

    def infer(self, own: Own, x: Array) -> Array:
        if "running_mean" not in own:
            return self.forward(own, x)
        scale = 1 / np.sqrt(own["running_var"] + x.dtype.type(self.layer.eps))
        scale = scale * own["weight"] if "weight" in own else scale
        shift = own["bias"] - own["running_mean"] * scale if "bias" in own else -own["running_mean"] * scale
        y, behind = self.own_copy(x), (..., *[None] * (x.ndim - 2))
        y *= scale[behind]
        y += shift[behind]
        return y


class ReLU(Passes):
    def forward(self, own: Own, x: Array) -> Array:
        y = self.own_copy(x)
        torch.relu_(torch.from_numpy(y))  # in a sixth of the time of numpy's maximum
        self.saved = y
        return y

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        """Dropout may have multiplied the output: where that made a zero, the gradient is one already."""
        of_x = torch.from_numpy(gradient)
        torch.ops.aten.threshold_backward.grad_input(of_x, torch.from_numpy(self.saved), 0, grad_input=of_x)
        return gradient


class Dropout(Passes):
    def forward(self, own: Own, x: Array) -> Array:
        mask = self.layer.mask_of(torch.from_numpy(x).movedim(-1, 1))
        self.saved = None if mask is None else mask.movedim(1, -1).numpy()
        return x if self.saved is None else np.multiply(x, self.saved, out=self.own_copy(x))

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        if self.saved is not None:
            gradient *= self.saved
        return gradient


class MaxPool(Passes):
    """torch's own, to which the samples are channels: it is quick where they are innermost."""

    def forward(self, own: Own, x: Array) -> Array:
        images = as_channels(x)
        y, chosen = F.max_pool2d(images, *self._geometry, return_indices=True)
        self.saved = images, chosen
        return as_samples(y, x)

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        images, chosen = self.saved
        of_images = torch.ops.aten.max_pool2d_with_indices_backward(
            as_channels(gradient), images, *self._geometry, chosen
        )
        return as_samples(of_images, gradient)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        layer = self.layer
        return *map(pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation)), layer.ceil_mode


class AvgPool(Passes):
    """torch's own, likewise."""

    def forward(self, own: Own, x: Array) -> Array:
        self.saved = as_channels(x)
        return as_samples(torch.ops.aten.avg_pool2d(self.saved, *self._geometry), x)

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        of_images = torch.ops.aten.avg_pool2d_backward(as_channels(gradient), self.saved, *self._geometry)
        return as_samples(of_images, gradient)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        layer = self.layer
        sides = map(pair, (layer.kernel_size, layer.stride, layer.padding))
        return *sides, layer.ceil_mode, layer.count_include_pad, layer.divisor_override


class Flatten(Passes):
    def forward(self, own: Own, x: Array) -> Array:
        self.saved = x.shape
        return x.reshape(len(x), -1, x.shape[-1])

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        return gradient.reshape(self.saved)


class ByGraph(Passes):
    """Any other known layer, by torch's own operations and a graph of this layer alone."""

    def forward(self, own: Own, x: Array) -> Array:
        inputs = self._runs_first(x).requires_grad_(self.passes_back)
        leaves = {name: torch.from_numpy(value) for name, value in own.items()}
        for name, parameter in self.layer.named_parameters(recurse=False):
            leaves[name].requires_grad_(parameter.requires_grad)
        with torch.enable_grad():
            outputs = LAYERS[type(self.layer)](self.layer, leaves, inputs)
        self.saved = inputs, leaves, outputs
        return self._own_columns(outputs.detach())

    def infer(self, own: Own, x: Array) -> Array:
        leaves = {name: torch.from_numpy(value) for name, value in own.items()}
        return self._own_columns(LAYERS[type(self.layer)](self.layer, leaves, self._runs_first(x)))

    def backward(self, own: Own, gradients: Own, gradient: Array) -> Array | None:
        inputs, leaves, outputs = self.saved
        sources = [leaves[name] for name in gradients] + [inputs] * self.passes_back
        found = torch.autograd.grad(outputs, sources, self._runs_first(gradient))
        for value, of_own in zip(gradients.values(), found, strict=False):
            value[...] = of_own.numpy()
        return self._own_columns(found[-1], "gradient") if self.passes_back else None

    def _runs_first(self, columns: Array) -> Tensor:
        """(S, N, ...), in memory alike for one run and for many: what torch's kernels do may depend on that."""
        tensor = torch.from_numpy(np.ascontiguousarray(columns)).movedim(-1, 1)
        flattens = LAYERS[type(self.layer)] is per_image  # the samples of one run are a view then, those of many a copy
        return tensor.contiguous() if flattens else tensor

    def _own_columns(self, tensor: Tensor, name: str = "output") -> Array:
        """(S, N, ...) with the samples innermost in memory, where it may be changed."""
        columns = tensor.movedim(1, -1).numpy()
        copy = self.room(name, columns.shape, columns.dtype)
        np.copyto(copy, columns)
        return copy


def multiply(left: Array, right: Array, into: Array) -> None:
    """A product as large as `into` (rows, ...), whose rows need not be contiguous."""
    if into[0].flags.c_contiguous:
        np.matmul(left, right, out=flat(into))
    else:
        into[...] = np.matmul(left, right).reshape(into.shape)


def flat(array: Array, dimensions: int = 1) -> Array:
    """The first dimensions, and all others as one."""
    return array.reshape(*array.shape[:dimensions], -1)


def sums_of_last(array: Array) -> Array:
    """Over the last dimension, by BLAS: in a third of numpy's own time."""
    sums: Array = np.matmul(array, np.ones(array.shape[-1], array.dtype))
    return sums


def as_channels(images: Array) -> Tensor:
    """(S, C, H, W, N) as torch's (S * C, N, H, W), whose channels lie last in memory."""
    one_after_another = np.ascontiguousarray(images).reshape(-1, *images.shape[2:])
    return torch.from_numpy(one_after_another.transpose(0, 3, 1, 2))


def as_samples(images: Tensor, like: Array) -> Array:
    """The way back to (S, C, H', W', N)."""
    columns: Array = images.numpy().transpose(0, 2, 3, 1)
    return columns.reshape(*like.shape[:2], *columns.shape[1:])
