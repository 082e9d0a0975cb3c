"""Stacked layers on a GPU: the same formulas as in `layers.py`, in few kernels whatever the number of runs.

A kernel of a small network takes less time than its launch, so a layer of S runs is one call of a library: the runs are
groups of a convolution, and channels of a batch normalization. A CPU prefers the forms of `layers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labbench.train.engine import layers
from labbench.train.engine.layers import (
    LAYER_FORWARDS,
    LayerForward,
    LayerTensors,
    check_batch_norm_batch,
    element_wise,
)


def convolution(layer: nn.Conv1d | nn.Conv2d, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Convolve x of shape (S, N, C, ...) at once, with S times as many groups."""
    S = len(x)
    convolve = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
    weight, bias = tensors["weight"].flatten(0, 1), tensors["bias"].flatten() if layer.bias is not None else None
    y: Tensor = convolve(
        channels_of_runs(x), weight, bias, layer.stride, layer.padding, layer.dilation, S * layer.groups
    )
    outputs: Tensor = y.unflatten(1, (S, -1)).transpose(0, 1)
    return outputs


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Normalize x of shape (S, N, C, ...) over samples and pixels (Ioffe & Szegedy, 2015, algorithm 1).

    Raises:
        ValueError: In training, if a channel has a single value.
    """
    S, N, C = x.shape[:3]
    if x.dtype == torch.bfloat16:
        x = x.float()  # bfloat16 has too few digits for means and variances
    mean, variance = (tensors[name].view(-1) if name in tensors else None for name in ("running_mean", "running_var"))
    weight, bias = (tensors[name].flatten() if layer.affine else None for name in ("weight", "bias"))
    uses_batch = layer.training or mean is None
    if uses_batch:
        check_batch_norm_batch(x[0, :, 0].numel(), x.shape[1:])
    if layer.training and mean is not None:
        tensors["num_batches_tracked"].add_(1)
    assert layer.momentum is not None  # None is a cumulative average: `is_supported` excludes it
    # linear layers leave the samples innermost: they are the pixels of a single image
    folded = x.transpose(1, 2).reshape(1, S * C, N) if x.dim() == 3 else channels_of_runs(x)
    y = F.batch_norm(folded, mean, variance, weight, bias, uses_batch, layer.momentum, layer.eps)
    return y.view(S, C, N).transpose(1, 2) if x.dim() == 3 else y.unflatten(1, (S, C)).transpose(0, 1)


def pool(layer: nn.Module, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Pool x of shape (S, N, C, ...) within each channel of each run."""
    pooled: Tensor = layer(channels_of_runs(x)).unflatten(1, (len(x), -1)).transpose(0, 1)
    return pooled


def channels_of_runs(x: Tensor) -> Tensor:
    """Return x of shape (S, N, C, ...) with the runs as channels, (N, S * C, ...)."""
    return x.transpose(0, 1).flatten(1, 2)


GPU_LAYER_FORWARDS: Mapping[type[nn.Module], LayerForward] = {
    **LAYER_FORWARDS,
    **{kind: pool for kind, forward in LAYER_FORWARDS.items() if forward is layers.pool},
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.GELU: element_wise,
    nn.Tanh: element_wise,
    nn.Sigmoid: element_wise,
}
"""Forward of each supported layer on a GPU."""
