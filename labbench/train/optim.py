"""torch.optim from a config."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch._dynamo  # every optimizer imports it at its first use, a second's work that forked workers shall find done
from torch import nn, optim

from labbench.errors import InputError
from labbench.records import Config


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
