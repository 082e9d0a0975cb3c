"""Models of the built-in tasks: MLP, CNN, and networks from a list of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from labbench.errors import InputError
from labbench.params.layers import Layer, LayerError, Shape, read_layers, require_scores
from labbench.params.param import BadItem


class Step(nn.Module):
    """1 where the input is above 0, else 0: no gradient passes it, so that layers before it stay as they are."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.sign().relu()  # two operations that have a derivative, of zero


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "step": Step,
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
    shape: Sequence[int],
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

    Images are of `shape` (channels, height, width). The padding is half the kernel, so an odd kernel keeps the size;
    an image of a single row or column is not pooled.
    """
    layers: list[nn.Module] = []
    depth, height, width = shape
    for filters in channels:
        layers.append(nn.Conv2d(depth, filters, kernel, padding=kernel // 2, bias=not batchnorm))
        height, width = height + 1 - kernel % 2, width + 1 - kernel % 2
        if batchnorm:
            layers.append(nn.BatchNorm2d(filters))
        layers.append(ACTIVATIONS[activation]())
        if pooling != "none" and min(height, width) > 1:
            layers.append(POOLINGS[pooling](2))
            height, width = height // 2, width // 2
        depth = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(depth * height * width, classes))


def perceptron(inputs: int) -> nn.Sequential:
    """A single unit, whose weights begin at zero: the class is whether its output is above 0."""
    unit = nn.Linear(inputs, 1)
    nn.init.zeros_(unit.weight)
    nn.init.zeros_(unit.bias)
    return nn.Sequential(unit)


def bag_of_words(vocabulary: int, length: int, width: int, then: nn.Sequential) -> nn.Sequential:
    """The mean of the vectors of a text's `length` words, each of `width` numbers, and a network that takes it."""
    # a window as long as the text averages over its words: (N, length, width) -> (N, 1, width)
    return nn.Sequential(nn.Embedding(vocabulary, width), nn.AvgPool2d((length, 1)), *then)


def build_network(layers: Sequence[str], shape: Shape, classes: int) -> nn.Sequential:
    """The network for samples of `shape` that gives a score for each of the classes.

    Raises InputError, which names the layer that cannot be and the shape that it gets.
    """
    try:
        found = read_layers(layers, shape)
        require_scores(found, shape, classes)
    except BadItem as problem:
        raise InputError(f"layers{problem}") from None
    except LayerError as problem:
        raise InputError(str(problem)) from None
    return nn.Sequential(*remove_useless_biases([LAYER_MAKERS[layer.name](layer) for layer in found]))


def make_conv(layer: Layer) -> nn.Module:
    filters, kernel = map(int, layer.numbers)
    return nn.Conv2d(layer.input_shape[0], filters, kernel, padding=kernel // 2)


def make_batchnorm(layer: Layer) -> nn.Module:
    return (nn.BatchNorm2d if len(layer.input_shape) > 1 else nn.BatchNorm1d)(layer.input_shape[0])


def make_activation(layer: Layer) -> nn.Module:
    return ACTIVATIONS[layer.name]()


LAYER_MAKERS: dict[str, Callable[[Layer], nn.Module]] = {
    "conv": make_conv,
    "maxpool": lambda layer: nn.MaxPool2d(int(layer.numbers[0])),
    "avgpool": lambda layer: nn.AvgPool2d(int(layer.numbers[0])),
    "linear": lambda layer: nn.Linear(layer.input_shape[0], layer.gives[0]),
    "flatten": lambda layer: nn.Flatten(),
    "batchnorm": make_batchnorm,
    "dropout": lambda layer: nn.Dropout(layer.numbers[0]),
    **dict.fromkeys(ACTIVATIONS, make_activation),
}


def remove_useless_biases(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """The modules; a layer before batch normalisation without its bias, which would be taken off again."""
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_parameter("bias", None)
        yield module
