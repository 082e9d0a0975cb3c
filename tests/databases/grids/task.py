"""A task of one's own, small enough for a test: which of three blobs a point belongs to."""

from __future__ import annotations

from typing import Any

import torch
from layers import classifier
from torch import Tensor, nn

from labbench.params.param import Param
from labbench.train.data.dataset import Data


class Blobs:
    params = {"width": Param("int", 4, low=1, help="Hidden units.")}

    def data(self, config: dict[str, Any]) -> Data:
        targets = torch.arange(96) % 3
        inputs = torch.randn(96, 2) + 2.0 * nn.functional.one_hot(targets, 3)[:, :2]
        return Data(train=(inputs[:64], targets[:64]), val=(inputs[64:], targets[64:]))

    def model(self, config: dict[str, Any]) -> nn.Module:
        return classifier(config["width"])

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"accuracy": outputs.argmax(-1) == targets, "margin": outputs.max(-1).values}
