"""Networks pre-trained on some classes of the digits, for transfer to the others.

Pre-training takes a fraction of a second and is cached in the process, once for each combination of settings and seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from labbench.records import Config
from labbench.train.data.corruption import class_count, select_classes
from labbench.train.data.dataset import Data, Split, load_digits
from labbench.train.rng import Purpose, generator_seed, permutations, seeded_torch_generator
from labbench.train.tasks.models import ConvBlock, cnn, mlp

BATCH_SIZE = 32
MODULES_PER_LAYER = 3
"""Linear, activation and dropout, after the initial Flatten."""


@dataclass(frozen=True)
class Pretraining:
    """Settings that determine a pre-trained network."""

    model: str
    widths: tuple[int, ...]
    """Widths of the hidden layers (mlp), or channels of the convolutions (cnn)."""
    activation: str
    classes: tuple[int, ...]
    epochs: int
    """Number of epochs; 0 leaves the initial weights."""
    lr: float
    seed: int


def parse_pretraining(config: Config) -> Pretraining:
    """Return the pre-training that a config describes, with the run's seed.

    Raises:
        InputError: If `source_classes` names a class that does not exist, or fewer than two classes.
    """
    classes = config["source_classes"]
    class_count({"classes": classes}, load_digits().classes)  # raises for unknown classes
    model = config.get("model", "mlp")
    return Pretraining(
        model,
        tuple(config["hidden" if model == "mlp" else "channels"]),
        config["activation"],
        tuple(classes),
        config["pretrain_epochs"],
        config["pretrain_lr"],
        config["seed"],
    )


@cache
def pretrain(settings: Pretraining) -> nn.Sequential:
    """Return the network trained with Adam on its classes of the digits.

    It is cached: copy it before any change.
    """
    inputs, targets = select_classes(load_digits().train, list(settings.classes))
    device = inputs.device
    with seeded_torch_generator(generator_seed(settings.seed, Purpose.PRETRAINING), device):
        network = make_network(settings, len(settings.classes))
    optimizer = optim.Adam(network.parameters(), settings.lr)
    with torch.enable_grad():
        for epoch in range(1, settings.epochs + 1):
            for batch in permutations([settings.seed], epoch, len(inputs), device)[0].split(BATCH_SIZE):
                optimizer.zero_grad()
                F.cross_entropy(network(inputs[batch]), targets[batch]).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


def make_network(settings: Pretraining, classes: int) -> nn.Sequential:
    """Return a new network with `classes` outputs."""
    widths = settings.widths
    if settings.model == "mlp":
        return mlp(64, widths, classes, activation=settings.activation, dropout=0.0, batchnorm=False)
    return cnn((1, 8, 8), widths, classes, ConvBlock(activation=settings.activation))


def load_pretrained_body(settings: Pretraining, network: nn.Sequential, *, frozen: bool) -> nn.Sequential:
    """Load pre-trained weights into all layers but the last.

    If `frozen`, only the last layer trains.
    """
    body = network[:-1]
    body.load_state_dict(pretrain(settings)[:-1].state_dict())
    body.requires_grad_(not frozen)
    return network


@torch.no_grad()
def extract_features(data: Data, settings: Pretraining, layer: int) -> Data:
    """Replace inputs by features, shape (N, width), of a pre-trained MLP.

    The features are the activations of hidden layer `layer`; layer 0 is the pixels.
    """
    body = pretrain(settings)[: 1 + MODULES_PER_LAYER * layer]

    def features_of(split: Split) -> Split:
        features: Tensor = body(split[0])
        return features, split[1]

    return data.map_splits(features_of)
