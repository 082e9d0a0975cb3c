"""The language of `layers`: ["conv 16", "relu", "maxpool 2", "flatten", "linear 10"], read and checked without torch.

Only the outputs of a layer are written; what goes in is worked out from the layer before. Convolutions are padded by
half of their kernel, so that an odd one keeps the size of the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from labbench.errors import did_you_mean
from labbench.params.param import BadItem

Shape: TypeAlias = tuple[int, ...]
"""Of one sample: (channels, height, width) or (numbers,)."""
Numbers: TypeAlias = tuple[float, ...]

ACTIVATION_NAMES = ("relu", "gelu", "tanh", "sigmoid", "step")


class LayerError(Exception):
    """Why a layer cannot be, to be read behind the layer; or why a whole list cannot."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as it was written, and the shapes of one sample before and behind it."""

    name: str
    numbers: Numbers
    """What stands behind the name, complete: the channels and the kernel of a convolution, the window of a pooling."""
    input_shape: Shape
    gives: Shape


@dataclass(frozen=True, slots=True)
class LayerType:
    """What may stand behind a layer's name, and the shape that it gives; both raise Refused."""

    read: Callable[[str], Numbers]
    gives: Callable[[Shape, Numbers], Shape]


def read_layers(layers: Sequence[str], shape: Shape) -> list[Layer]:
    """The layers of a network for samples of `shape`. Raises BadItem for one that cannot be, with the shape it gets."""
    found = []
    for index, line in enumerate(layers):
        try:
            name, numbers = split_line(line)
            layer = Layer(name, numbers, shape, KINDS[name].gives(shape, numbers))
        except LayerError as reason:
            raise BadItem(index, line, str(reason)) from None
        found.append(layer)
        shape = layer.gives
    return found


def require_scores(layers: Sequence[Layer], shape: Shape, classes: int) -> None:
    """Raise Refused for a network that gives other than a score for each class to samples of `shape`."""
    gives = layers[-1].gives if layers else shape
    if gives != (classes,):
        ends = ["flatten"] * (len(gives) > 1) + [f"linear {classes}"]
        example = ", ".join(f'"{end}"' for end in ends)
        raise LayerError(f"layers give {format_shape(gives)}, but there are {classes} classes: end with {example}")


def check_words(layers: Sequence[str]) -> None:
    """Raise BadItem for a layer that cannot be whatever it gets: its name, or what stands behind it."""
    for index, line in enumerate(layers):
        try:
            split_line(line)
        except LayerError as reason:
            raise BadItem(index, line, str(reason)) from None


def split_line(line: str) -> tuple[str, Numbers]:
    """A layer's name and its numbers. Raises Refused."""
    name, _, rest = line.strip().partition(" ")
    if name in KINDS:
        return name, KINDS[name].read(rest.strip())
    if name in ("softmax", "log_softmax", "logsoftmax"):
        raise LayerError("leave it out: softmax is part of the loss, which takes the scores of the last linear layer")
    hint = did_you_mean(name, KINDS) or f"; there are {', '.join(KINDS)}"
    raise LayerError(f"there is no layer `{name}`{hint}")


def format_shape(shape: Shape) -> str:
    """A shape in words: `16x4x4 (channels x height x width)`."""
    if len(shape) == 1:
        return f"{shape[0]} number{'s' * (shape[0] != 1)}"
    return "x".join(map(str, shape)) + " (channels x height x width)"


def read_filters_and_kernel(rest: str) -> Numbers:
    filters, *side = read_integers(
        rest, 2, 'the channels, and the side of the kernel if it is not 3: "conv 16" or "conv 16x5"'
    )
    return filters, side[0] if side else 3


def convolution_shape(shape: Shape, numbers: Numbers) -> Shape:
    _, height, width = require_image(shape)
    filters, kernel = map(int, numbers)
    grown = 1 - kernel % 2
    return filters, height + grown, width + grown


def read_window(rest: str) -> Numbers:
    return read_integers(rest or "2", 1, 'the side of its window: "maxpool 2"')


def pooling_shape(shape: Shape, numbers: Numbers) -> Shape:
    channels, height, width = require_image(shape)
    side = int(numbers[0])
    if side > min(height, width):
        raise LayerError(f"a window of {side}x{side} does not fit in {format_shape(shape)}")
    return channels, height // side, width // side


def read_outputs(rest: str) -> Numbers:
    return read_integers(rest, 1, 'how many numbers it gives: "linear 32"')


def linear_shape(shape: Shape, numbers: Numbers) -> Shape:
    if len(shape) > 1:
        raise LayerError(f'it gets {format_shape(shape)}, and takes a plain list of numbers: put "flatten" before it')
    return (int(numbers[0]),)


def flatten_shape(shape: Shape, numbers: Numbers) -> Shape:
    return (prod(shape),)


def same_shape(shape: Shape, numbers: Numbers) -> Shape:
    return shape


def read_probability(rest: str) -> Numbers:
    if not re.fullmatch(r"0?\.\d+|0", rest):
        raise LayerError('say with which probability, from 0 to below 1: "dropout 0.5"')
    return (float(rest),)


def read_nothing(rest: str) -> Numbers:
    if rest:
        raise LayerError(f"it takes nothing behind its name, and here stands {rest!r}")
    return ()


def require_image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise LayerError(f"it gets {format_shape(shape)}, and takes an image: there is none behind flatten or linear")
    channels, height, width = shape
    return channels, height, width


def read_integers(rest: str, at_most: int, how: str) -> Numbers:
    """The one to `at_most` numbers behind a layer's name, joined by x."""
    if not re.fullmatch(rf"[1-9]\d{{0,5}}(x[1-9]\d{{0,5}}){{0,{at_most - 1}}}", rest):
        raise LayerError(f"write {how}")
    return tuple(int(number) for number in rest.split("x"))


KINDS: dict[str, LayerType] = {
    "conv": LayerType(read_filters_and_kernel, convolution_shape),
    "maxpool": LayerType(read_window, pooling_shape),
    "avgpool": LayerType(read_window, pooling_shape),
    "linear": LayerType(read_outputs, linear_shape),
    "flatten": LayerType(read_nothing, flatten_shape),
    "batchnorm": LayerType(read_nothing, same_shape),
    "dropout": LayerType(read_probability, same_shape),
    **dict.fromkeys(ACTIVATION_NAMES, LayerType(read_nothing, same_shape)),
}
