"""Tasks of bench/stacks.py that are not built into labbench."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from labbench.params.param import Param
from labbench.train.data.dataset import Data, load_digits
from labbench.train.tasks.models import ConvBlock, cnn


class Images:
    """CNN with 16 and 32 channels on digits enlarged to 16x16."""

    params: Mapping[str, Param] = MappingProxyType({})

    def data(self, config: dict[str, Any]) -> Data:
        def enlarge(split: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return nn.functional.interpolate(split[0], scale_factor=2.0, mode="bilinear"), split[1]

        original = load_digits()
        return Data(enlarge(original.train), enlarge(original.val))

    def model(self, config: dict[str, Any]) -> nn.Module:
        return cnn((1, 16, 16), [16, 32], 10, ConvBlock(batchnorm=True))


class LargeImages:
    """CNN with 16 and 32 channels on digits enlarged to 28x28."""

    params: Mapping[str, Param] = MappingProxyType({})

    def data(self, config: dict[str, Any]) -> Data:
        def enlarge(split: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return nn.functional.interpolate(split[0], size=(28, 28), mode="bilinear"), split[1]

        original = load_digits()
        return Data(enlarge(original.train), enlarge(original.val))

    def model(self, config: dict[str, Any]) -> nn.Module:
        return cnn((1, 28, 28), [16, 32], 10, ConvBlock(batchnorm=True))


class Residual:
    """Residual MLP, a module with a custom `forward`."""

    params: Mapping[str, Param] = MappingProxyType({})

    def data(self, config: dict[str, Any]) -> Data:
        return load_digits()

    def model(self, config: dict[str, Any]) -> nn.Module:
        return ResidualMLP()


class ResidualMLP(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1)
        for block in self.blocks:
            x = x + torch.relu(block(x))
        scores: Tensor = self.head(x)
        return scores
