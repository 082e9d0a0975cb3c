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


class UNet:
    """Classifier on the features of a small U-Net, a module with a custom `forward`."""

    params: Mapping[str, Param] = MappingProxyType({})

    def data(self, config: dict[str, Any]) -> Data:
        return load_digits()

    def model(self, config: dict[str, Any]) -> nn.Module:
        return UNetClassifier()


class UNetClassifier(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        c = channels
        self.down = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU())
        self.middle = nn.Sequential(
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),
            nn.GroupNorm(2, 2 * c),
            nn.ReLU(),
            nn.Conv2d(2 * c, 2 * c, 3, padding=1),
            nn.ReLU(),
        )
        self.up, self.out = nn.ConvTranspose2d(2 * c, c, 2, stride=2), nn.Conv2d(2 * c, 1, 3, padding=1)
        self.head = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.down(inputs)
        x = self.out(torch.cat([x, self.up(self.middle(x))], dim=1))
        scores: Tensor = self.head(x.flatten(1))
        return scores


class Transformer:
    """One encoder layer with dropout over the rows of the digits."""

    params: Mapping[str, Param] = MappingProxyType({})

    def data(self, config: dict[str, Any]) -> Data:
        return load_digits()

    def model(self, config: dict[str, Any]) -> nn.Module:
        return RowTransformer()


class RowTransformer(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.rows, self.places = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(self.rows(inputs.squeeze(1)) + self.places).mean(1))
        return scores
