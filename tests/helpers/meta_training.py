"""Steppers whose tensors are all on the device `meta`, which stands for a GPU: shapes without values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labbench.params.param import TRAINING, with_defaults
from labbench.records import Config
from labbench.train.data.dataset import Data
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Workload
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.optional_parts import OptionalParts
from labbench.train.tasks.task import FileTask, make_model

META = torch.device("meta")
BATCH_SIZE = 8

ModelFunction = Callable[[Config], nn.Module]


def images(config: Config) -> Data:
    """Return 12 training and 8 held-out images of 8x8 pixels in 10 classes: a full batch and a smaller one."""
    splits = [(torch.zeros(count, 1, 8, 8), torch.zeros(count, dtype=torch.int64)) for count in (12, 8, 8)]
    return Data(*splits)


class Residual(nn.Module):
    """A model for vmap with one dropout layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)
        self.dropout = nn.Dropout(0.3)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.dropout(torch.relu(self.first(inputs.flatten(1))))
        scores: Tensor = self.head(x + self.dropout(self.second(x)))
        return scores


class Recurrent(nn.Module):
    """The first rows of the image as a sequence, through a recurrent layer and attention with dropout."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.layer = layer(8, 12, batch_first=True)
        self.attention = nn.MultiheadAttention(12, 2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(12, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        states, _ = self.layer(inputs.squeeze(1)[:, :3])
        mixed, _ = self.attention(states, states, states)
        scores: Tensor = self.head(mixed[:, -1])
        return scores


def after_convolution(*layers: nn.Module) -> nn.Module:
    """Return a network that ends with a linear layer of the size that the layers give for an image of 8x8."""
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *layers, nn.Flatten())
    return nn.Sequential(body, nn.Linear(body(torch.zeros(2, 1, 8, 8)).shape[1], 10))


def after_sequence(*layers: nn.Module) -> nn.Module:
    """Return a network for the rows of an image as a sequence of 8 channels."""
    body = nn.Sequential(nn.Flatten(1, 2), *layers, nn.Flatten())
    return nn.Sequential(body, nn.Linear(body(torch.zeros(2, 1, 8, 8)).shape[1], 10))


def after_linear(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), *layers, nn.Linear(12, 10))


STACKED_MODELS: dict[str, ModelFunction] = {
    "linear, relu": lambda config: after_linear(nn.ReLU()),
    "gelu, tanh, sigmoid, identity": lambda config: after_linear(nn.GELU(), nn.Tanh(), nn.Sigmoid(), nn.Identity()),
    "batch norm 1d": lambda config: after_linear(nn.BatchNorm1d(12)),
    "layer norm": lambda config: after_linear(nn.LayerNorm(12)),
    "dropout": lambda config: after_linear(nn.Dropout(0.3)),
    "conv2d, batch norm 2d, dropout 2d": lambda config: after_convolution(nn.BatchNorm2d(4), nn.Dropout2d(0.2)),
    "max pool 2d": lambda config: after_convolution(nn.MaxPool2d(2)),
    "average pool 2d": lambda config: after_convolution(nn.AvgPool2d(2)),
    "adaptive pools 2d": lambda config: after_convolution(nn.AdaptiveMaxPool2d(4), nn.AdaptiveAvgPool2d(2)),
    "conv1d, dropout 1d": lambda config: after_sequence(nn.Conv1d(8, 6, 3), nn.BatchNorm1d(6), nn.Dropout1d(0.2)),
    "pools 1d": lambda config: after_sequence(nn.MaxPool1d(2), nn.AvgPool1d(2)),
    "adaptive pools 1d": lambda config: after_sequence(nn.AdaptiveMaxPool1d(4), nn.AdaptiveAvgPool1d(2)),
}
"""Networks with every layer of the engine `stacked`, except embeddings, by the layers."""

VMAP_MODELS: dict[str, ModelFunction] = {
    "residual": lambda config: Residual(),
    "gru, attention": lambda config: Recurrent(nn.GRU),
    "lstm, attention": lambda config: Recurrent(nn.LSTM),
    "rnn, attention": lambda config: Recurrent(nn.RNN),
}

SETTINGS: dict[str, Config] = {
    "sgd": {"optimizer": "sgd"},
    "momentum, nesterov, clip": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "clip": 0.5},
    "adam, cosine, warmup": {"optimizer": "adam", "schedule": "cosine", "warmup": 2},
    "adamw, onecycle": {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "onecycle"},
    "rmsprop, smoothing": {"optimizer": "rmsprop", "momentum": 0.5, "label_smoothing": 0.1},
    "moving averages": {"optimizer": "adam", "ema_decay": 0.9},
    "adagrad, step": {"optimizer": "adagrad", "weight_decay": 0.01, "schedule": "step", "step_epochs": 1},
}
"""Settings of the training loop: every optimizer and schedule, decay, clipping, label smoothing, moving averages."""


def full_config(seed: int, config: Config) -> Config:
    """Return the config of one run, with defaults."""
    return with_defaults(
        {"lr": 0.02 * (1 + seed), "epochs": 2, "batch_size": BATCH_SIZE, "seed": seed, **config}, TRAINING
    )


def workload_of(model: ModelFunction, data: Callable[[Config], Data] = images, **parts: Any) -> Workload:
    """Return a workload whose data are on `meta`."""
    losses = {name: parts.pop(name, default) for name, default in (("loss", cross_entropy), ("metrics", accuracy))}
    task = FileTask({}, data, model, losses["loss"], losses["metrics"], optional=OptionalParts(**parts))
    return Workload(task, data({}).to(META, torch.float32), BATCH_SIZE)


def stacked_stepper(engine: str, workload: Workload, config: Config, runs: int = 3) -> StackedStepper:
    """Return a stepper of runs on the device of the workload's data."""
    configs = [full_config(seed, config) for seed in range(runs)]
    models = [make_model(workload.task, config) for config in configs]
    members: Sequence[StackMember] = list(map(StackMember.from_model, models, configs))
    return StackedStepper(engine, models[0], members, workload, StepCounter())


def single_stepper(workload: Workload, config: Config) -> SingleStepper:
    """Return a stepper of one plain run on the device of the workload's data."""
    run_config = full_config(0, config)
    return SingleStepper(make_model(workload.task, run_config), run_config, workload, StepCounter())
