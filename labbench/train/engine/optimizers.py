"""Optimizers: torch's own for a single run, and per-run updates for a stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
import torch._dynamo  # every optimizer imports it at its first use, a second's work that forked workers shall find done
from torch import Tensor, nn, optim

from labbench.errors import InputError
from labbench.records import Config
from labbench.train.engine.flat_params import FlatParameters


def make_optimizer(config: Config, parameters: Iterable[nn.Parameter], device: torch.device) -> optim.Optimizer:
    """The optimizer that `config` names. Parameters that it does not use are left alone.

    Nesterov's form of no momentum is plain gradient descent, which torch refuses to be told.
    """
    name, lr, weight_decay = config["optimizer"], config["lr"], config["weight_decay"]
    momentum, eps, betas = config["momentum"], config["eps"], (config["beta1"], config["beta2"])
    parameters = list(parameters)
    # one kernel for all parameters, which must be real; rmsprop has none, and adagrad's is for CPUs
    real = not any(parameter.is_complex() for parameter in parameters)
    fused = (real and device.type in ("cpu", "cuda")) or None
    if name == "sgd":
        nesterov = config["nesterov"] and momentum > 0
        return optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
    if name == "adam":
        return optim.Adam(parameters, lr, betas, eps, weight_decay, fused=fused)
    if name == "adamw":
        return optim.AdamW(parameters, lr, betas, eps, weight_decay, fused=fused)
    if name == "rmsprop":
        return optim.RMSprop(parameters, lr, config["alpha"], eps, weight_decay, momentum)
    if name == "adagrad":
        return optim.Adagrad(
            parameters, lr, weight_decay=weight_decay, eps=eps, fused=(real and device.type == "cpu") or None
        )
    raise ValueError(f"no such optimizer: {name}")


def take_sparse_gradients(optimizer: optim.Optimizer, config: Config, parameter: str) -> None:
    """Let the optimizer take sparse gradients, such as those of `nn.Embedding(sparse=True)`; no fused kernel does.

    Raises InputError, which names the `parameter`, where this config cannot.
    """
    conflicts = {
        f'optimizer = "{config["optimizer"]}"': config["optimizer"] not in ("sgd", "adagrad"),
        f"weight_decay = {config['weight_decay']:g}": config["weight_decay"] > 0,
        f"clip = {config['clip']}": config["clip"] is not None,
    }
    for setting, refused in conflicts.items():
        if refused:
            raise InputError(
                f"{setting} cannot take the sparse gradient of {parameter}: use nn.Embedding(sparse=False), or sgd or "
                "adagrad without weight_decay and clip"
            )
    for group in optimizer.param_groups:
        group["fused"] = None


OPTIMIZER_SETTINGS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("beta1", "beta2", "eps"),
    "adamw": ("beta1", "beta2", "eps"),
    "rmsprop": ("alpha", "eps", "momentum"),
    "adagrad": ("eps",),
}
"""What decides an optimizer's direction, besides the gradients."""


class StackOptimizer:
    """Updates of S runs whose parameters and gradients are rows (S, P)."""

    def __init__(
        self, configs: Sequence[Config], flat_parameters: FlatParameters, parameters: Tensor, gradients: Tensor
    ) -> None:
        self.flat_parameters, self.parameters, self.gradients = flat_parameters, parameters, gradients
        self._direction = torch.zeros_like(parameters)  # (S, P)
        self._parts: list[tuple[slice, nn.Parameter, optim.Optimizer]] = []
        start = 0
        for _, equal in groupby(configs, optimizer_key):
            config, *others = equal
            part = slice(start, start := start + 1 + len(others))
            buffer = nn.Parameter(self._direction[part])
            buffer.grad = gradients[part]
            made = make_optimizer({**config, "lr": 1.0, "weight_decay": 0.0}, [buffer], parameters.device)
            if parameters.device.type == "cuda" and "capturable" in made.defaults:
                made.param_groups[0]["capturable"] = True  # it counts its steps on the device
            self._parts.append((part, buffer, made))
        self._coupled_decays = _weight_decays(configs, parameters, decoupled=False)
        self._decoupled_decays = _weight_decays(configs, parameters, decoupled=True)

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """One update with these learning rates (S, 1)."""
        for part, decay in self._coupled_decays:
            self.gradients[part].addcmul_(decay, self.parameters[part])
        self._direction.zero_()
        for _, _, optimizer in self._parts:
            optimizer.step()
        for part, decay in self._decoupled_decays:
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
                views = self.flat_parameters.views(value[index - part.start : index - part.start + 1])
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
                        {p: state[f"{name}.{p}"] for p in self.flat_parameters.shapes} for state in of_part
                    ]
                    optimizer.state[buffer][name] = self.flat_parameters.pack(runs, self.parameters)


def optimizer_key(config: Config) -> tuple[Any, ...]:
    """What one torch optimizer must have in common."""
    return config["optimizer"], *(config[key] for key in OPTIMIZER_SETTINGS[config["optimizer"]])


def _weight_decays(configs: Sequence[Config], like: Tensor, *, decoupled: bool) -> list[tuple[slice, Tensor]]:
    """The weight decays (rows, 1) of consecutive runs that have one of this kind."""
    found = []
    start = 0
    for decays, equal in groupby(configs, lambda c: c["weight_decay"] > 0 and (c["optimizer"] == "adamw") == decoupled):
        members = list(equal)
        part = slice(start, start := start + len(members))
        if decays:
            found.append((part, like.new_tensor([[config["weight_decay"]] for config in members])))
    return found
