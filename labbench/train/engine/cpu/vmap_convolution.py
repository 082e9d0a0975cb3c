"""Convolutions of a stack inside `vmap` on a CPU, by im2col.

`vmap` computes the convolutions of all runs as one grouped convolution, which torch computes slowly on a CPU. Here each
run is a few matrix products, and activations are stored with the samples innermost, as in `kernels.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from labbench.train.engine.cpu.im2col import Array, Geometry, Patches, output_size, split_samples
from labbench.train.engine.cpu.layer_kernel import NO_FLOAT_WARNINGS, flatten_rest, matmul_into, sum_last_dimension
from labbench.train.engine.vmap_calls import call_stacked


def stack_convolutions(model: nn.Module) -> None:
    """Replace the forward of the two-dimensional convolutions of a model that this module can compute."""
    for module in model.modules():
        if is_stackable(module):
            module.forward = _Forward(module)


def is_stackable(module: Any) -> bool:
    """Return True for Conv2d and ConvTranspose2d with zero padding, without groups and dilation."""
    if type(module) not in (nn.Conv2d, nn.ConvTranspose2d) or isinstance(module.padding, str):
        return False
    if module.groups != 1 or set(module.dilation) != {1} or module.padding_mode != "zeros":
        return False
    if type(module) is nn.Conv2d:
        return True
    sides = zip(module.kernel_size, module.padding, strict=True)
    return module.output_padding == (0, 0) and all(padding < kernel for kernel, padding in sides)


class _Forward:
    """Forward of a convolution, with the arguments and results of torch's."""

    def __init__(self, module: Any) -> None:
        self.module = module
        geometry = Geometry(module.kernel_size, module.stride, module.padding)
        kind = _Convolution if type(module) is nn.Conv2d else _TransposedConvolution
        self._function = partial(_apply, kind, PatchCache(geometry))

    def __call__(self, images: Tensor, output_size: Any = None) -> Tensor:
        """Return outputs (N, O, H', W') for images (N, C, H, W)."""
        module = self.module
        is_unusual = images.dim() != 4 or output_size is not None
        if is_unusual or images.dtype not in (torch.float32, torch.float64) or images.dtype != module.weight.dtype:
            return cast(Tensor, type(module).forward(module, images, *([] if output_size is None else [output_size])))
        return call_stacked(self._function, images, module.weight, module.bias)


