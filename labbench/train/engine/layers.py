"""Stacked layers: torch.nn with a leading dimension of S runs.

Activations have shape (S, N, features, ...), but the samples N are innermost in memory: matrix products then read and
write them without a copy, and the samples of each feature are contiguous for batch normalization. No operation reduces
over runs, so the results of a run do not depend on its neighbours in the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labbench.train.engine.dropout import SPATIAL_DIMENSIONS, SeededDropout
from labbench.train.engine.flat_params import ALIGNMENT

LayerTensors: TypeAlias = Mapping[str, Tensor]
"""Parameters and buffers of a layer by name, each of shape (S, ...)."""
LayerForward: TypeAlias = Callable[[Any, LayerTensors, Tensor], Tensor]


def linear(layer: nn.Linear, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Apply a linear layer: x of shape (S, N, ..., I) to shape (S, N, ..., O)."""
    S, *middle, _ = x.shape
    columns = x.reshape(S, -1, layer.in_features).transpose(1, 2)  # (S, I, N)
    if layer.bias is None:
        y = torch.bmm(tensors["weight"], columns)  # (S, O, N)
    else:
        y = torch.baddbmm(tensors["bias"].unsqueeze(2), tensors["weight"], columns)
    outputs: Tensor = y.transpose(1, 2).unflatten(1, middle)
    return outputs


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Normalize x of shape (S, N, C, ...) over samples and pixels (Ioffe & Szegedy, 2015, algorithm 1).

    The channels of all runs are the channels of one batch norm. Training mode uses the group-norm kernel with one
    group per channel: the same formula in half the time on a CPU.

    Raises:
        ValueError: In training, if a channel has a single value.
    """
    S, _, C = x.shape[:3]
    if x.dtype == torch.bfloat16:
        x = x.float()  # bfloat16 has too few digits for means and variances
    columns = x.movedim(1, -1)  # (S, C, ..., N)
    folded = columns.reshape(1, S * C, -1).contiguous()  # (1, S * C, pixels * N)
    mean, variance = (tensors[name].view(-1) if name in tensors else None for name in ("running_mean", "running_var"))
    weight, bias = (tensors[name].reshape(-1).contiguous() if layer.affine else None for name in ("weight", "bias"))
    assert layer.momentum is not None  # None is a cumulative average: `is_supported` excludes it
    values = folded.shape[2]
    if not layer.training and mean is not None:
        y = F.batch_norm(folded, mean, variance, weight, bias, False, layer.momentum, layer.eps)
    else:
        check_batch_norm_batch(values, x.shape[1:])
        y, means, scales = torch.native_group_norm(folded, weight, bias, 1, S * C, values, S * C, layer.eps)
        if layer.training and mean is not None and variance is not None:
            tensors["num_batches_tracked"].add_(1)
            biased = scales.detach().view(-1).pow(-2).sub_(layer.eps)  # scales are 1 / sqrt(variance + eps)
            mean.lerp_(means.detach().view(-1), layer.momentum)
            variance.lerp_(biased.mul_(values / (values - 1)), layer.momentum)  # torch keeps the unbiased variance
    return y.view(columns.shape).movedim(-1, 1)


def check_batch_norm_batch(values: int, shape: Sequence[int]) -> None:
    """Raise ValueError if batch norm gets a single value per channel.

    `shape` is the shape of the batch, (N, C, ...).
    """
    if values == 1:
        raise ValueError(
            f"batch normalization got a batch of shape {tuple(shape)}: it needs more than one value per channel, "
            "so use a larger batch_size"
        )


def layer_norm(layer: nn.LayerNorm, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Normalize x of shape (S, N, ..., *normalized_shape) over its last dimensions (Ba et al., 2016)."""
    y = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    ones = (1,) * (x.dim() - 1 - len(layer.normalized_shape))
    for name, combine in (("weight", torch.mul), ("bias", torch.add)):
        if name in tensors:
            y = combine(y, tensors[name].view(len(x), *ones, *layer.normalized_shape))
    return y


