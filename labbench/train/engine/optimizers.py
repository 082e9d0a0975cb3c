"""Optimizers of single runs and of stacks.

The algorithms are torch's: SGD with momentum (Nesterov: Sutskever et al., 2013), Adam (Kingma & Ba, 2015), AdamW
(Loshchilov & Hutter, 2019), RMSprop (Tieleman & Hinton, 2012) and Adagrad (Duchi et al., 2011).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
import torch._dynamo  # every optimizer imports it on first use, which takes a second: do it before workers fork
from torch import Tensor, nn, optim

from labbench.records import Config
from labbench.train.engine.flat_params import FlatParameters


def make_optimizer(config: Config, parameters: Iterable[Any], device: torch.device) -> optim.Optimizer:
    """Return the torch optimizer that a run's config describes, for parameters or torch's groups of parameters.

    `nesterov` without momentum is plain gradient descent; torch rejects this combination, so it is not passed on.

    Raises:
        ValueError: Unknown optimizer.
    """
    name, lr, weight_decay = config["optimizer"], config["lr"], config["weight_decay"]
    momentum, eps, betas = config["momentum"], config["eps"], (config["beta1"], config["beta2"])
    parameters = list(parameters)
    # fused kernels need real parameters; RMSprop has no fused kernel, Adagrad has one for CPUs only
    tensors = [p for part in parameters for p in (part["params"] if isinstance(part, dict) else [part])]
    real = not any(tensor.is_complex() for tensor in tensors)
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
    raise ValueError(f"unknown optimizer: {name}")


OPTIMIZER_SETTINGS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("beta1", "beta2", "eps"),
    "adamw": ("beta1", "beta2", "eps"),
    "rmsprop": ("alpha", "eps", "momentum"),
    "adagrad": ("eps",),
}
"""Keys of the config that determine the direction of an update, given the gradients."""


class StackOptimizer:
    """Optimizer of S runs; parameters and gradients are tensors (S, P), one row per run.

    Consecutive runs with equal settings share a torch optimizer with a learning rate of 1 and without weight decay; it
    updates a buffer of zeros, which then holds the direction of the update. Learning rate and weight decay, one value
    per run, are applied to the rows.
    """

    def __init__(
        self, configs: Sequence[Config], flat_parameters: FlatParameters, parameters: Tensor, gradients: Tensor
    ) -> None:
        self.flat_parameters, self.parameters, self.gradients = flat_parameters, parameters, gradients
        self._direction = torch.zeros_like(parameters)  # (S, P)
        self._parts: list[tuple[slice, nn.Parameter, optim.Optimizer]] = []
        start = 0
        for _, equal in groupby(configs, optimizer_key):
            config, *others = equal
            rows = slice(start, start := start + 1 + len(others))
            buffer = nn.Parameter(self._direction[rows])  # (rows, P)
            buffer.grad = gradients[rows]
            optimizer = make_optimizer({**config, "lr": 1.0, "weight_decay": 0.0}, [buffer], parameters.device)
            if parameters.device.type == "cuda" and "capturable" in optimizer.defaults:
                optimizer.param_groups[0]["capturable"] = True  # count steps on the device, as a CUDA graph needs
            self._parts.append((rows, buffer, optimizer))
        self._coupled_decays = _weight_decays(configs, parameters, decoupled=False)
        self._decoupled_decays = _weight_decays(configs, parameters, decoupled=True)
        self._without_decay: set[str] = set()

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """Do one update with learning rates of shape (S, 1)."""
        for rows, decay in self._coupled_decays:
            self.gradients[rows].addcmul_(decay, self.parameters[rows])
        self._direction.zero_()
        for _, _, optimizer in self._parts:
            optimizer.step()
        for rows, decay in self._decoupled_decays:
            self.parameters[rows].mul_(1 - rates[rows] * decay)
        self.parameters.addcmul_(rates, self._direction)

    def skip_weight_decay(self, names: Collection[str]) -> None:
        """Exclude parameters that the forward does not use from weight decay.

        Their gradients are zero, so that nothing else moves them. torch's optimizers skip parameters without gradient.
        """
        if self._without_decay == set(names):
            return
        self._without_decay = set(names)
        used = torch.ones_like(self.parameters[:1])  # (1, P)
        for name, columns in self.flat_parameters.views(used).items():
            columns.fill_(name not in names)
        for decays in (self._coupled_decays, self._decoupled_decays):
            decays[:] = [(rows, decay[:, :1] * used) for rows, decay in decays]

    def tensors(self) -> list[Tensor]:
        """Return the state tensors of all optimizers, shape (rows, P) or (), not copied."""
        states = [optimizer.state[buffer] for _, buffer, optimizer in self._parts if buffer in optimizer.state]
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def state(self, index: int) -> dict[str, Tensor]:
        """Return the optimizer state of one run, not copied.

        Scalars such as `step` are keyed by name, tensors by `NAME.PARAMETER` and have the parameter's shape.
        """
        rows, buffer, optimizer = next(part for part in self._parts if index < part[0].stop)
        state: dict[str, Tensor] = {}
        for name, value in optimizer.state[buffer].items():
            if value is None:
                continue
            if value.dim() == 0:
                state[name] = value
            else:
                views = self.flat_parameters.views(value[index - rows.start : index - rows.start + 1])
                state |= {f"{name}.{parameter}": view[0] for parameter, view in views.items()}
        return state

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Restore the states of S runs, all at the same step.

        Keys and shapes are as in the result of `state`.
        """
        for rows, buffer, optimizer in self._parts:
            first, *_ = run_states = states[rows]
            for name in sorted({key.partition(".")[0] for key in first}):
                if name in first:
                    optimizer.state[buffer][name] = first[name].clone()
                else:
                    runs: list[Mapping[str, Tensor]] = [
                        {p: state[f"{name}.{p}"] for p in self.flat_parameters.shapes} for state in run_states
                    ]
                    optimizer.state[buffer][name] = self.flat_parameters.pack(runs, self.parameters)


def optimizer_key(config: Config) -> tuple[Any, ...]:
    """Return the settings that runs must share to use one torch optimizer."""
    return config["optimizer"], *(config[key] for key in OPTIMIZER_SETTINGS[config["optimizer"]])


def _weight_decays(configs: Sequence[Config], like: Tensor, *, decoupled: bool) -> list[tuple[slice, Tensor]]:
    """Return rows and weight decays (rows, 1) of consecutive runs.

    Decoupled decay (AdamW) shrinks the parameters; coupled decay (all others) is added to the gradient.
    """
    decays = []
    start = 0
    for has_decay, group in groupby(
        configs, lambda c: c["weight_decay"] > 0 and (c["optimizer"] == "adamw") == decoupled
    ):
        members = list(group)
        rows = slice(start, start := start + len(members))
        if has_decay:
            decays.append((rows, like.new_tensor([[config["weight_decay"]] for config in members])))
    return decays