def _apply(kind: Any, patches: PatchCache, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the outputs (S, N, O, H', W') of S runs, for images (S, N, C, H, W)."""
    outputs: Tensor = kind.apply(images.movedim(1, -1), weight, bias, patches)
    return outputs.movedim(-1, 1)


class PatchCache:
    """Patches of one layer by the shape of its images, so that their memory is reused."""

    def __init__(self, geometry: Geometry, *, is_flipped: bool = False) -> None:
        self.geometry = geometry
        border = tuple(k - 1 - p for k, p in zip(geometry.kernel, geometry.padding, strict=True))
        self.flipped: PatchCache | None = None
        """Patches of the convolution with the flipped kernel, from outputs to images, if the stride is 1."""
        if geometry.stride == (1, 1) and min(border) >= 0 and not is_flipped:
            flipped = Geometry(geometry.kernel, (1, 1), (border[0], border[1]))
            self.flipped = PatchCache(flipped, is_flipped=True)
        self._patches: dict[Any, Patches] = {}

    def parts(self, images: Array) -> Iterator[tuple[slice, Patches]]:
        """Yield slices of the samples of images (S, C, H, W, N), each with patches for that many samples."""
        _, C, H, W, N = images.shape
        padded = prod(size + 2 * padding for size, padding in zip((H, W), self.geometry.padding, strict=True))
        sample_bytes = C * max(prod(self.geometry.kernel) * W, padded) * images.itemsize
        for part in split_samples(N, sample_bytes):
            key = (C, H, W, part.stop - part.start), images.dtype
            if key not in self._patches:
                self._patches[key] = Patches(key[0], self.geometry, images.dtype)
            yield part, self._patches[key]


def to_filters(weight: Tensor) -> Array:
    """Return weights (S, O, C, kernel height, kernel width) as filters (S, O, C * kernel)."""
    return flatten_rest(weight.detach().contiguous().numpy(), 2)


@NO_FLOAT_WARNINGS
def gather(patches: PatchCache, images: Array, filters: Array, outputs: Array) -> None:
    """Write the convolution of images (S, C, H, W, N) with filters (S, O, C * kernel) to `outputs`.

    `outputs` has shape (S, O, H', W', N).
    """
    for part, block in patches.parts(images):
        for run, run_filters in enumerate(filters):
            for rows, columns in block.iter_blocks(images[run][..., part]):
                matmul_into(run_filters, columns, outputs[run][:, rows][..., part])


@NO_FLOAT_WARNINGS
def scatter(patches: PatchCache, gradients: Array, weight: Tensor, images: Array) -> None:
    """Write the transposed convolution of `gradients` (S, O, H', W', N) to `images` (S, C, H, W, N).

    `weight` has shape (S, O, C, kernel height, kernel width). With stride 1 the result is also the convolution with the
    flipped kernel, which is faster unless there are many more output than input channels.
    """
    outputs, inputs = weight.shape[1:3]
    if patches.flipped is not None and 2 * outputs <= 3 * inputs:
        gather(patches.flipped, gradients, to_filters(weight.flip(3, 4).transpose(1, 2)), images)
        return
    for part, block in patches.parts(images):
        for run, run_filters in enumerate(to_filters(weight)):
            block.col2im(run_filters, gradients[run][..., part], images[run][..., part])


@NO_FLOAT_WARNINGS
def correlate(patches: PatchCache, images: Array, gradients: Array) -> Array:
    """Return the gradients of the filters (S, O, C * kernel).

    `images` has shape (S, C, H, W, N). `gradients` is d loss / d outputs, (S, O, H', W', N).
    """
    kernel = images.shape[1] * prod(patches.geometry.kernel)
    sums = np.zeros((len(images), gradients.shape[1], kernel), images.dtype)
    for part, block in patches.parts(images):
        for run, run_gradient in enumerate(gradients):
            for rows, columns in block.iter_blocks(images[run][..., part]):
                sums[run] += np.matmul(columns, flatten_rest(run_gradient[:, rows][..., part]).T).T
    return sums


class _Convolution(torch.autograd.Function):
    """Convolution of images (S, C, H, W, N)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, patches: PatchCache) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.patches = patches
        size = output_size((images.shape[2], images.shape[3]), patches.geometry)
        outputs = images.new_empty(len(images), weight.shape[1], *size, images.shape[4])
        gather(patches, images.numpy(), to_filters(weight), outputs.numpy())
        return outputs if bias is None else outputs.add_(bias[:, :, None, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        return _gradients(
            ctx,
            grads[0],
            lambda gradient, grad_images: scatter(ctx.patches, gradient, weight, grad_images),
            lambda gradient: correlate(ctx.patches, images.numpy(), gradient),
        )


class _TransposedConvolution(torch.autograd.Function):
    """Transposed convolution of images (S, C, H, W, N): the gradient of a convolution with respect to its images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, patches: PatchCache) -> Tensor:
        images = images.contiguous()
        ctx.save_for_backward(images, weight)
        ctx.patches = patches
        kernel, stride, padding = patches.geometry
        size = [(images.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + kernel[i] for i in (0, 1)]
        outputs = images.new_empty(len(images), weight.shape[2], *size, images.shape[4])
        scatter(patches, images.numpy(), weight, outputs.numpy())
        return outputs if bias is None else outputs.add_(bias[:, :, None, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        return _gradients(
            ctx,
            grads[0],
            lambda gradient, grad_images: gather(ctx.patches, gradient, to_filters(weight), grad_images),
            lambda gradient: correlate(ctx.patches, gradient, images.numpy()),
        )


@NO_FLOAT_WARNINGS
def _gradients(
    ctx: Any,
    grad_outputs: Tensor,
    write_grad_images: Callable[[Array, Array], None],
    grad_filters: Callable[[Array], Array],
) -> tuple[Tensor | None, ...]:
    """Return d loss / d images, weight and bias, None where not needed, and None for the patches.

    Args:
        ctx: Context of the forward pass, which has saved images (S, C, H, W, N) and weight.
        grad_outputs: d loss / d outputs, (S, O, H', W', N).
        write_grad_images: Writes d loss / d images for d loss / d outputs to its second argument.
        grad_filters: Returns d loss / d filters for d loss / d outputs.
    """
    images, weight = ctx.saved_tensors
    gradient = grad_outputs.contiguous().numpy()
    grad_images = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_images = images.new_empty(images.shape)
        write_grad_images(gradient, grad_images.numpy())
    if ctx.needs_input_grad[1]:
        grad_weight = torch.from_numpy(grad_filters(gradient)).view(weight.shape)
    if ctx.needs_input_grad[2]:
        grad_bias = torch.from_numpy(sum_last_dimension(flatten_rest(gradient, 2)))
    return grad_images, grad_weight, grad_bias, None
