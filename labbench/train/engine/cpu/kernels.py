"""Layer kernels: forward and backward passes on a CPU for S runs at once.

Activations are stored as (S, features, N) or (S, channels, height, width, N), with the samples innermost: matrix
products read and write them without a copy, the samples of each feature are contiguous for batch normalization, and the
patches of a convolution are long contiguous copies. Matrix products use numpy's BLAS: OpenBLAS computes one small
matrix per run, so that the sums of a run do not depend on the number of runs, and it is more than twice as fast as
torch's MKL on recent processors other than Intel's.

A layer changes its input in place if allowed, and its buffers are reused for every tile of a stack, so that they stay
in the cache. No operation reduces over runs: the results of a run do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labbench.train.engine.cpu.im2col import Geometry, Patches, output_size, split_samples
from labbench.train.engine.cpu.layer_kernel import (
    Array,
    LayerArrays,
    LayerKernel,
    channels_to_samples,
    flatten_rest,
    matmul_into,
    samples_to_channels,
    sum_last_dimension,
)
from labbench.train.engine.layers import LAYER_FORWARDS, as_pair, check_batch_norm_batch, pool


class Linear(LayerKernel):
    """Linear layer; dimensions between S and the features are batch dimensions."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, ..., O, N) for inputs x (S, ..., I, N)."""
        self.saved, weight = x, self._weight(arrays, x)
        y = self.get_buffer("output", (len(x), *x.shape[1:-2], *weight.shape[-2:-1], x.shape[-1]), x.dtype)
        np.matmul(weight, x, out=y)
        if "bias" in arrays:
            y += arrays["bias"].reshape(len(x), *[1] * (x.ndim - 3), -1, 1)
        return y

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, ..., I, N), for `grad_output` (S, ..., O, N)."""
        x = self.saved
        batch_dims = tuple(range(1, x.ndim - 2))
        if "weight" in gradients:
            if batch_dims:
                np.add.reduce(np.matmul(grad_output, x.swapaxes(-2, -1)), axis=batch_dims, out=gradients["weight"])
            else:
                np.matmul(grad_output, x.swapaxes(-2, -1), out=gradients["weight"])
        if "bias" in gradients:
            np.add.reduce(sum_last_dimension(grad_output), axis=batch_dims, out=gradients["bias"])
        if not self.needs_input_grad:
            return None
        grad_input = self.get_buffer("grad_input", x.shape, grad_output.dtype)
        return np.matmul(self._weight(arrays, x).swapaxes(-2, -1), grad_output, out=grad_input)

    def _weight(self, arrays: LayerArrays, x: Array) -> Array:
        weight = arrays["weight"]
        return weight.reshape(len(weight), *[1] * (x.ndim - 3), *weight.shape[1:])


class Convolution(LayerKernel):
    """Convolution by im2col.

    The patches are built run by run and for some output rows at a time, so that they stay in the cache.
    """

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, O, H', W', N) for inputs x (S, C, H, W, N)."""
        self.saved, weight = x, arrays["weight"]
        size = output_size(x.shape[2:4], self._geometry)
        y = self.get_buffer("output", (len(x), weight.shape[1], *size, x.shape[-1]), x.dtype)
        for part, patches in self._parts(x):
            for images, filters, outputs in zip(x[..., part], weight, y[..., part], strict=True):
                for rows, columns in patches.iter_blocks(images):
                    matmul_into(flatten_rest(filters), columns, outputs[:, rows])
        if "bias" in arrays:
            y += arrays["bias"][:, :, None, None, None]
        return y

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, C, H, W, N), for `grad_output` (S, O, H', W', N)."""
        x = self.saved
        grad_input = self.get_buffer("grad_input", x.shape, x.dtype) if self.needs_input_grad else None
        grad_weight = gradients.get("weight")
        if grad_weight is not None:
            grad_weight[...] = 0
        for part, patches in self._parts(x):
            for run, run_grad in enumerate(grad_output[..., part]):  # (O, H', W', n)
                if grad_weight is not None:
                    for rows, columns in patches.iter_blocks(x[run][..., part]):
                        product = np.matmul(
                            columns, flatten_rest(run_grad[:, rows]).T
                        ).T  # faster than run_grad @ columns.T
                        grad_weight[run] += product.reshape(grad_weight[run].shape)
                if grad_input is not None:
                    patches.col2im(flatten_rest(arrays["weight"][run]), run_grad, grad_input[run][..., part])
        if "bias" in gradients:
            gradients["bias"][...] = sum_last_dimension(flatten_rest(grad_output, 2))
        return grad_input

    @property
    def _geometry(self) -> Geometry:
        return Geometry(self.layer.kernel_size, self.layer.stride, self.layer.padding)

    def _parts(self, x: Array) -> Iterator[tuple[slice, Patches]]:
        """Yield slices of the samples, each with the patches for that many samples."""
        _, C, H, W, N = x.shape
        padded_pixels = prod(size + 2 * padding for size, padding in zip((H, W), self.layer.padding, strict=True))
        sample_bytes = C * max(prod(self.layer.kernel_size) * W, padded_pixels) * x.itemsize
        for part in split_samples(N, sample_bytes):
            key = "patches", (C, H, W, part.stop - part.start), x.dtype
            if key not in self._buffers:
                self._buffers[key] = Patches(key[1], self._geometry, x.dtype)
            yield part, self._buffers[key]


class BatchNorm(LayerKernel):
    """Batch normalization (Ioffe & Szegedy, 2015).

    Training uses torch's group-norm kernel with one group per channel of each run: the same formula in half the time.
    """

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, C, ..., N) for inputs x (S, C, ..., N).

        Raises:
            ValueError: A channel has a single value.
        """
        values = x[0, 0].size
        check_batch_norm_batch(values, (x.shape[-1], *x.shape[1:-1]))
        channels = x.shape[0] * x.shape[1]
        folded = torch.from_numpy(np.ascontiguousarray(x).reshape(1, channels, values))  # (1, S * C, ... * N)
        weight, bias = (  # the kernel needs contiguous arrays, and parameters are views of rows
            torch.from_numpy(np.ascontiguousarray(arrays[name]).reshape(-1)) if name in arrays else None
            for name in ("weight", "bias")
        )
        y, means, scales = torch.native_group_norm(folded, weight, bias, 1, channels, values, channels, self.layer.eps)
        self.saved = folded, means, scales, weight
        if "running_mean" in arrays:
            arrays["num_batches_tracked"][...] += 1
            scale = scales.numpy().reshape(x.shape[:2])  # (S, C), 1 / sqrt(variance + eps)
            unbiased = (1 / (scale * scale) - self.layer.eps) * (values / (values - 1))
            for name, new in (("running_mean", means.numpy().reshape(x.shape[:2])), ("running_var", unbiased)):
                arrays[name][...] = (1 - self.layer.momentum) * arrays[name] + self.layer.momentum * new
        return y.numpy().reshape(x.shape)

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, C, ..., N), for `grad_output` (S, C, ..., N)."""
        folded, means, scales, weight = self.saved
        channels, values = folded.shape[1:]
        output_mask = [self.needs_input_grad, "weight" in gradients, "bias" in gradients]
        grad_folded = torch.from_numpy(grad_output.reshape(folded.shape))
        grad_input, grad_weight, grad_bias = torch.ops.aten.native_group_norm_backward(
            grad_folded, folded, means, scales, weight, 1, channels, values, channels, output_mask
        )
        for name, grad in (("weight", grad_weight), ("bias", grad_bias)):
            if name in gradients:
                gradients[name][...] = grad.numpy().reshape(gradients[name].shape)
        return grad_input.numpy().reshape(grad_output.shape) if self.needs_input_grad else None

    def infer(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, C, ..., N) for inputs x (S, C, ..., N) in eval mode."""
        if "running_mean" not in arrays:
            return self.forward(arrays, x)
        scale = 1 / np.sqrt(arrays["running_var"] + x.dtype.type(self.layer.eps))
        scale = scale * arrays["weight"] if "weight" in arrays else scale
        shift = arrays["bias"] - arrays["running_mean"] * scale if "bias" in arrays else -arrays["running_mean"] * scale
        y, broadcast = self.mutable_copy(x), (..., *[None] * (x.ndim - 2))
        y *= scale[broadcast]
        y += shift[broadcast]
        return y


