"""Known layers for S runs at once: the same mathematics as torch.nn's, with a run dimension in front.

Activations are (S, N, features, ...), but lie in memory with the samples N behind the features: a matrix product then
takes and leaves them so without a copy, and batch normalisation finds each feature's samples side by side.
Nothing here reduces over runs, so that a run's numbers do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labbench.train.engine.dropout import SPATIAL_DIMENSIONS, SeededDropout
from labbench.train.engine.flat_params import ALIGNMENT

LayerTensors: TypeAlias = Mapping[str, Tensor]
"""A layer's own parameters and buffers by their names in it, each (S, ...)."""
LayerForward: TypeAlias = Callable[[Any, LayerTensors, Tensor], Tensor]


def linear(layer: nn.Linear, tensors: LayerTensors, x: Tensor) -> Tensor:
    """(S, N, ..., I) -> (S, N, ..., O)."""
    runs, *between, _ = x.shape
    columns = x.reshape(runs, -1, layer.in_features).transpose(1, 2)  # (S, I, N)
    if layer.bias is None:
        y = torch.bmm(tensors["weight"], columns)  # (S, O, N)
    else:
        y = torch.baddbmm(tensors["bias"].unsqueeze(2), tensors["weight"], columns)
    outputs: Tensor = y.transpose(1, 2).unflatten(1, between)
    return outputs


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, tensors: LayerTensors, x: Tensor) -> Tensor:
    """(S, N, C, ...), normalised over samples and pixels: as one batch norm with the channels of all runs.

    In training it is a group norm whose groups are the channels, the same formula in half the time on a CPU.
    """
    S, _, C = x.shape[:3]
    if x.dtype == torch.bfloat16:
        x = x.float()  # means and variances need more digits
    behind = x.movedim(1, -1)  # (S, C, ..., N)
    folded = behind.reshape(1, S * C, -1).contiguous()  # (1, S * C, pixels * N)
    mean, variance = (tensors[name].view(-1) if name in tensors else None for name in ("running_mean", "running_var"))
    weight, bias = (tensors[name].reshape(-1).contiguous() if layer.affine else None for name in ("weight", "bias"))
    assert layer.momentum is not None  # a cumulative average: such a layer is not stacked
    values = folded.shape[2]
    if not layer.training and mean is not None:
        y = F.batch_norm(folded, mean, variance, weight, bias, False, layer.momentum, layer.eps)
    elif values == 1:
        raise ValueError(f"batch normalisation of a single value a channel: batches of {tuple(x.shape[1:])}")
    else:
        y, means, scales = torch.native_group_norm(folded, weight, bias, 1, S * C, values, S * C, layer.eps)
        if layer.training and mean is not None and variance is not None:
            tensors["num_batches_tracked"].add_(1)
            found = (
                scales.detach().view(-1).pow(-2).sub_(layer.eps).mul_(values / (values - 1))
            )  # unbiased, as torch keeps it
            mean.lerp_(means.detach().view(-1), layer.momentum)
            variance.lerp_(found, layer.momentum)
    return y.view(behind.shape).movedim(-1, 1)


def layer_norm(layer: nn.LayerNorm, tensors: LayerTensors, x: Tensor) -> Tensor:
    """(S, N, ..., *normalized_shape)."""
    y = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    between = (1,) * (x.dim() - 1 - len(layer.normalized_shape))
    for name, combine in (("weight", torch.mul), ("bias", torch.add)):
        if name in tensors:
            y = combine(y, tensors[name].view(len(x), *between, *layer.normalized_shape))
    return y


def convolution(layer: nn.Conv1d | nn.Conv2d, tensors: LayerTensors, x: Tensor) -> Tensor:
    """(S, N, C, ...), run by run: grouped over runs, the same sums come out in another order at some widths."""
    convolve = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
    biases = tensors["bias"] if layer.bias is not None else [None] * len(x)
    return torch.stack(
        [
            convolve(inputs, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
            for inputs, weight, bias in zip(x, tensors["weight"], biases, strict=True)
        ]
    )


def embedding(layer: nn.Embedding, tensors: LayerTensors, x: Tensor) -> Tensor:
    """(S, N, ...) -> (S, N, ..., E): the tables of all runs as one long table."""
    S, V, E = tensors["weight"].shape
    first = torch.arange(0, S * V, V, device=x.device).view(S, *[1] * (x.dim() - 1))
    return F.embedding(x + first, tensors["weight"].reshape(S * V, E))


def pool(layer: nn.Module, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Pooling: (S, N, C, ...), each channel of each sample by itself."""
    pooled: Tensor = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return pooled


def as_pair(value: Any) -> tuple[int, int]:
    """As torch takes it: one number for both directions, or one for each."""
    return (value, value) if isinstance(value, int) else value


def element_wise(layer: nn.Module, tensors: LayerTensors, x: Tensor) -> Tensor:
    y: Tensor = layer(x)
    return y


def transcendental(layer: nn.Module, tensors: LayerTensors, x: Tensor) -> Tensor:
    """Element-wise, by approximations: the last elements of a tensor that fill no vector get others.

    So where a run does not fill whole vectors, each is a tensor of its own: the same last elements at any width.
    """
    if x[0].numel() % ALIGNMENT == 0:
        return element_wise(layer, tensors, x)
    return torch.stack([layer(run) for run in x])


def flatten(layer: nn.Flatten, tensors: LayerTensors, x: Tensor) -> Tensor:
    """(S, N, ...), whose dimensions are counted without the S."""
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
    """Whether all of a model is a Sequential of layers in `LAYER_FORWARDS`, in the forms that are written here."""
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
    """Whether somebody looks into the module while it works, or has put parametrizations on it."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds) or hasattr(module, "parametrizations")


def list_layers(model: nn.Module) -> list[tuple[nn.Module, dict[str, str]]]:
    """The known layers of a model as they are applied, each with the paths in the model of what is its own.

    Of a ReLU before a max pooling the pooling comes first: the same numbers, and the activation has a quarter to do.
    """
    paths = {module: f"{path}." if path else "" for path, module in model.named_modules()}
    layers = [*_iter_layers(model)]
    for first, (one, other) in enumerate(pairwise([*layers])):
        if type(one) is nn.ReLU and type(other) is nn.MaxPool2d:
            layers[first : first + 2] = other, one
    names = ([*layer._parameters, *layer._buffers] for layer in layers)
    return [
        (layer, {name: paths[layer] + name for name in own if getattr(layer, name) is not None})
        for layer, own in zip(layers, names, strict=True)
    ]


def _iter_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers in a Sequential, again and again where one stands in several places."""
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from _iter_layers(child)
    else:
        yield module


class StackedSequential:
    """A model of known layers, as one function of stacked tensors."""

    def __init__(self, model: nn.Module) -> None:
        self._steps = [(layer, LAYER_FORWARDS[type(layer)], own) for layer, own in list_layers(model)]

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        for layer, forward, own in self._steps:
            x = forward(layer, {name: tensors[path] for name, path in own.items()}, x)
        return x
