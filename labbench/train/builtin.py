"""The built-in tasks: data, what a config does to it, and the network that a config asks for."""

from __future__ import annotations

from math import prod

from torch import nn

from labbench.catalogue import BUILTIN
from labbench.records import Config
from labbench.train.alterations import altered, class_count
from labbench.train.data import Data, digits
from labbench.train.layer_list import Shape, build
from labbench.train.losses import accuracy, cross_entropy
from labbench.train.models import cnn, mlp


class Digits:
    """Handwritten digits of 8x8 pixels, ten classes."""

    params = BUILTIN["digits"]

    def data(self, config: Config) -> Data:
        return altered(digits(), config)

    def model(self, config: Config) -> nn.Module:
        return image_model(config, (1, 8, 8), class_count(config, 10))

    loss = staticmethod(cross_entropy)
    metrics = staticmethod(accuracy)


def image_model(config: Config, shape: Shape, classes: int) -> nn.Sequential:
    """The network that a config asks for, for images of `shape` (channels, height, width)."""
    if config["layers"] is not None:
        return build(config["layers"], shape, classes)
    chosen = {key: config[key] for key in ("activation", "dropout", "batchnorm")}
    if config["model"] == "mlp":
        return mlp(prod(shape), config["hidden"], classes, **chosen)
    return cnn(shape, config["channels"], classes, kernel=config["kernel"], pooling=config["pooling"], **chosen)


TASKS = {"digits": Digits}
"""The built-in tasks."""
