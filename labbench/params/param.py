"""Parameters of a config, one `Param` each, and the parameters of the training loop.

Does not import torch, so that grids are checked, hashed and queued without waiting for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from labbench.errors import InputError
from labbench.records import Config

ParamType: TypeAlias = Literal["int", "float", "bool", "str", "ints", "floats", "strs"]


class BadItem(ValueError):
    """Invalid item of a list.

    The message continues the list's name: `[1] = "max": there is no layer`.
    """

    def __init__(self, index: int, item: object, reason: str) -> None:
        self.index = index
        super().__init__(f'[{index}] = "{item}": {reason}')


@dataclass(frozen=True, slots=True)
class Param:
    """Parameter of a task: type, default, range or choices, and one line of help.

    `ints`, `floats` and `strs` are lists, whose items must be in the range and the choices. The bounds `low` and
    `high` are included in the range, `above` and `below` are not. A default of None permits None (in TOML, which has
    no null, by leaving the key out).
    """

    type: ParamType
    default: Any
    help: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    per_run: bool = False
    """True if runs that differ in it can share a stack: neither tensor shapes nor the data depend on it."""
    check: Callable[[Any], object] | None = None
    """Further check of a list whose items have the right type; raises BadItem."""

    def __post_init__(self) -> None:
        if self.type not in get_args(ParamType):
            raise ValueError(f"a parameter's type is one of {', '.join(get_args(ParamType))}, not {self.type!r}")


Params: TypeAlias = Mapping[str, Param]

TRAINING: dict[str, Param] = {
    "epochs": Param("int", 10, "passes over the training data", low=1, per_run=True),
    "batch_size": Param("int", 64, "samples per optimizer step; an epoch's last batch may be smaller", low=1),
    "seed": Param("int", 0, "seed of weights, order of samples and dropout masks", low=0, high=2**31 - 1, per_run=True),
    "optimizer": Param(
        "str", "sgd", "update rule", choices=("sgd", "adam", "adamw", "rmsprop", "adagrad"), per_run=True
    ),
    "lr": Param("float", 0.01, "learning rate", low=0.0, per_run=True),
    "momentum": Param("float", 0.0, "momentum of sgd and rmsprop", low=0.0, below=1.0, per_run=True),
    "nesterov": Param("bool", False, "Nesterov momentum (sgd)", per_run=True),
    "weight_decay": Param("float", 0.0, "L2 penalty; decoupled for adamw", low=0.0, per_run=True),
    "beta1": Param("float", 0.9, "decay of the first moment (adam, adamw)", low=0.0, below=1.0, per_run=True),
    "beta2": Param("float", 0.999, "decay of the second moment (adam, adamw)", low=0.0, below=1.0, per_run=True),
    "alpha": Param("float", 0.99, "decay of the squared gradient (rmsprop)", low=0.0, below=1.0, per_run=True),
    "eps": Param("float", 1e-8, "added to the denominator (adam, adamw, rmsprop, adagrad)", above=0.0, per_run=True),
    "clip": Param("float", None, "maximum gradient norm; larger gradients are scaled down", above=0.0, per_run=True),
    "schedule": Param(
        "str",
        "constant",
        "learning-rate schedule",
        choices=("constant", "step", "cosine", "onecycle"),
        per_run=True,
    ),
    "warmup": Param("int", 0, "optimizer steps of linear warmup to lr (not onecycle)", low=0, per_run=True),
    "step_epochs": Param("int", 10, "epochs between decays of the learning rate (schedule step)", low=1, per_run=True),
    "gamma": Param("float", 0.1, "factor of each decay of the learning rate (schedule step)", above=0.0, per_run=True),
    "ema_decay": Param(
        "float",
        None,
        "decay of a moving average of the weights, which is evaluated and kept",
        low=0.0,
        below=1.0,
        per_run=True,
    ),
    "label_smoothing": Param(
        "float", 0.0, "fraction of the target spread over all classes (cross-entropy)", low=0.0, below=1.0, per_run=True
    ),
}
"""Parameters of the training loop, common to all tasks."""

REDECLARABLE = ("epochs", "batch_size", "seed", "optimizer", "lr", "weight_decay")
"""Parameters of the loop for which a task may declare its own default and a narrower range."""


def all_params(declared: Params) -> dict[str, Param]:
    """Return the parameters of the training loop and those that a task declares.

    A redeclared parameter keeps the loop's type and `per_run`. A task's `dropout` of type float always has `per_run`.

    Raises:
        InputError: A redeclared parameter has another type, no default, or a choice that the loop does not have.
    """
    params = {**TRAINING, **declared}
    for key in REDECLARABLE:
        params[key] = _narrowed(key, TRAINING[key], params[key])
    if "dropout" in declared and declared["dropout"].type == "float":
        params["dropout"] = replace(declared["dropout"], per_run=True)
    return params


def own_keys(params: Params) -> list[str]:
    """Return the loop's keys that a task declares as other parameters.

    The loop uses its defaults for these keys.
    """
    return [
        key for key, param in TRAINING.items() if key not in REDECLARABLE and key in params and params[key] != param
    ]


def own_key_notes(params: Params) -> list[str]:
    """Return a note on each of the task's `own_keys`."""
    return [
        f"`{key}` is the task's own parameter; the training loop keeps "
        + (f"no `{key}`" if TRAINING[key].default is None else f"{key} = {json.dumps(TRAINING[key].default)}")
        for key in own_keys(params)
    ]


def loop_config(config: Config, params: Params) -> dict[str, Any]:
    """Return the config for the loop, with its defaults for `own_keys`."""
    return {**config, **{key: TRAINING[key].default for key in own_keys(params)}}


def _narrowed(key: str, loop: Param, declared: Param) -> Param:
    """Return the loop's parameter with the default, help and narrower range of a task's declaration."""
    if declared.type != loop.type:
        raise InputError(f"the task declares `{key}` as {declared.type!r}; the training loop needs {loop.type!r}")
    choices = declared.choices or loop.choices
    unknown = [choice for choice in choices if loop.choices and choice not in loop.choices]
    if unknown:
        raise InputError(f"the task declares `{key}` with {unknown[0]!r}; choose from {', '.join(loop.choices)}")
    if declared.default is None:
        raise InputError(f"the task declares `{key}` without a default, and the training loop needs one")
    low, above = _stricter(max, loop.low, declared.low), _stricter(max, loop.above, declared.above)
    high, below = _stricter(min, loop.high, declared.high), _stricter(min, loop.below, declared.below)
    return replace(
        loop,
        default=declared.default,
        help=declared.help or loop.help,
        low=low if above is None or (low is not None and low > above) else None,
        above=above if low is None or (above is not None and above >= low) else None,
        high=high if below is None or (high is not None and high < below) else None,
        below=below if high is None or (below is not None and below <= high) else None,
        choices=choices,
    )


def _stricter(choose: Callable[[list[float]], float], *bounds: float | None) -> float | None:
    finite = [bound for bound in bounds if bound is not None]
    return choose(finite) if finite else None


def with_defaults(config: Config, params: Params) -> dict[str, Any]:
    """Return the config with defaults for parameters that are missing or None.

    Keys that are not parameters are kept.
    """
    values = {key: value for key, value in config.items() if value is not None}
    return {**{key: param.default for key, param in params.items()}, **values}
