"""Optimizers of single runs and of stacks.

The algorithms are torch's: SGD with momentum (Nesterov: Sutskever et al., 2013), Adam (Kingma & Ba, 2015), AdamW
(Loshchilov & Hutter, 2019), RMSprop (Tieleman & Hinton, 2012) and Adagrad (Duchi et al., 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import unwrap
from itertools import groupby
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, optim

from labbench.records import Config
from labbench.train.engine.flat_params import FlatParameters
from labbench.train.host_copies import to_device

AnyOptimizer = TypeVar("AnyOptimizer", bound=optim.Optimizer)

FUSED_DEVICES: tuple[str, ...] = ("cpu", "cuda")
"""Types of devices for which torch has fused kernels of SGD, Adam and AdamW."""


def without_dynamo(optimizer: type[AnyOptimizer]) -> type[AnyOptimizer]:
    """Return an optimizer of torch that cannot be part of a compiled function, and does not import `torch._dynamo`.

    The decorators of torch's methods import it, which takes as long as the import of torch.
    """
    methods = {
        "__module__": optimizer.__module__,
        "add_param_group": unwrap(optimizer.add_param_group),
        "step": torch.no_grad()(unwrap(optimizer.step)),
    }
    return cast(type[AnyOptimizer], type(optimizer.__name__, (optimizer,), methods))


SGD, Adam, AdamW = without_dynamo(optim.SGD), without_dynamo(optim.Adam), without_dynamo(optim.AdamW)
RMSprop, Adagrad = without_dynamo(optim.RMSprop), without_dynamo(optim.Adagrad)


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
    fused = (real and device.type in FUSED_DEVICES) or None
    if name == "sgd":
        nesterov = config["nesterov"] and momentum > 0
        return SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
    if name == "adam":
        return Adam(parameters, lr, betas, eps, weight_decay, fused=fused)
    if name == "adamw":
        return AdamW(parameters, lr, betas, eps, weight_decay, fused=fused)
    if name == "rmsprop":
        return RMSprop(parameters, lr, config["alpha"], eps, weight_decay, momentum)
    if name == "adagrad":
        return Adagrad(
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


UpdateRule: TypeAlias = Callable[[Config, Tensor, Tensor, dict[str, Tensor]], None]
"""Subtract an update with learning rate 1 from `direction` (R, P), given `gradients` (R, P), and change the state."""


def step_sgd(config: Config, direction: Tensor, gradients: Tensor, state: dict[str, Tensor]) -> None:
    """Gradient descent, with momentum if the state has a buffer (R, P)."""
    torch._fused_sgd_(
        [direction],
        [gradients],
        [state["momentum_buffer"]] if state else [],
        weight_decay=0.0,
        momentum=config["momentum"],
        lr=1.0,
        dampening=0.0,
        nesterov=config["nesterov"] and config["momentum"] > 0,
        maximize=False,
        is_first_step=False,  # the buffer starts at zero, which gives the same first step
    )


def step_adam(config: Config, direction: Tensor, gradients: Tensor, state: dict[str, Tensor]) -> None:
    """Adam, and AdamW, whose weight decay is applied elsewhere; the state has moments (R, P)."""
    state["step"].add_(1)
    torch._fused_adam_(
        [direction],
        [gradients],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        lr=1.0,
        beta1=config["beta1"],
        beta2=config["beta2"],
        weight_decay=0.0,
        eps=config["eps"],
        amsgrad=False,
        maximize=False,
    )


def step_rmsprop(config: Config, direction: Tensor, gradients: Tensor, state: dict[str, Tensor]) -> None:
    """RMSprop, with momentum if the state has a buffer (R, P)."""
    state["step"].add_(1)
    squares = state["square_avg"].mul_(config["alpha"]).addcmul_(gradients, gradients, value=1 - config["alpha"])
    scale = squares.sqrt().add_(config["eps"])
    if "momentum_buffer" in state:
        direction.sub_(state["momentum_buffer"].mul_(config["momentum"]).addcdiv_(gradients, scale))
    else:
        direction.addcdiv_(gradients, scale, value=-1)


def step_adagrad(config: Config, direction: Tensor, gradients: Tensor, state: dict[str, Tensor]) -> None:
    """Adagrad; the state has sums of squares (R, P)."""
    state["step"].add_(1)
    if direction.device.type != "cpu":  # torch has a fused kernel for CPUs only
        scale = state["sum"].addcmul_(gradients, gradients).sqrt().add_(config["eps"])
        direction.addcdiv_(gradients, scale, value=-1)
        return
    torch._fused_adagrad_(
        [direction],
        [gradients],
        [state["sum"]],
        [state["step"]],
        lr=1.0,
        lr_decay=0.0,
        weight_decay=0.0,
        eps=config["eps"],
        maximize=False,
    )


UPDATE_RULES: dict[str, tuple[UpdateRule, tuple[str, ...]]] = {
    "sgd": (step_sgd, ("momentum_buffer",)),
    "adam": (step_adam, ("step", "exp_avg", "exp_avg_sq")),
    "adamw": (step_adam, ("step", "exp_avg", "exp_avg_sq")),
    "rmsprop": (step_rmsprop, ("step", "square_avg", "momentum_buffer")),
    "adagrad": (step_adagrad, ("step", "sum")),
}
"""Update and names of its state by optimizer; the names are torch's."""


