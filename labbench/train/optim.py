"""torch.optim from a config."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch._dynamo  # every optimizer imports it at its first use, a second's work that forked workers shall find done
from torch import nn, optim

from labbench.records import Config


def make_optimizer(config: Config, parameters: Iterable[nn.Parameter], device: torch.device) -> optim.Optimizer:
    """The optimizer that `config` names. Parameters that it does not use are left alone.

    Nesterov's form of no momentum is plain gradient descent, which torch refuses to be told.
    """
    name, lr, weight_decay = config["optimizer"], config["lr"], config["weight_decay"]
    momentum, eps, betas = config["momentum"], config["eps"], (config["beta1"], config["beta2"])
    # one kernel for all parameters; rmsprop has none, and adagrad's is for CPUs
    fused = device.type in ("cpu", "cuda") or None
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
        return optim.Adagrad(parameters, lr, weight_decay=weight_decay, eps=eps, fused=device.type == "cpu" or None)
    raise ValueError(f"no such optimizer: {name}")
