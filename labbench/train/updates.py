"""The optimizers of a stack: torch's own, for many runs at once.

A torch optimizer takes one learning rate for a tensor of parameters. So it works on a buffer of zeros in their place,
with rate 1 and without weight decay; what it leaves there is the direction of the update, and the learning rate of each
run multiplies its row. This is exact for every optimizer whose update is proportional to the rate, which all of ours
are. Runs that differ in what remains (momentum, betas, eps, alpha) have one torch optimizer for each distinct set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn, optim

from labbench.records import Config
from labbench.train.optim import make_optimizer
from labbench.train.rows import Rows

SETTINGS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("beta1", "beta2", "eps"),
    "adamw": ("beta1", "beta2", "eps"),
    "rmsprop": ("alpha", "eps", "momentum"),
    "adagrad": ("eps",),
}
"""What decides an optimizer's direction, besides the gradients."""


class StackOptimizer:
    """Updates of S runs whose parameters and gradients are rows (S, P)."""

    def __init__(self, configs: Sequence[Config], rows: Rows, parameters: Tensor, gradients: Tensor) -> None:
        self.rows, self.parameters, self.gradients = rows, parameters, gradients
        self._direction = torch.zeros_like(parameters)  # (S, P)
        self._parts: list[tuple[slice, nn.Parameter, optim.Optimizer]] = []
        start = 0
        for _, equal in groupby(configs, settings_of):
            config, *others = equal
            part = slice(start, start := start + 1 + len(others))
            buffer = nn.Parameter(self._direction[part])
            buffer.grad = gradients[part]
            made = make_optimizer({**config, "lr": 1.0, "weight_decay": 0.0}, [buffer], parameters.device)
            if parameters.device.type == "cuda" and "capturable" in made.defaults:
                made.param_groups[0]["capturable"] = True  # it counts its steps on the device
            self._parts.append((part, buffer, made))
        self._decayed = _decays(configs, parameters, decoupled=False)
        self._shrunk = _decays(configs, parameters, decoupled=True)

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """One update with these learning rates (S, 1)."""
        for part, decay in self._decayed:
            self.gradients[part].addcmul_(decay, self.parameters[part])
        self._direction.zero_()
        for _, _, optimizer in self._parts:
            optimizer.step()
        for part, decay in self._shrunk:
            self.parameters[part].mul_(1 - rates[part] * decay)
        self.parameters.addcmul_(rates, self._direction)

    def tensors(self) -> list[Tensor]:
        """The optimizers' memories, where they lie."""
        memories = [optimizer.state[buffer] for _, buffer, optimizer in self._parts if buffer in optimizer.state]
        return [value for memory in memories for value in memory.values() if isinstance(value, Tensor)]

    def state(self, index: int) -> dict[str, Tensor]:
        """The memory of one run's optimizer: `step`, and its tensors as `NAME.PARAMETER`."""
        part, buffer, optimizer = next(each for each in self._parts if index < each[0].stop)
        state: dict[str, Tensor] = {}
        for name, value in optimizer.state[buffer].items():
            if value is None:
                continue
            if value.dim() == 0:
                state[name] = value
            else:
                views = self.rows.views(value[index - part.start : index - part.start + 1])
                state |= {f"{name}.{parameter}": view[0] for parameter, view in views.items()}
        return state

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on with these memories, one a run, all after equally many updates."""
        for part, buffer, optimizer in self._parts:
            of_part = states[part]
            for name in sorted({key.partition(".")[0] for key in of_part[0]}):
                if name in of_part[0]:
                    optimizer.state[buffer][name] = of_part[0][name].clone()
                else:
                    runs: list[Mapping[str, Tensor]] = [
                        {p: state[f"{name}.{p}"] for p in self.rows.shapes} for state in of_part
                    ]
                    optimizer.state[buffer][name] = self.rows.filled(runs, self.parameters)


def settings_of(config: Config) -> tuple[Any, ...]:
    """What one torch optimizer must have in common."""
    return config["optimizer"], *(config[key] for key in SETTINGS[config["optimizer"]])


def _decays(configs: Sequence[Config], like: Tensor, *, decoupled: bool) -> list[tuple[slice, Tensor]]:
    """The weight decays (rows, 1) of consecutive runs that have one of this kind."""
    found = []
    start = 0
    for decays, equal in groupby(configs, lambda c: c["weight_decay"] > 0 and (c["optimizer"] == "adamw") == decoupled):
        members = list(equal)
        part = slice(start, start := start + len(members))
        if decays:
            found.append((part, like.new_tensor([[config["weight_decay"]] for config in members])))
    return found
