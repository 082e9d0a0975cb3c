"""The built-in tasks: their data, corrupted by the config, and the networks that a config describes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from torch import Tensor, nn

from labbench.errors import InputError
from labbench.params.builtin import BUILTIN, IMAGE_SHAPES
from labbench.params.layers import Shape
from labbench.records import Config
from labbench.train.data.corruption import class_count, corrupt
from labbench.train.data.dataset import Data, load_digits
from labbench.train.data.image_sets import IMAGE_SETS, load_image_set
from labbench.train.data.toys import TOPICS, VOCABULARY, make_texts, make_toy
from labbench.train.data.user_files import load_user_data, standardize_targets
from labbench.train.tasks.losses import (
    accuracy,
    classification_accuracy,
    classification_loss,
    cross_entropy,
    prediction_loss,
    prediction_metrics,
)
from labbench.train.tasks.models import ConvBlock, bag_of_words, build_network, cnn, mlp, perceptron
from labbench.train.tasks.pretraining import extract_features, load_pretrained_body, make_network, parse_pretraining


class DigitsTask:
    """Handwritten digits of 8x8 pixels in ten classes."""

    params = BUILTIN["digits"]

    def data(self, config: Config) -> Data:
        return corrupt(load_digits(), config)

    def model(self, config: Config) -> nn.Module:
        return image_model(config, IMAGE_SHAPES["digits"], class_count(config, 10))

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


class ImagesTask:
    """A published image data set, downloaded on first use."""

    def __init__(self, name: str) -> None:
        self.name, self.params = name, BUILTIN[name]

    def data(self, config: Config) -> Data:
        return corrupt(load_image_set(self.name), config)

    def model(self, config: Config) -> nn.Module:
        return image_model(config, IMAGE_SHAPES[self.name], class_count(config, 10))

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


class ToyTask:
    """Synthetic points with a few inputs: moons, spirals, XOR and others."""

    params = BUILTIN["toy"]

    def data(self, config: Config) -> Data:
        return corrupt(make_toy(config["data"], config["noise"]), config)

    def model(self, config: Config) -> nn.Module:
        """Return the network for the data set.

        Raises InputError for a perceptron on more than two classes.
        """
        data = make_toy(config["data"], config["noise"])
        inputs = data.train[0].shape[1]
        if config["layers"] is not None:
            return build_network(config["layers"], (inputs,), data.classes)
        if config["model"] == "perceptron":
            if data.classes > 2:
                raise InputError(
                    f'model = "perceptron" separates two classes, but {config["data"]} has {data.classes}; use "mlp"'
                )
            return perceptron(inputs)
        return mlp_from_config(config, inputs, data.classes)

    loss = staticmethod(classification_loss)
    metrics = staticmethod(classification_accuracy)


class TextsTask:
    """Synthetic texts on four topics: most words are rare, and most carry no information."""

    params = BUILTIN["texts"]

    def data(self, config: Config) -> Data:
        return corrupt(make_texts(config["length"], config["rarity"]), config)

    def model(self, config: Config) -> nn.Module:
        then = mlp_from_config(config, config["width"], TOPICS)
        return bag_of_words(VOCABULARY, config["length"], config["width"], then)

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


class TransferTask:
    """Classes of the digits, learned from scratch or by a network pre-trained on other classes."""

    params = BUILTIN["transfer"]

    def data(self, config: Config) -> Data:
        return corrupt(load_digits(), config)

    def model(self, config: Config) -> nn.Module:
        """Return the network, pre-trained if the config asks for it.

        Raises:
            InputError: If `start = "scratch"` and `init_from` are both set.
        """
        pretraining = parse_pretraining(config)
        network = make_network(pretraining, class_count(config, 10))
        if config["init_from"] is not None and config["start"] == "scratch":
            raise InputError('start = "scratch" and init_from exclude each other: remove one of them')
        if config["start"] == "scratch" or config["init_from"] is not None:  # weights of init_from are loaded later
            return network
        return load_pretrained_body(pretraining, network, frozen=config["start"] == "frozen")

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


class ProbeTask:
    """Classes of the digits, learned by a linear probe on a layer of a pre-trained network."""

    params = BUILTIN["probe"]

    def data(self, config: Config) -> Data:
        """Return the digits as features of the probed layer.

        Raises InputError if there is no such layer.
        """
        layers = len(config["hidden"])
        if config["layer"] > layers:
            raise InputError(
                f"layer = {config['layer']}: the network has {layers} hidden layers; use 0 (pixels) to {layers}"
            )
        return extract_features(corrupt(load_digits(), config), parse_pretraining(config), config["layer"])

    def model(self, config: Config) -> nn.Module:
        width = config["hidden"][config["layer"] - 1] if config["layer"] else 64
        return nn.Sequential(nn.Linear(width, class_count(config, 10)))

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


class UserDataTask:
    """A user's table, arrays or images, for classification or regression."""

    params = BUILTIN["own"]

    def __init__(self) -> None:
        self._target_unit = 1.0
        """Standard deviation that `data` has divided the targets by."""

    def data(self, config: Config) -> Data:
        data, self._target_unit = corrupt(load_user_data(config["path"], config["target"]), config), 1.0
        if config["standardize_target"]:
            data, self._target_unit = standardize_targets(data)
        return data

    def model(self, config: Config) -> nn.Module:
        """Return the network for the data's shape.

        Raises InputError for a cnn on a table.
        """
        data = load_user_data(config["path"], config["target"])
        inputs, targets = data.train
        outputs = 1 if targets.is_floating_point() else class_count(config, data.classes)
        if inputs.dim() == 2 and config["model"] == "cnn" and config["layers"] is None:
            raise InputError(f'model = "cnn" takes images, but {config["path"]} is a table; use model = "mlp"')
        return image_model(config, tuple(inputs.shape[1:]), outputs)

    loss = staticmethod(prediction_loss)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return `mae` in the units of the data, or `accuracy`, per sample, shape (N,)."""
        metrics = prediction_metrics(outputs, targets)
        return {name: values * self._target_unit if name == "mae" else values for name, values in metrics.items()}


def mlp_from_config(config: Config, inputs: int, classes: int) -> nn.Sequential:
    """Return the fully connected network that a config describes."""
    options = {key: config[key] for key in ("activation", "dropout", "batchnorm")}
    return mlp(inputs, config["hidden"], classes, **options)


def image_model(config: Config, shape: Shape, classes: int) -> nn.Sequential:
    """Return the configured network for images (channels, height, width)."""
    if config["layers"] is not None:
        return build_network(config["layers"], shape, classes)
    if config["model"] == "mlp":
        return mlp_from_config(config, prod(shape), classes)
    block = ConvBlock(config["kernel"], config["pooling"], config["activation"], config["batchnorm"])
    return cnn(shape, config["channels"], classes, block, dropout=config["dropout"])


TASKS: dict[
    str, Callable[[], DigitsTask | ImagesTask | TransferTask | ProbeTask | UserDataTask | ToyTask | TextsTask]
] = {
    "digits": DigitsTask,
    **{name: partial(ImagesTask, name) for name in IMAGE_SETS},
    "transfer": TransferTask,
    "probe": ProbeTask,
    "own": UserDataTask,
    "toy": ToyTask,
    "texts": TextsTask,
}
"""Constructors of the built-in tasks, by name."""