def convolution(layer: nn.Conv1d | nn.Conv2d, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Convolve x of shape (S, N, C, ...) run by run.

    One grouped convolution over all runs would change the order of summation at some stack widths.
    """
    convolve = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
    biases = tensors["bias"] if layer.bias is not None else [None] * len(x)
    return torch.stack(
        [
            convolve(inputs, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
            for inputs, weight, bias in zip(x, tensors["weight"], biases, strict=True)
        ]
    )


def embedding(layer: nn.Embedding, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Return rows of the tables (S, V, E) at the indices x (S, N, ...), shape (S, N, ..., E)."""
    S, V, E = tensors["weight"].shape
    offsets = torch.arange(0, S * V, V, device=x.device).view(S, *[1] * (x.dim() - 1))
    return F.embedding(x + offsets, tensors["weight"].reshape(S * V, E))


def pool(layer: nn.Module, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Pool x of shape (S, N, C, ...) within each channel of each sample."""
    pooled: Tensor = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return pooled


def as_pair(value: Any) -> tuple[int, int]:
    """Return torch's `int or pair` argument as a pair (vertical, horizontal)."""
    return (value, value) if isinstance(value, int) else value


def element_wise(layer: nn.Module, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Apply an element-wise layer to x of any shape."""
    y: Tensor = layer(x)
    return y


def transcendental(layer: nn.Module, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Apply an element-wise layer that torch approximates, to x of shape (S, ...).

    torch uses a different approximation for the last elements of a tensor, which do not fill a vector register. Runs
    whose size is not a multiple of `ALIGNMENT` are therefore processed one by one, so that the result does not depend
    on the stack width.
    """
    if x[0].numel() % ALIGNMENT == 0:
        return element_wise(layer, tensors, x)
    return torch.stack([layer(run) for run in x])


def flatten(layer: nn.Flatten, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Flatten x of shape (S, N, ...); the layer counts dimensions without S."""
    start, end = (dim + 1 if dim >= 0 else dim for dim in (layer.start_dim, layer.end_dim))
    return x.flatten(start, end)


LAYER_FORWARDS: dict[type[nn.Module], LayerForward] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.LayerNorm: layer_norm,
    nn.Embedding: embedding,
    nn.MaxPool1d: pool,
    nn.MaxPool2d: pool,
    nn.AvgPool1d: pool,
    nn.AvgPool2d: pool,
    nn.AdaptiveAvgPool1d: pool,
    nn.AdaptiveAvgPool2d: pool,
    nn.AdaptiveMaxPool1d: pool,
    nn.AdaptiveMaxPool2d: pool,
    nn.ReLU: element_wise,
    nn.GELU: transcendental,
    nn.Tanh: transcendental,
    nn.Sigmoid: transcendental,
    nn.Identity: element_wise,
    SeededDropout: element_wise,
    nn.Flatten: flatten,
}


def is_supported(module: nn.Module) -> bool:
    """Return True if a module consists of supported layers.

    Supported are the layers of `LAYER_FORWARDS` with most settings, and any Sequential of supported modules. Tied
    parameters are not: each layer writes the gradients of its own parameters.
    """
    if len(list(module.named_parameters(remove_duplicate=False))) > len(list(module.parameters())):
        return False
    if type(module) is nn.Sequential:
        return not has_hooks(module) and all(is_supported(child) for child in module)
    if type(module) not in LAYER_FORWARDS.keys() | SPATIAL_DIMENSIONS.keys() or has_hooks(module):
        return False
    match module:
        case nn.Conv1d() | nn.Conv2d():
            return module.padding_mode == "zeros"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return module.momentum is not None
        case nn.Embedding():
            return module.padding_idx is None and module.max_norm is None and not module.scale_grad_by_freq
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.AdaptiveMaxPool1d() | nn.AdaptiveMaxPool2d():
            return not module.return_indices
        case nn.Flatten():
            return module.start_dim != 0
    return True


def has_hooks(module: nn.Module) -> bool:
    """Return True if a module has forward hooks, backward hooks or parametrizations."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds) or hasattr(module, "parametrizations")


def list_layers(model: nn.Module) -> list[tuple[nn.Module, dict[str, str]]]:
    """Return the layers of a model in the order of application.

    Each layer comes with the paths of its tensors by name. A max pooling is moved before a ReLU that precedes it: the
    result is the same, and the ReLU has fewer elements (a quarter for 2x2 windows).
    """
    paths = {module: f"{path}." if path else "" for path, module in model.named_modules()}
    layers = [*_iter_layers(model)]
    for index, (layer, successor) in enumerate(pairwise([*layers])):
        if type(layer) is nn.ReLU and type(successor) is nn.MaxPool2d:
            layers[index : index + 2] = successor, layer
    names = ([*layer._parameters, *layer._buffers] for layer in layers)
    return [
        (layer, {name: paths[layer] + name for name in layer_names if getattr(layer, name) is not None})
        for layer, layer_names in zip(layers, names, strict=True)
    ]


def _iter_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a nested Sequential, with repetitions."""
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from _iter_layers(child)
    else:
        yield module


class StackedSequential:
    """A Sequential of supported layers as a function of stacked tensors."""

    def __init__(self, model: nn.Module, forwards: Mapping[type[nn.Module], LayerForward]) -> None:
        """`forwards` has the forward of each layer by its class."""
        self._steps = [(layer, forwards[type(layer)], paths) for layer, paths in list_layers(model)]

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the outputs (S, N, ...) for inputs x (S, N, ...) and tensors (S, ...) by path."""
        for layer, forward, paths in self._steps:
            x = forward(layer, {name: tensors[path] for name, path in paths.items()}, x)
        return x
