"""Networks that have learnt some of the digits before a run begins, to be used again on the others.

Pre-training is done once for each set of settings and seed, and kept while the process lives: it takes a fraction of a
second.
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
from labbench.train.tasks.models import cnn, mlp

BATCH_SIZE = 32
MODULES_PER_LAYER = 3
"""Linear, activation and dropout, behind the first module, which flattens."""


@dataclass(frozen=True)
class Pretraining:
    """All that a pre-trained network depends on."""

    model: str
    widths: tuple[int, ...]
    """Of the hidden layers (mlp), or channels of the convolutions (cnn)."""
    activation: str
    classes: tuple[int, ...]
    epochs: int
    """0 for a network as it was drawn."""
    lr: float
    seed: int


def parse_pretraining(config: Config) -> Pretraining:
    """The pre-training that a config asks for, with the run's own seed."""
    classes = config["source_classes"]
    class_count({"classes": classes}, load_digits().classes)  # refuses what is not there
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
    """The network after Adam has taught it its classes of the digits. Copy it: it is everybody's."""
    inputs, targets = select_classes(load_digits().train, list(settings.classes))
    here = inputs.device
    with seeded_torch_generator(generator_seed(settings.seed, Purpose.PRETRAINING), here):
        network = make_network(settings, len(settings.classes))
    optimizer = optim.Adam(network.parameters(), settings.lr)
    with torch.enable_grad():
        for epoch in range(1, settings.epochs + 1):
            for batch in permutations([settings.seed], epoch, len(inputs), here)[0].split(BATCH_SIZE):
                optimizer.zero_grad()
                F.cross_entropy(network(inputs[batch]), targets[batch]).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


def make_network(settings: Pretraining, classes: int) -> nn.Sequential:
    """A new network for so many classes."""
    kind, widths = settings.activation, settings.widths
    if settings.model == "mlp":
        return mlp(64, widths, classes, activation=kind, dropout=0.0, batchnorm=False)
    return cnn((1, 8, 8), widths, classes, kernel=3, pooling="max", activation=kind, dropout=0.0, batchnorm=False)


def load_pretrained_body(settings: Pretraining, network: nn.Sequential, *, frozen: bool) -> nn.Sequential:
    """The network with the pre-trained one's weights in all but its last layer; `frozen`, only that one learns."""
    body = network[:-1]
    body.load_state_dict(pretrain(settings)[:-1].state_dict())
    body.requires_grad_(not frozen)
    return network


@torch.no_grad()
def extract_features(data: Data, settings: Pretraining, layer: int) -> Data:
    """Each input as the `layer`-th hidden layer of a pre-trained mlp sees it, 0 being the pixels: (N, width)."""
    body = pretrain(settings)[: 1 + MODULES_PER_LAYER * layer]

    def seen(split: Split) -> Split:
        found: Tensor = body(split[0])
        return found, split[1]

    return Data(seen(data.train), seen(data.val), None if data.test is None else seen(data.test))
