"""The built-in tasks: data, what a config does to it, and the network that a config asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from torch import nn

from labbench.catalogue import BUILTIN
from labbench.errors import InputError
from labbench.records import Config
from labbench.train.alterations import altered, class_count
from labbench.train.data import Data, digits
from labbench.train.image_sets import IMAGE_SETS, image_set
from labbench.train.layer_list import Shape, build
from labbench.train.losses import accuracy, classification_accuracy, classification_loss, cross_entropy
from labbench.train.models import bag_of_words, cnn, mlp, perceptron
from labbench.train.toys import TOPICS, VOCABULARY, texts, toy


class Digits:
    """Handwritten digits of 8x8 pixels, ten classes."""

    params = BUILTIN["digits"]

    def data(self, config: Config) -> Data:
        return altered(digits(), config)

    def model(self, config: Config) -> nn.Module:
        return image_model(config, (1, 8, 8), class_count(config, 10))

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


class Images:
    """A published data set of images, downloaded at its first use."""

    def __init__(self, name: str) -> None:
        self.name, self.params = name, BUILTIN[name]

    def data(self, config: Config) -> Data:
        return altered(image_set(self.name), config)

    def model(self, config: Config) -> nn.Module:
        return image_model(config, IMAGE_SETS[self.name].shape, class_count(config, 10))

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


class Toy:
    """Points of a few inputs, made by the project: moons, spirals, XOR and others."""

    params = BUILTIN["toy"]

    def data(self, config: Config) -> Data:
        return altered(toy(config["data"], config["noise"]), config)

    def model(self, config: Config) -> nn.Module:
        inputs, targets = toy(config["data"], config["noise"]).train
        classes = int(targets.max()) + 1
        if config["layers"] is not None:
            return build(config["layers"], (inputs.shape[1],), classes)
        if config["model"] == "perceptron":
            if classes > 2:
                raise InputError(f"a perceptron tells two classes apart, and {config['data']} has {classes}")
            return perceptron(inputs.shape[1])
        return dense(config, inputs.shape[1], classes)

    loss = staticmethod(classification_loss)
    metrics = staticmethod(classification_accuracy)


class Texts:
    """Texts of made-up words on four topics: most words are rare, and most say nothing."""

    params = BUILTIN["texts"]

    def data(self, config: Config) -> Data:
        return altered(texts(config["length"], config["rarity"]), config)

    def model(self, config: Config) -> nn.Module:
        then = dense(config, config["width"], TOPICS)
        return bag_of_words(VOCABULARY, config["length"], config["width"], then)

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


def dense(config: Config, inputs: int, classes: int) -> nn.Sequential:
    """The fully connected network that a config asks for."""
    chosen = {key: config[key] for key in ("activation", "dropout", "batchnorm")}
    return mlp(inputs, config["hidden"], classes, **chosen)


def image_model(config: Config, shape: Shape, classes: int) -> nn.Sequential:
    """The network that a config asks for, for images of `shape` (channels, height, width)."""
    if config["layers"] is not None:
        return build(config["layers"], shape, classes)
    if config["model"] == "mlp":
        return dense(config, prod(shape), classes)
    keys = ("kernel", "pooling", "activation", "dropout", "batchnorm")
    return cnn(shape, config["channels"], classes, **{key: config[key] for key in keys})


TASKS: dict[str, Callable[[], Digits | Images | Toy | Texts]] = {
    "digits": Digits,
    **{name: partial(Images, name) for name in IMAGE_SETS},
    "toy": Toy,
    "texts": Texts,
}
"""The built-in tasks."""
