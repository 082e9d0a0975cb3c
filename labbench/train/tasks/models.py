"""Models of the built-in tasks: MLP, CNN, and networks built from a list of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from labbench.errors import InputError
from labbench.params.layers import Layer, LayerError, Shape, read_layers, require_scores
from labbench.params.param import BadItem


class Step(nn.Module):
    """Step function: 1 for inputs above 0, else 0.

    Its gradient is 0, so layers before it do not train.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the step of each input, same shape."""
        return inputs.sign().relu()  # both operations have a derivative, which is zero


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
    """Return an MLP: blocks of Linear, BatchNorm, activation, Dropout, then Linear.

    A layer before batch normalization has no bias, because the normalization would subtract it.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers.append(nn.Linear(inputs, width, bias=not batchnorm))
        if batchnorm:
            layers.append(nn.BatchNorm1d(width))
        layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


@dataclass(frozen=True, slots=True)
class ConvBlock:
    """Layers of a CNN between two widths: Conv2d, BatchNorm, activation, 2x2 pooling."""

    kernel: int = 3
    pooling: str = "max"
    """A key of `POOLINGS`, or "none"."""
    activation: str = "relu"
    """A key of `ACTIVATIONS`."""
    batchnorm: bool = False


def cnn(
    shape: Sequence[int], channels: Sequence[int], classes: int, block: ConvBlock, *, dropout: float = 0.0
) -> nn.Sequential:
    """Return a CNN: a block per entry of `channels`, then Dropout and Linear.

    Images have `shape` (channels, height, width). The padding is half the kernel, so that an odd kernel keeps the size;
    an image of a single row or column is not pooled.
    """
    layers: list[nn.Module] = []
    depth, height, width = shape
    kernel, batchnorm = block.kernel, block.batchnorm
    for filters in channels:
        layers.append(nn.Conv2d(depth, filters, kernel, padding=kernel // 2, bias=not batchnorm))
        height, width = height + 1 - kernel % 2, width + 1 - kernel % 2
        if batchnorm:
            layers.append(nn.BatchNorm2d(filters))
        layers.append(ACTIVATIONS[block.activation]())
        if block.pooling != "none" and min(height, width) > 1:
            layers.append(POOLINGS[block.pooling](2))
            height, width = height // 2, width // 2
        depth = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(depth * height * width, classes))


def perceptron(inputs: int) -> nn.Sequential:
    """Return a single linear unit with zero weights.

    An output above 0 means class 1.
    """
    unit = nn.Linear(inputs, 1)
    nn.init.zeros_(unit.weight)
    nn.init.zeros_(unit.bias)
    return nn.Sequential(unit)


def bag_of_words(vocabulary: int, length: int, width: int, head: nn.Sequential) -> nn.Sequential:
    """Return a network that applies `head` to the mean embedding of a text's words.

    Texts have `length` words, embeddings `width` numbers.
    """
    # a window as long as the text averages over its words: (N, length, width) -> (N, 1, width)
    return nn.Sequential(nn.Embedding(vocabulary, width), nn.AvgPool2d((length, 1)), *head)


def build_network(layers: Sequence[str], shape: Shape, classes: int) -> nn.Sequential:
    """Return the network with these layers and one score per class.

    Raises:
        InputError: If a layer does not fit its input; the message names the layer and the shape of its input.
    """
    try:
        parsed = read_layers(layers, shape)
        require_scores(parsed, shape, classes)
    except BadItem as problem:
        raise InputError(f"layers{problem}") from None
    except LayerError as problem:
        raise InputError(str(problem)) from None
    return nn.Sequential(*remove_useless_biases([LAYER_MAKERS[layer.name](layer) for layer in parsed]))


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
    "linear": lambda layer: nn.Linear(layer.input_shape[0], layer.output_shape[0]),
    "flatten": lambda layer: nn.Flatten(),
    "batchnorm": make_batchnorm,
    "dropout": lambda layer: nn.Dropout(layer.numbers[0]),
    **dict.fromkeys(ACTIVATIONS, make_activation),
}


def remove_useless_biases(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Yield the modules, without a bias in layers before batch normalization.

    Batch normalization would subtract the bias.
    """
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_parameter("bias", None)
        yield module
