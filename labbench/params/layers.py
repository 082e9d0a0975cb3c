"""Parser and checks of `layers` without torch: ["conv 16", "relu", "maxpool 2", "flatten", "linear 10"].

A layer is given by the size of its output; its input shape follows from the layer before. Convolutions are padded by
half of their kernel, so that an odd kernel keeps the size of the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from labbench.errors import did_you_mean
from labbench.params.param import BadItem
from labbench.text import format_count

Shape: TypeAlias = tuple[int, ...]
"""Shape of one sample: (channels, height, width) or (numbers,)."""
Numbers: TypeAlias = tuple[float, ...]
"""Arguments of a layer, such as the channels and the kernel size of a convolution."""

ACTIVATION_NAMES = ("relu", "gelu", "tanh", "sigmoid", "step")


class LayerError(Exception):
    """Invalid layer or list of layers; a message about a layer continues the layer's text."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Parsed layer with the shapes of its input and output for one sample."""

    name: str
    numbers: Numbers
    """Arguments with defaults filled in: channels and kernel of a convolution, window of a pooling."""
    input_shape: Shape
    output_shape: Shape


@dataclass(frozen=True, slots=True)
class LayerType:
    """Parser and output shape of a type of layer; both functions raise LayerError."""

    read: Callable[[str], Numbers]
    output_shape: Callable[[Shape, Numbers], Shape]


def read_layers(layers: Sequence[str], shape: Shape) -> list[Layer]:
    """Parse the layers of a network for samples of `shape`.

    Raises:
        BadItem: A layer does not parse, or does not fit its input shape.
    """
    parsed = []
    for index, line in enumerate(layers):
        try:
            name, numbers = split_line(line)
            layer = Layer(name, numbers, shape, KINDS[name].output_shape(shape, numbers))
        except LayerError as reason:
            raise BadItem(index, line, str(reason)) from None
        parsed.append(layer)
        shape = layer.output_shape
    return parsed


def require_scores(layers: Sequence[Layer], shape: Shape, classes: int) -> None:
    """Check that a network maps samples of `shape` to one score per class, shape (classes,).

    Raises:
        LayerError: The output has another shape.
    """
    output_shape = layers[-1].output_shape if layers else shape
    if output_shape != (classes,):
        last_layers = ["flatten"] * (len(output_shape) > 1) + [f"linear {classes}"]
        example = ", ".join(f'"{layer}"' for layer in last_layers)
        raise LayerError(
            f"the output of layers is {format_shape(output_shape)}, but there are {classes} classes: end with {example}"
        )


def check_words(layers: Sequence[str]) -> None:
    """Raise BadItem for a layer with an unknown name or invalid arguments."""
    for index, line in enumerate(layers):
        try:
            split_line(line)
        except LayerError as reason:
            raise BadItem(index, line, str(reason)) from None


def split_line(line: str) -> tuple[str, Numbers]:
    """Return the name and the arguments of a layer. Raises LayerError if it is invalid."""
    name, _, rest = line.strip().partition(" ")
    if name in KINDS:
        return name, KINDS[name].read(rest.strip())
    if name in ("softmax", "log_softmax", "logsoftmax"):
        raise LayerError("leave it out: softmax is part of the loss, which takes the scores of the last linear layer")
    hint = did_you_mean(name, KINDS) or f"; the layers are {', '.join(KINDS)}"
    raise LayerError(f"there is no layer `{name}`{hint}")


def format_shape(shape: Shape) -> str:
    """Return a shape as text: `16x4x4 (channels x height x width)`, `10 numbers`."""
    if len(shape) == 1:
        return format_count(shape[0], "number")
    return "x".join(map(str, shape)) + " (channels x height x width)"


def read_filters_and_kernel(rest: str) -> Numbers:
    filters, *side = read_integers(
        rest, 2, 'the channels, and the kernel size unless it is 3: "conv 16" or "conv 16x5"'
    )
    return filters, side[0] if side else 3


def convolution_shape(shape: Shape, numbers: Numbers) -> Shape:
    _, height, width = require_image(shape)
    filters, kernel = map(int, numbers)
    grown = 1 - kernel % 2
    return filters, height + grown, width + grown


def read_window(rest: str) -> Numbers:
    return read_integers(rest or "2", 1, 'the window size: "maxpool 2"')


def pooling_shape(shape: Shape, numbers: Numbers) -> Shape:
    """Return the output shape (channels, height, width). Raises LayerError if the window is larger than the image."""
    channels, height, width = require_image(shape)
    side = int(numbers[0])
    if side > min(height, width):
        raise LayerError(f"a window of {side}x{side} does not fit in {format_shape(shape)}: make it smaller")
    return channels, height // side, width // side


def read_outputs(rest: str) -> Numbers:
    return read_integers(rest, 1, 'the number of outputs: "linear 32"')


def linear_shape(shape: Shape, numbers: Numbers) -> Shape:
    """Return the output shape (numbers,). Raises LayerError if the input is an image."""
    if len(shape) > 1:
        raise LayerError(f'its input is {format_shape(shape)}, but it needs a list of numbers: put "flatten" before it')
    return (int(numbers[0]),)


def flatten_shape(shape: Shape, numbers: Numbers) -> Shape:
    return (prod(shape),)


def same_shape(shape: Shape, numbers: Numbers) -> Shape:
    return shape


def read_probability(rest: str) -> Numbers:
    """Parse a probability, 0 <= p < 1. Raises LayerError if it is anything else."""
    if not re.fullmatch(r"0?\.\d+|0", rest):
        raise LayerError('write the probability, at least 0 and below 1: "dropout 0.5"')
    return (float(rest),)


def read_nothing(rest: str) -> Numbers:
    """Parse the arguments of a layer that has none. Raises LayerError if there are any."""
    if rest:
        raise LayerError(f"it takes no arguments: remove {rest!r}")
    return ()


def require_image(shape: Shape) -> tuple[int, int, int]:
    """Return (channels, height, width). Raises LayerError if the shape is not an image's."""
    if len(shape) != 3:
        raise LayerError(
            f"its input is {format_shape(shape)}, but it needs an image: put it before any flatten or linear"
        )
    channels, height, width = shape
    return channels, height, width


def read_integers(rest: str, at_most: int, how: str) -> Numbers:
    """Parse one to `at_most` integers joined by x. Raises LayerError, with `how` to write them, if that fails."""
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
