"""Optimizers are torch's, with the hyperparameters of the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn, optim

from helpers.training import CPU
from labbench.params.param import TRAINING, with_defaults
from labbench.train.engine.flat_params import FlatParameters
from labbench.train.engine.optimizers import StackOptimizer, make_optimizer

EXPECTED: list[tuple[dict[str, Any], Callable[[list[nn.Parameter]], optim.Optimizer]]] = [
    ({"optimizer": "sgd"}, lambda p: optim.SGD(p, 0.05)),
    ({"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1}, lambda p: optim.SGD(p, 0.05, 0.9, weight_decay=0.1)),
    (
        {"optimizer": "sgd", "momentum": 0.8, "nesterov": True},
        lambda p: optim.SGD(p, 0.05, momentum=0.8, nesterov=True),
    ),
    ({"optimizer": "sgd", "nesterov": True}, lambda p: optim.SGD(p, 0.05)),
    (
        {"optimizer": "adam", "beta1": 0.7, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1},
        lambda p: optim.Adam(p, 0.05, (0.7, 0.9), 1e-3, 0.1),
    ),
    ({"optimizer": "adamw", "weight_decay": 0.1}, lambda p: optim.AdamW(p, 0.05, weight_decay=0.1)),
    (
        {"optimizer": "rmsprop", "alpha": 0.8, "momentum": 0.5, "weight_decay": 0.1},
        lambda p: optim.RMSprop(p, 0.05, alpha=0.8, eps=1e-8, weight_decay=0.1, momentum=0.5),
    ),
    (
        {"optimizer": "adagrad", "weight_decay": 0.1, "eps": 1e-4},
        lambda p: optim.Adagrad(p, 0.05, weight_decay=0.1, eps=1e-4),
    ),
]


@pytest.mark.parametrize(
    ("config", "make_expected"), EXPECTED, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_optimizers_equal_torchs_with_the_same_hyperparameters(
    config: dict[str, Any], make_expected: Callable[[list[nn.Parameter]], optim.Optimizer]
) -> None:
    """Five steps in float64; one parameter is transposed in memory, which fused optimizers must support."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(5, 3, dtype=torch.float64).T), nn.Parameter(torch.randn(4, dtype=torch.float64))]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    optimizer_of_config = make_optimizer(with_defaults({"lr": 0.05, **config}, TRAINING), ours, CPU)
    expected = make_expected(theirs)
    for step in range(5):
        for parameters, optimizer in ((ours, optimizer_of_config), (theirs, expected)):
            optimizer.zero_grad()
            matrix, vector = parameters
            ((matrix @ matrix.T).sin().sum() * (step + 1) + (vector**3).sum()).backward()
            optimizer.step()
    for parameter, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-12, atol=1e-12)


def test_every_declared_optimizer_can_be_made() -> None:
    for name in TRAINING["optimizer"].choices:
        optimizer = make_optimizer(with_defaults({"optimizer": name}, TRAINING), [nn.Parameter(torch.zeros(2))], CPU)
        assert type(optimizer).__name__.lower() == name


@pytest.mark.parametrize("config", [config for config, _ in EXPECTED], ids=str)
def test_a_stack_updates_each_run_to_the_bit_as_torchs_optimizer_alone(config: dict[str, Any]) -> None:
    """An update with learning rate 1 from zero; weight decay is left out, because it is applied to the rows."""
    torch.manual_seed(0)
    runs = [with_defaults({**config, "weight_decay": 0.0, "lr": lr}, TRAINING) for lr in (1.0, 1.0, 0.5)]
    flat = FlatParameters({"weight": torch.Size([70])})
    gradients = torch.zeros(3, flat.width)
    stack = StackOptimizer(runs, flat, torch.zeros(3, flat.width), gradients)
    alone = [nn.Parameter(torch.zeros(1, flat.width)) for _ in range(2)]
    optimizers = [make_optimizer(run, [parameter], CPU) for run, parameter in zip(runs, alone, strict=False)]
    for _ in range(5):
        gradients.copy_(torch.randn(3, flat.width))
        before = stack.parameters.clone()
        stack.step(torch.tensor([[run["lr"]] for run in runs]))
        for row, (parameter, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            parameter.data.zero_()
            parameter.grad = gradients[row : row + 1].clone()
            optimizer.step()
            assert torch.equal(stack.parameters[row : row + 1], before[row : row + 1] + parameter)
