"""What is minimised and what is counted, one number a sample."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from labbench.errors import InputError


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per sample, of scores (N, C) and classes (N,) or probabilities (N, C)."""
    if targets.is_floating_point() and targets.dim() == 1:
        raise InputError("targets are numbers, not classes (integers): the task must have a loss(outputs, targets)")
    return F.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs: Any, targets: Tensor) -> dict[str, Tensor]:
    """Per sample, of scores (N, C) and classes (N,); nothing for other targets."""
    if targets.is_floating_point() or targets.dim() != 1 or not isinstance(outputs, Tensor) or outputs.dim() != 2:
        return {}
    return {"accuracy": outputs.argmax(dim=1) == targets}