@dataclass(frozen=True)
class OptimizerPart:
    """Consecutive runs of a stack, R of them, that share the settings of their optimizer."""

    rows: slice
    config: Config
    direction: Tensor
    """View of the update of the runs, shape (R, P)."""
    gradients: Tensor
    """View of the gradients of the runs, shape (R, P)."""
    state: dict[str, Tensor]
    """Number of updates `step`, shape (), and one tensor (R, P) for each other name."""

    @classmethod
    def make(cls, rows: slice, config: Config, direction: Tensor, gradients: Tensor) -> OptimizerPart:
        """Return a part for views (R, P), whose state is zero."""
        names = [
            name for name in UPDATE_RULES[config["optimizer"]][1] if name != "momentum_buffer" or config["momentum"] > 0
        ]
        state = {
            name: torch.zeros((), device=direction.device) if name == "step" else torch.zeros_like(direction)
            for name in names
        }
        return cls(rows, config, direction, gradients, state)

    def step(self) -> None:
        """Compute the direction of one update."""
        update, _ = UPDATE_RULES[self.config["optimizer"]]
        update(self.config, self.direction, self.gradients, self.state)


class StackOptimizer:
    """Optimizer of S runs; parameters and gradients are tensors (S, P), one row per run.

    Consecutive runs with equal settings share the kernels of one update, with a learning rate of 1 and without weight
    decay; it starts from zeros, so that it gives the direction of the update. Learning rate and weight decay, one value
    per run, are applied to the rows.
    """

    def __init__(
        self, configs: Sequence[Config], flat_parameters: FlatParameters, parameters: Tensor, gradients: Tensor
    ) -> None:
        self.flat_parameters, self.parameters, self.gradients = flat_parameters, parameters, gradients
        self._direction = torch.zeros_like(parameters)  # (S, P)
        self._parts: list[OptimizerPart] = []
        start = 0
        for _, equal in groupby(configs, optimizer_key):
            config, *others = equal
            rows = slice(start, start := start + 1 + len(others))
            self._parts.append(OptimizerPart.make(rows, config, self._direction[rows], gradients[rows]))
        self._coupled_decays = _weight_decays(configs, parameters, decoupled=False)
        self._decoupled_decays = _weight_decays(configs, parameters, decoupled=True)
        self._without_decay: set[str] = set()

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """Do one update with learning rates of shape (S, 1)."""
        for rows, decay in self._coupled_decays:
            self.gradients[rows].addcmul_(decay, self.parameters[rows])
        self._direction.zero_()
        for part in self._parts:
            part.step()
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
        """Return the state tensors of all parts, shape (R, P) or (), not copied."""
        return [tensor for part in self._parts for tensor in part.state.values()]

    def state(self, index: int) -> dict[str, Tensor]:
        """Return the optimizer state of one run, not copied.

        Scalars such as `step` are keyed by name, tensors by `NAME.PARAMETER` and have the parameter's shape.
        """
        part = next(part for part in self._parts if index < part.rows.stop)
        row = index - part.rows.start
        state: dict[str, Tensor] = {}
        for name, value in part.state.items():
            if value.dim() == 0:
                state[name] = value
            else:
                views = self.flat_parameters.views(value[row : row + 1])
                state |= {f"{name}.{parameter}": view[0] for parameter, view in views.items()}
        return state

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Restore the states of S runs, all at the same step.

        Keys and shapes are as in the result of `state`. Runs without a state keep their own.
        """
        for part in self._parts:
            first, *_ = run_states = states[part.rows]
            for name, tensor in part.state.items():
                if name in first:
                    tensor.copy_(first[name])
                elif any(key.startswith(f"{name}.") for key in first):
                    runs: list[Mapping[str, Tensor]] = [
                        {p: state[f"{name}.{p}"] for p in self.flat_parameters.shapes} for state in run_states
                    ]
                    tensor.copy_(self.flat_parameters.pack(runs, self.parameters))


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
            column = torch.tensor([[config["weight_decay"]] for config in members], dtype=like.dtype)  # (rows, 1)
            decays.append((rows, to_device(column, like.device)))
    return decays
