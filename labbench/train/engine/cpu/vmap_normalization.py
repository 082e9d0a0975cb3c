"""Batch and group normalization of a stack inside `vmap` on a CPU, with the samples innermost in memory.

Convolutions of a stack have this memory layout (`vmap_convolution.py`). torch's kernels would copy it back and forth.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from labbench.train.engine.layers import batch_norm
from labbench.train.engine.vmap_calls import call_stacked

_BATCH_NORM_TENSORS = "weight", "bias", "running_mean", "running_var", "num_batches_tracked"


def stack_normalizations(model: nn.Module) -> None:
    """Replace the forward of the normalization layers of images in a model."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.momentum is not None:
            module.forward = partial(_batch_norm, module)  # type: ignore[method-assign]
        elif type(module) is nn.GroupNorm:
            module.forward = partial(_group_norm, module)  # type: ignore[method-assign]


def _batch_norm(module: Any, images: Tensor) -> Tensor:
    """Return normalized images (N, C, H, W)."""
    if images.dim() != 4 or not _is_plain(images, module.weight):
        return cast(Tensor, type(module).forward(module, images))
    tensors = [getattr(module, name) for name in _BATCH_NORM_TENSORS]
    return call_stacked(partial(_batch_norm_of_runs, module), images, *tensors)


def _batch_norm_of_runs(module: Any, images: Tensor, *tensors: Tensor | None) -> Tensor:
    """Return normalized images (S, N, C, H, W); `tensors` follow `_BATCH_NORM_TENSORS`, shape (S, ...)."""
    by_name = {name: tensor for name, tensor in zip(_BATCH_NORM_TENSORS, tensors, strict=True) if tensor is not None}
    return batch_norm(module, by_name, images)


def _group_norm(module: Any, images: Tensor) -> Tensor:
    """Return normalized images (N, C, ...)."""
    if images.dim() < 3 or not _is_plain(images, module.weight):
        return cast(Tensor, type(module).forward(module, images))
    return call_stacked(partial(_group_norm_of_runs, module.num_groups, module.eps), images, module.weight, module.bias)


def _is_plain(images: Tensor, weight: Tensor | None) -> bool:
    return images.dtype in (torch.float32, torch.float64) and (weight is None or weight.dtype == images.dtype)


def _group_norm_of_runs(groups: int, eps: float, images: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return normalized images (S, N, C, ...)."""
    columns = images.movedim(1, -1)  # (S, C, ..., N)
    S, C = columns.shape[:2]
    flat = columns.reshape(S, groups, -1, columns.shape[-1]).contiguous()  # (S, G, K, N)
    normalized: Tensor = _Normalization.apply(flat, eps)  # type: ignore[no-untyped-call]
    y = normalized.view(S, C, -1)
    if weight is not None:
        y = _Affine.apply(y, weight, bias)  # type: ignore[no-untyped-call]
    return y.view(columns.shape).movedim(-1, 1)


class _Normalization(torch.autograd.Function):
    """Normalization of x (S, G, K, N) over K (Wu & He, Group Normalization, 2018, equation 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y = x - x.mean(2, keepdim=True)
        scale = y.square().mean(2, keepdim=True).add_(eps).rsqrt_()  # (S, G, 1, N)
        y.mul_(scale)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, scale = ctx.saved_tensors
        (grad,) = grads
        slope = (grad * y).mean(2, keepdim=True)
        return (grad - grad.mean(2, keepdim=True)).sub_(y * slope).mul_(scale), None


class _Affine(torch.autograd.Function):
    """x (S, C, M) times weight (S, C) plus bias (S, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.addcmul(bias.unsqueeze(2), x, weight.unsqueeze(2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        rows = grad.flatten(0, 1).unsqueeze(1)  # (S * C, 1, M)
        grad_weight = torch.bmm(rows, x.flatten(0, 1).unsqueeze(2)).view(weight.shape)
        return grad * weight.unsqueeze(2), grad_weight, grad.sum(2)
