"""The networks of the digits task, as plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def mlp(
    inputs: int, hidden: Sequence[int], classes: int, *, activation: str, dropout: float, batchnorm: bool
) -> nn.Sequential:
    """Per hidden layer Linear, BatchNorm, activation, Dropout; then Linear to the classes.

    A layer before batch normalisation has no bias: it would be taken off again.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers.append(nn.Linear(inputs, width, bias=not batchnorm))
        if batchnorm:
            layers.append(nn.BatchNorm1d(width))
        layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def cnn(
    side: int,
    channels: Sequence[int],
    classes: int,
    *,
    kernel: int,
    pooling: str,
    activation: str,
    dropout: float,
    batchnorm: bool,
) -> nn.Sequential:
    """Per entry of `channels` Conv2d, BatchNorm, activation, 2x2 pooling; then Dropout and Linear to the classes.

    Images are `side` x `side` of one channel. The padding is half the kernel, so an odd kernel keeps the size; an
    image of a single pixel is not pooled.
    """
    layers: list[nn.Module] = []
    depth = 1
    for width in channels:
        layers.append(nn.Conv2d(depth, width, kernel, padding=kernel // 2, bias=not batchnorm))
        side += 1 - kernel % 2
        if batchnorm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(ACTIVATIONS[activation]())
        if pooling != "none" and side > 1:
            layers.append(POOLINGS[pooling](2))
            side //= 2
        depth = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(depth * side * side, classes))
