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


def perceptron_criterion(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per sample, of one output (N, 1) and two classes (N,): max(0, -y f(x)), y being -1 or 1.

    Plain gradient descent on it, one sample a step, is Rosenblatt's rule: where the sign is wrong or there is none,
    add lr * y * x to the weights. The gradient at 0 is therefore that of a mistake, so zeros are a place to start.
    """
    signs = 2 * targets.to(outputs.dtype) - 1
    return (-signs * outputs.squeeze(1)).clamp(min=0)


def classification_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per sample: of a single output (N, 1) the perceptron criterion, of scores (N, C) cross-entropy."""
    return (perceptron_criterion if outputs.shape[1] == 1 else cross_entropy)(outputs, targets)


def classification_accuracy(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Per sample: the class of a single output (N, 1) is whether it is above 0."""
    if outputs.shape[1] == 1:
        return {"accuracy": (outputs.squeeze(1) > 0) == (targets == 1)}
    return accuracy(outputs, targets)


def prediction_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per sample: the squared error of one output (N, 1) for numbers (N,), cross-entropy for classes."""
    if targets.is_floating_point():
        return (outputs.squeeze(1) - targets) ** 2
    return cross_entropy(outputs, targets)


def prediction_metrics(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Per sample: the absolute error `mae` for numbers, accuracy for classes."""
    if targets.is_floating_point():
        return {"mae": (outputs.squeeze(1) - targets).abs()}
    return accuracy(outputs, targets)