class ReLU(LayerKernel):
    """ReLU, element-wise."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, ..., N) for inputs x (S, ..., N)."""
        y = self.mutable_copy(x)
        torch.relu_(torch.from_numpy(y))  # takes a sixth of the time of np.maximum
        self.saved = y
        return y

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, ..., N), for `grad_output` (S, ..., N).

        The saved output may have been multiplied by a dropout mask in place. Where the mask made it zero, the gradient
        is zero too, so the result is the same.
        """
        grad_input = torch.from_numpy(grad_output)
        torch.ops.aten.threshold_backward.grad_input(grad_input, torch.from_numpy(self.saved), 0, grad_input=grad_input)
        return grad_output


class Dropout(LayerKernel):
    """Dropout with the masks of a `SeededDropout`."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, ..., N) for inputs x (S, ..., N)."""
        mask = self.layer.draw_mask(torch.from_numpy(x).movedim(-1, 1))
        self.saved = None if mask is None else mask.movedim(1, -1).numpy()
        return x if self.saved is None else np.multiply(x, self.saved, out=self.mutable_copy(x))

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, ..., N), for `grad_output` (S, ..., N)."""
        if self.saved is not None:
            grad_output *= self.saved
        return grad_output


class MaxPool(LayerKernel):
    """Max pooling by torch.

    torch gets the samples as channels of a channels-last image, the memory layout for which it is fast.
    """

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, C, H', W', N) for inputs x (S, C, H, W, N)."""
        images = samples_to_channels(x)
        y, indices = F.max_pool2d(images, *self._geometry, return_indices=True)
        self.saved = images, indices
        return channels_to_samples(y, x)

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, C, H, W, N), for `grad_output` (S, C, H', W', N)."""
        images, indices = self.saved
        grad_images = torch.ops.aten.max_pool2d_with_indices_backward(
            samples_to_channels(grad_output), images, *self._geometry, indices
        )
        return channels_to_samples(grad_images, grad_output)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        layer = self.layer
        return *map(as_pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation)), layer.ceil_mode


class AvgPool(LayerKernel):
    """Average pooling by torch; memory layout as for `MaxPool`."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, C, H', W', N) for inputs x (S, C, H, W, N)."""
        self.saved = samples_to_channels(x)
        return channels_to_samples(torch.ops.aten.avg_pool2d(self.saved, *self._geometry), x)

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, C, H, W, N), for `grad_output` (S, C, H', W', N)."""
        grad_images = torch.ops.aten.avg_pool2d_backward(samples_to_channels(grad_output), self.saved, *self._geometry)
        return channels_to_samples(grad_images, grad_output)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        layer = self.layer
        sides = map(as_pair, (layer.kernel_size, layer.stride, layer.padding))
        return *sides, layer.ceil_mode, layer.count_include_pad, layer.divisor_override


class Flatten(LayerKernel):
    """Flatten all dimensions between S and N."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, features, N) for inputs x (S, ..., N)."""
        self.saved = x.shape
        return x.reshape(len(x), -1, x.shape[-1])

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, ..., N), for `grad_output` (S, features, N)."""
        return grad_output.reshape(self.saved)


class AutogradKernel(LayerKernel):
    """Kernel for all other supported layers: torch with an autograd graph of this layer only."""

    def forward(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, ..., N) for inputs x (S, ..., N)."""
        inputs = self._to_tensor(x).requires_grad_(self.needs_input_grad)
        leaves = {name: torch.from_numpy(value) for name, value in arrays.items()}
        for name, parameter in self.layer.named_parameters(recurse=False):
            leaves[name].requires_grad_(parameter.requires_grad)
        with torch.enable_grad():
            outputs = LAYER_FORWARDS[type(self.layer)](self.layer, leaves, inputs)
        self.saved = inputs, leaves, outputs
        return self._to_columns(outputs.detach())

    def infer(self, arrays: LayerArrays, x: Array) -> Array:
        """Return outputs (S, ..., N) for inputs x (S, ..., N) in eval mode."""
        leaves = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return self._to_columns(LAYER_FORWARDS[type(self.layer)](self.layer, leaves, self._to_tensor(x)))

    def backward(self, arrays: LayerArrays, gradients: LayerArrays, grad_output: Array) -> Array | None:
        """Return d loss / d x, (S, ..., N), for `grad_output` (S, ..., N)."""
        inputs, leaves, outputs = self.saved
        sources = [leaves[name] for name in gradients] + [inputs] * self.needs_input_grad
        grads = torch.autograd.grad(outputs, sources, self._to_tensor(grad_output))
        for value, grad in zip(gradients.values(), grads, strict=False):
            value[...] = grad.numpy()
        return self._to_columns(grads[-1], "grad_input") if self.needs_input_grad else None

    def _to_tensor(self, columns: Array) -> Tensor:
        """Return columns (S, ..., N) as a tensor (S, N, ...).

        The memory layout of the tensor must not depend on S: the results of torch's kernels may depend on the layout.
        """
        tensor = torch.from_numpy(np.ascontiguousarray(columns)).movedim(-1, 1)
        # pooling flattens S and N, which makes a view for one run and a copy for several
        return tensor.contiguous() if LAYER_FORWARDS[type(self.layer)] is pool else tensor

    def _to_columns(self, tensor: Tensor, name: str = "output") -> Array:
        """Copy a tensor (S, N, ...) to a buffer (S, ..., N)."""
        columns = tensor.movedim(1, -1).numpy()
        copy = self.get_buffer(name, columns.shape, columns.dtype)
        np.copyto(copy, columns)
        return copy
