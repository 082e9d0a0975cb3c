"""Losses and metrics of the built-in tasks, one value per sample."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from labbench.errors import InputError
from labbench.train.tasks.wrong_objects import outputs_error


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy per sample, shape (N,).

    Outputs are scores (N, C), targets classes (N,) or (N, 1) of any integer type, or probabilities (N, C).

    Raises:
        InputError: If outputs or targets are not single tensors, targets are numbers or have no output, or there is
            one output per sample.
    """
    if not isinstance(outputs, Tensor):
        raise outputs_error(outputs)
    if not isinstance(targets, Tensor):
        raise InputError(
            "the default loss, cross-entropy, needs one tensor of targets, and the targets of a sample are several: "
            "define loss(outputs, targets) in the task"
        )
    _check_shapes(outputs, targets)
    try:
        return F.cross_entropy(outputs, as_classes(outputs, targets), reduction="none")
    except IndexError as error:  # "Target 3 is out of bounds."; on a GPU torch ends the process instead
        classes = outputs.shape[1]
        raise InputError(
            f"the targets contain a class that the model has no output for ({error}): {classes} outputs per sample are "
            f"the classes 0 to {classes - 1}"
        ) from error


def _check_shapes(outputs: Tensor, targets: Tensor) -> None:
    """Raise InputError if outputs and targets are no scores and classes, with what to write instead."""
    if targets.is_floating_point() and (targets.shape != outputs.shape or outputs.dim() < 2 or outputs.shape[1] == 1):
        remedies = [
            "if they are classes, convert them by .long()",
            "for a regression define loss(outputs, targets) in the task, such as ((outputs.squeeze(1) - targets) ** 2)",
        ]
        raise InputError(
            "the default loss, cross-entropy, needs classes (integers) as targets, and these are floating-point "
            "numbers: " + "; ".join(remedies if _are_whole(targets) else remedies[::-1])
        )
    if not (outputs.is_floating_point() or outputs.is_complex()):
        raise InputError(
            f"the default loss, cross-entropy, needs scores as outputs, and these are {outputs.dtype}: return the "
            "outputs of the last layer from forward, without argmax"
        )
    if outputs.dim() < 2 or outputs.shape[1] == 1:
        raise InputError(
            f"the default loss, cross-entropy, needs one output per class, shape (N, C), not {tuple(outputs.shape)}: "
            "give the model more outputs, or define loss(outputs, targets) in the task"
        )
    if targets.shape == outputs.shape and not targets.is_floating_point():
        raise InputError(
            "the default loss, cross-entropy, needs one class per sample as targets, shape (N,), and these have the "
            f"shape of the outputs, {tuple(targets.shape)}: convert one-hot targets by .argmax(1), "
            "probabilities by .float()"
        )


def _are_whole(targets: Tensor) -> bool:
    """Return True for floating-point numbers without fractions, also if their values cannot be read, as in vmap."""
    try:
        return bool((targets == targets.round()).all())
    except RuntimeError:
        return True


def as_classes(outputs: Tensor, targets: Tensor, dim: int = 1) -> Tensor:
    """Return class targets as torch's losses need them: int64, without the class dimension `dim` of the outputs.

    Outputs have shape (N, C, ...), targets (N, ...) or (N, 1, ...). Floating-point targets are returned unchanged.
    """
    if targets.is_floating_point():
        return targets
    has_column = targets.dim() == outputs.dim() and targets.shape[dim] == 1
    return (targets.squeeze(dim) if has_column else targets).long()


def accuracy(outputs: Any, targets: Any) -> dict[str, Tensor]:
    """Return the accuracy per sample, shape (N,), for class targets.

    Outputs are scores (N, C) of at least two classes, targets classes (N,) or (N, 1); for other shapes the result is
    empty.
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return {}
    if targets.is_floating_point() or outputs.dim() != 2 or outputs.shape[1] == 1:
        return {}
    classes = as_classes(outputs, targets)
    return {"accuracy": outputs.argmax(dim=1) == classes} if classes.dim() == 1 else {}


def perceptron_criterion(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return max(0, -y f(x)) per sample, shape (N,).

    Outputs f(x) have shape (N, 1), targets are classes 0 and 1, shape (N,), which mean y = -1 and 1. Gradient descent
    on it with batches of one sample is the perceptron rule (Rosenblatt, Psychological Review 65, 1958): add lr * y * x
    to the weights if the sign of f(x) is wrong or zero. An output of 0 has the gradient of a mistake, so weights may
    start at zero.
    """
    signs = 2 * targets.to(outputs.dtype) - 1
    return (-signs * outputs.squeeze(1)).clamp(min=0)


def classification_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss per sample of a classifier, shape (N,).

    The perceptron criterion for a single output (N, 1), cross-entropy for scores (N, C).
    """
    return (perceptron_criterion if outputs.shape[1] == 1 else cross_entropy)(outputs, targets)


def classification_accuracy(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the accuracy per sample, shape (N,).

    A single output (N, 1) above 0 means class 1.
    """
    if outputs.shape[1] == 1:
        return {"accuracy": (outputs.squeeze(1) > 0) == (targets == 1)}
    return accuracy(outputs, targets)


def prediction_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss per sample of a regression or a classifier, shape (N,).

    The squared error of outputs (N, 1) for numbers (N,), cross-entropy for classes (N,).
    """
    if targets.is_floating_point():
        return (outputs.squeeze(1) - targets) ** 2
    return cross_entropy(outputs, targets)


def prediction_metrics(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return `mae` for numbers, `accuracy` for classes, shape (N,)."""
    if targets.is_floating_point():
        return {"mae": (outputs.squeeze(1) - targets).abs()}
    return accuracy(outputs, targets)
