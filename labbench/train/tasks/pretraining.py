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
from labbench.train.data.corruption import class_count, only_classes
from labbench.train.data.dataset import Data, Split, digits
from labbench.train.rng import Purpose, generator_seed, permutations, torch_generator
from labbench.train.tasks.models import cnn, mlp

BATCH = 32
MODULES_A_LAYER = 3
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


def pretraining_of(config: Config) -> Pretraining:
    """The pre-training that a config asks for, with the run's own seed."""
    classes = config["source_classes"]
    class_count({"classes": classes}, digits().classes)  # refuses what is not there
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
def pretrained(wanted: Pretraining) -> nn.Sequential:
    """The network after Adam has taught it its classes of the digits. Copy it: it is everybody's."""
    inputs, targets = only_classes(digits().train, list(wanted.classes))
    here = inputs.device
    with torch_generator(generator_seed(wanted.seed, Purpose.PRETRAINING), here):
        network = network_for(wanted, len(wanted.classes))
    optimizer = optim.Adam(network.parameters(), wanted.lr)
    with torch.enable_grad():
        for epoch in range(1, wanted.epochs + 1):
            for batch in permutations([wanted.seed], epoch, len(inputs), here)[0].split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(network(inputs[batch]), targets[batch]).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


def network_for(wanted: Pretraining, classes: int) -> nn.Sequential:
    """A new network for so many classes."""
    kind, widths = wanted.activation, wanted.widths
    if wanted.model == "mlp":
        return mlp(64, widths, classes, activation=kind, dropout=0.0, batchnorm=False)
    return cnn((1, 8, 8), widths, classes, kernel=3, pooling="max", activation=kind, dropout=0.0, batchnorm=False)


def started_from(wanted: Pretraining, network: nn.Sequential, *, frozen: bool) -> nn.Sequential:
    """The network with the pre-trained one's weights in all but its last layer; `frozen`, only that one learns."""
    body = network[:-1]
    body.load_state_dict(pretrained(wanted)[:-1].state_dict())
    body.requires_grad_(not frozen)
    return network


@torch.no_grad()
def features(data: Data, wanted: Pretraining, layer: int) -> Data:
    """Each input as the `layer`-th hidden layer of a pre-trained mlp sees it, 0 being the pixels: (N, width)."""
    body = pretrained(wanted)[: 1 + MODULES_A_LAYER * layer]

    def seen(split: Split) -> Split:
        found: Tensor = body(split[0])
        return found, split[1]

    return Data(seen(data.train), seen(data.val), None if data.test is None else seen(data.test))
