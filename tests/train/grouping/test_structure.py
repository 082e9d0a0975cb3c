"""Models that compute the same function of their tensors have one structure; otherwise the difference is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from labbench.train.grouping.structure import group_by_structure, structural_difference


@dataclass
class Settings:
    width: int
    names: tuple[str, ...] = ("a", "b")


class Net(nn.Module):
    """A model with an attribute of its own."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.value = value

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs


def clipped(limit: float) -> Callable[[Tensor], Tensor]:
    return lambda inputs: inputs.clamp(max=limit)


def with_alias() -> nn.Module:
    net = Net()
    net.value = [net.layer, net.layer.weight]
    return net


def with_hook() -> nn.Module:
    net = Net()
    net.layer.register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    return net


ALIKE: dict[str, Callable[[], nn.Module]] = {
    "a configuration object": lambda: Net(Settings(8)),
    "a namespace": lambda: Net(SimpleNamespace(width=8, inner=SimpleNamespace(depth=2))),
    "a tensor": lambda: Net(torch.arange(5.0)),
    "a builtin function": lambda: Net([torch.tanh, F.gelu]),
    "a closure": lambda: Net(clipped(2.0)),
    "its own layers": with_alias,
    "a hook": with_hook,
    "GRU": lambda: nn.GRU(4, 3),
    "LSTM": lambda: nn.LSTM(4, 3, num_layers=2),
    "a transformer": lambda: nn.TransformerEncoderLayer(8, 2, 8, activation="gelu"),
    "a parametrization": lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
    "dropout of another probability": lambda: nn.Sequential(nn.Dropout(float(torch.rand(())))),
}


@pytest.mark.parametrize("make", ALIKE.values(), ids=ALIKE)
def test_models_with_equal_attributes_have_one_structure(make: Callable[[], nn.Module]) -> None:
    assert structural_difference(make(), make()) is None


def tied(is_tied: bool) -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    if is_tied:
        net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (Net(torch.ones(2)), Net(torch.zeros(2)), "`self.value` differs"),
        (Net(Settings(8)), Net(Settings(9)), "`self.value.width` differs"),
        (Net({"depth": [1, 2]}), Net({"depth": [1, 3]}), "`self.value['depth'][1]` differs"),
        (Net(torch.tanh), Net(torch.relu), "`self.value` differs"),
        (Net(clipped(1.0)), Net(clipped(2.0)), "`self.value.limit.contents` differs"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh()), "`self.0` is ReLU or Tanh"),
        (nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 4)), "`self.0.weight` differs in shape or dtype"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.ReLU()), "`self.1` is a module of some models only"),
        (nn.Sequential(nn.LeakyReLU(0.1)), nn.Sequential(nn.LeakyReLU(0.2)), "`self.0.negative_slope` differs"),
        (tied(True), tied(False), "`self.1.weight` is not tied alike"),
    ],
)
def test_the_difference_is_named(first: nn.Module, second: nn.Module, message: str) -> None:
    assert structural_difference(first, second) == message


def test_groups_are_ordered_and_give_the_difference_from_the_first_group() -> None:
    groups = group_by_structure([Net(1), Net(2), Net(1), Net(2)])
    assert [group.indices for group in groups] == [[0, 2], [1, 3]]
    assert {group.difference for group in groups} == {"`self.value` differs"}
    assert group_by_structure([Net(1), Net(1)])[0].difference is None
