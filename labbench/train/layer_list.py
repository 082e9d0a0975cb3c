"""A network written as a list of layers: ["conv 16", "relu", "maxpool 2", "flatten", "linear 10"].

Only the outputs of a layer are written; what goes in is worked out from the layer before. Convolutions are padded by
half of their kernel, so that an odd one keeps the size of the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TypeAlias

from torch import nn

from labbench.errors import InputError, did_you_mean
from labbench.train.models import ACTIVATIONS

Shape: TypeAlias = tuple[int, ...]
"""Of one sample: (channels, height, width) or (numbers,)."""
Made: TypeAlias = tuple[nn.Module, Shape]
Maker: TypeAlias = Callable[[Shape, str], Made]
"""What makes a layer from the shape of its input and what is written behind its name; raises Refused."""


class Refused(Exception):
    """Why a layer cannot be, to be read behind the layer."""


def build(layers: Sequence[str], shape: Shape, classes: int) -> nn.Sequential:
    """The network for samples of `shape` that gives a score for each of the classes.

    Raises InputError, which names the layer that cannot be and the shape that it gets.
    """
    modules: list[nn.Module] = []
    for index, line in enumerate(layers):
        name, _, rest = line.strip().partition(" ")
        try:
            if name not in MAKERS:
                raise Refused(unknown(name))
            module, shape = MAKERS[name](shape, rest.strip())
        except Refused as reason:
            raise InputError(f'layers[{index}] = "{line}": {reason}') from None
        modules.append(module)
    if shape != (classes,):
        ends = ["flatten"] * (len(shape) > 1) + [f"linear {classes}"]
        example = ", ".join(f'"{end}"' for end in ends)
        raise InputError(f"layers give {shown(shape)}, but there are {classes} classes: end with {example}")
    return nn.Sequential(*without_useless_biases(modules))


def unknown(name: str) -> str:
    if name in ("softmax", "log_softmax", "logsoftmax"):
        return "leave it out: softmax is part of the loss, which takes the scores of the last linear layer"
    hint = did_you_mean(name, MAKERS)
    return f"there is no layer `{name}`{hint}" + ("" if hint else f"; there are {', '.join(MAKERS)}")


def shown(shape: Shape) -> str:
    """A shape in words: `16x4x4 (channels x height x width)`."""
    if len(shape) == 1:
        return f"{shape[0]} number{'s' * (shape[0] != 1)}"
    return "x".join(map(str, shape)) + " (channels x height x width)"


def conv(shape: Shape, rest: str) -> Made:
    depth, height, width = image(shape)
    filters, *side = whole(rest, 2, 'the channels, and the side of the kernel if it is not 3: "conv 16" or "conv 16x5"')
    kernel = side[0] if side else 3
    grown = 1 - kernel % 2
    sides = height + grown, width + grown
    return nn.Conv2d(depth, filters, kernel, padding=kernel // 2), (filters, *sides)


def pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d]) -> Maker:
    def make(shape: Shape, rest: str) -> Made:
        depth, height, width = image(shape)
        side = whole(rest or "2", 1, 'the side of its window: "maxpool 2"')[0]
        if side > min(height, width):
            raise Refused(f"a window of {side}x{side} does not fit in {shown(shape)}")
        return kind(side), (depth, height // side, width // side)

    return make


def linear(shape: Shape, rest: str) -> Made:
    outputs = whole(rest, 1, 'how many numbers it gives: "linear 32"')[0]
    if len(shape) > 1:
        raise Refused(f'it gets {shown(shape)}, and takes a plain list of numbers: put "flatten" before it')
    return nn.Linear(shape[0], outputs), (outputs,)


def flatten(shape: Shape, rest: str) -> Made:
    nothing(rest)
    return nn.Flatten(), (prod(shape),)


def batchnorm(shape: Shape, rest: str) -> Made:
    nothing(rest)
    return (nn.BatchNorm2d if len(shape) > 1 else nn.BatchNorm1d)(shape[0]), shape


def dropout(shape: Shape, rest: str) -> Made:
    if not re.fullmatch(r"0?\.\d+|0", rest):
        raise Refused('say with which probability, from 0 to below 1: "dropout 0.5"')
    return nn.Dropout(float(rest)), shape


def activation(kind: type[nn.Module]) -> Maker:
    def make(shape: Shape, rest: str) -> Made:
        nothing(rest)
        return kind(), shape

    return make


MAKERS: dict[str, Maker] = {
    "conv": conv,
    "maxpool": pool(nn.MaxPool2d),
    "avgpool": pool(nn.AvgPool2d),
    "linear": linear,
    "flatten": flatten,
    "batchnorm": batchnorm,
    "dropout": dropout,
    **{name: activation(kind) for name, kind in ACTIVATIONS.items()},
}


def image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise Refused(f"it gets {shown(shape)}, and takes an image: there is none behind flatten or linear")
    channels, height, width = shape
    return channels, height, width


def whole(rest: str, at_most: int, how: str) -> list[int]:
    """The one to `at_most` numbers behind a layer's name, joined by x."""
    if not re.fullmatch(rf"[1-9]\d{{0,5}}(x[1-9]\d{{0,5}}){{0,{at_most - 1}}}", rest):
        raise Refused(f"write {how}")
    return [int(number) for number in rest.split("x")]


def nothing(rest: str) -> None:
    if rest:
        raise Refused(f"it takes nothing behind its name, and here stands {rest!r}")


def without_useless_biases(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """The modules; a layer before batch normalisation without its bias, which would be taken off again."""
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_parameter("bias", None)
        yield module
