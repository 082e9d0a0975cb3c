"""The network that a list of layers says, as plain PyTorch; the language itself is `labbench.params.layers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from labbench.errors import InputError
from labbench.params.layers import Layer, Refused, Shape, read_layers, require_scores
from labbench.params.param import BadItem
from labbench.train.models import ACTIVATIONS


def build(layers: Sequence[str], shape: Shape, classes: int) -> nn.Sequential:
    """The network for samples of `shape` that gives a score for each of the classes.

    Raises InputError, which names the layer that cannot be and the shape that it gets.
    """
    try:
        found = read_layers(layers, shape)
        require_scores(found, shape, classes)
    except BadItem as problem:
        raise InputError(f"layers{problem}") from None
    except Refused as problem:
        raise InputError(str(problem)) from None
    return nn.Sequential(*without_useless_biases([MAKERS[layer.name](layer) for layer in found]))


def conv(layer: Layer) -> nn.Module:
    filters, kernel = map(int, layer.numbers)
    return nn.Conv2d(layer.gets[0], filters, kernel, padding=kernel // 2)


def batchnorm(layer: Layer) -> nn.Module:
    return (nn.BatchNorm2d if len(layer.gets) > 1 else nn.BatchNorm1d)(layer.gets[0])


def activation(layer: Layer) -> nn.Module:
    return ACTIVATIONS[layer.name]()


MAKERS: dict[str, Callable[[Layer], nn.Module]] = {
    "conv": conv,
    "maxpool": lambda layer: nn.MaxPool2d(int(layer.numbers[0])),
    "avgpool": lambda layer: nn.AvgPool2d(int(layer.numbers[0])),
    "linear": lambda layer: nn.Linear(layer.gets[0], layer.gives[0]),
    "flatten": lambda layer: nn.Flatten(),
    "batchnorm": batchnorm,
    "dropout": lambda layer: nn.Dropout(layer.numbers[0]),
    **dict.fromkeys(ACTIVATIONS, activation),
}


def without_useless_biases(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """The modules; a layer before batch normalisation without its bias, which would be taken off again."""
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_parameter("bias", None)
        yield module
