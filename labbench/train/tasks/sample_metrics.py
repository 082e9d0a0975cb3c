"""Losses and metrics of a task: per sample, stacked over runs, and their means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, vmap

from labbench.errors import InputError
from labbench.records import Config
from labbench.train.data.samples import MISSING_RETURN, Samples, count_samples
from labbench.train.host_copies import SyncPoint, to_host
from labbench.train.tasks.loss_config import LossConfigs
from labbench.train.tasks.losses import accuracy, as_classes, cross_entropy
from labbench.train.tasks.task import Task, takes_config


def compute_losses(task: Task, outputs: Any, targets: Samples, config: Config, smoothing: float = 0.0) -> Tensor:
    """Return the task's loss per sample, shape (N,), with optional label smoothing.

    Raises:
        InputError: If the task's `loss` returns anything but N real numbers.
    """
    losses = _call(task.loss, outputs, targets, config)
    if smoothing:
        losses = apply_label_smoothing(task, outputs, losses, smoothing)
    return _check_values("loss", losses, count_samples(targets))


def compute_metrics(task: Task, outputs: Any, targets: Samples, config: Config) -> dict[str, Tensor]:
    """Return the task's metrics per sample by name, shape (N,) each.

    Raises:
        InputError: If the task's `metrics` returns anything but a dict of N real numbers each, or has one named `loss`.
    """
    with torch.no_grad():
        metrics: Any = _call(task.metrics, outputs, targets, config)
    if not isinstance(metrics, Mapping):
        raise InputError(
            "the task's metrics(outputs, targets) must return a dict of tensors by name, such as "
            f'{{"accuracy": outputs.argmax(1) == targets}}, not {type(metrics).__name__}'
        )
    if "loss" in metrics:
        raise InputError(
            "the task's metrics(...) returns a metric named 'loss', which is reserved for loss(): rename it"
        )
    return {name: _check_values(f"metric {name!r}", values, count_samples(targets)) for name, values in metrics.items()}


def _call(function: Callable[..., Any], outputs: Any, targets: Samples, config: Config) -> Any:
    """Call a task's `loss` or `metrics`, with the config if it takes one."""
    return function(outputs, targets, config=config) if takes_config(function) else function(outputs, targets)


def compute_stacked_losses(
    task: Task, outputs: Any, targets: Samples, configs: LossConfigs, smoothing: Tensor | None = None
) -> Tensor:
    """Return the losses of S runs, shape (S, N).

    Targets have shape (S, N), label smoothing (S, 1).
    """
    if task.loss is not cross_entropy or not isinstance(targets, Tensor):

        def losses_of_run(outputs: Any, targets: Samples, numbers: Mapping[str, Tensor]) -> Tensor:
            return compute_losses(task, outputs, targets, configs.config(numbers))

        return vmap(losses_of_run)(outputs, targets, configs.columns)
    scores = outputs.transpose(1, 2)  # (S, C, N)
    targets = targets.transpose(1, 2) if targets.is_floating_point() else as_classes(outputs, targets, dim=2)
    losses = F.cross_entropy(scores, targets, reduction="none")
    return losses if smoothing is None else apply_label_smoothing(task, scores, losses, smoothing)


def compute_stacked_gradients(
    task: Task, outputs: Tensor, targets: Samples, configs: LossConfigs, smoothing: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return losses (S, N) and d mean(loss of a run) / d outputs (S, N, ...).

    For plain cross-entropy the gradient is (softmax(scores) - one_hot(target)) / N.
    """
    plain = task.loss is cross_entropy and _are_classes(outputs, targets)
    if plain:
        targets = as_classes(outputs, targets, dim=2)
    if not plain or smoothing is not None or bool((targets < 0).any()):  # torch ignores targets of -100
        leaf = outputs.detach().requires_grad_()
        losses = compute_stacked_losses(task, leaf, targets, configs, smoothing)
        (gradient,) = torch.autograd.grad(losses, [leaf], torch.full_like(losses, 1 / losses.shape[1]))
        return losses.detach(), gradient
    logs = outputs.transpose(1, 2).log_softmax(dim=1)  # (S, C, N)
    classes = targets.unsqueeze(1)
    losses = F.nll_loss(logs, targets, reduction="none")
    share = 1 / losses.shape[1]
    gradient = logs.exp_().mul_(share)  # softmax; the one-hot targets are subtracted next
    gradient.scatter_add_(1, classes, gradient.new_tensor(-share).expand(classes.shape))
    return losses, gradient.transpose(1, 2)


def compute_stacked_metrics(task: Task, outputs: Any, targets: Samples, configs: LossConfigs) -> dict[str, Tensor]:
    """Return the metrics of S runs by name, shape (S, N) each."""
    if task.metrics is accuracy and _are_classes(outputs, targets):
        return {"accuracy": is_argmax(outputs.transpose(1, 2), as_classes(outputs, targets, dim=2))}

    def metrics_of_run(outputs: Any, targets: Samples, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return compute_metrics(task, outputs, targets, configs.config(numbers))

    return vmap(metrics_of_run)(outputs, targets, configs.columns)


def _are_classes(outputs: Any, targets: Samples) -> bool:
    """Return True for scores (S, N, C) of at least two classes and integer targets (S, N) or (S, N, 1)."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)) or targets.is_floating_point():
        return False
    has_classes = targets.dim() == 2 or (targets.dim() == 3 and targets.shape[2] == 1)
    return outputs.dim() == 3 and outputs.shape[2] > 1 and has_classes


def is_argmax(scores: Tensor, classes: Tensor) -> Tensor:
    """Return argmax over C of scores (S, C, N) == classes (S, N).

    Works on whole rows, which is faster than argmax over the middle dimension.
    """
    if scores.device.type != "cpu":  # a GPU reduces any dimension at the same speed
        return scores.argmax(dim=1) == classes
    best = scores.amax(dim=1, keepdim=True)  # (S, 1, N)
    chosen = scores.gather(1, classes.unsqueeze(1)) == best
    largest = scores == best
    if int(largest.sum()) == best.numel():  # no ties
        return chosen.squeeze(1)
    earlier = torch.arange(scores.shape[1], device=scores.device)[:, None] < classes.unsqueeze(1)
    return chosen.squeeze(1) & ~(largest & earlier).any(dim=1)


def apply_label_smoothing(task: Task, scores: Tensor, losses: Tensor, smoothing: float | Tensor) -> Tensor:
    """Mix cross-entropies with the cross-entropies of a uniform target.

    Scores have shape (..., C, N) or (N, C), losses (..., N) or (N,). Label smoothing of Szegedy et al., "Rethinking the
    Inception Architecture", 2016, section 7.

    Raises:
        InputError: If the task has its own loss.
    """
    if task.loss is not cross_entropy:
        raise InputError("label_smoothing applies to cross-entropy, but this task defines its own loss: set it to 0")
    spread = -scores.log_softmax(dim=1).mean(dim=1)
    return losses * (1 - smoothing) + spread * smoothing


def _check_values(what: str, values: Any, samples: int) -> Tensor:
    if isinstance(values, Tensor) and values.shape == (samples,) and not values.is_complex():
        return values
    description = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
    if isinstance(values, Tensor) and values.is_complex():
        description += " of complex numbers"
    is_mean = isinstance(values, float) or (isinstance(values, Tensor) and values.dim() == 0)
    remedy = "leave out .mean(), since labbench averages the values; " if is_mean else ""
    if values is None:
        remedy = f"{MISSING_RETURN} "
    raise InputError(
        f"the task's {what} must be a tensor of one real number per sample, shape ({samples},), not {description}; "
        f"{remedy}with torch's losses use reduction='none' and average over any further dimensions"
    )


class MetricMeans:
    """Per-sample values of S runs, kept on the device until their means are read."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Append the values of N more samples by name, shape (S, N) each."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)

    def means(self) -> dict[str, Tensor]:
        """Return the means of each run by name, shape (S,) each."""
        return {name: _mean(torch.cat(values, dim=1)) for name, values in self._values.items()}


def read_means(parts: Mapping[str, MetricMeans], runs: int) -> list[dict[str, float]]:
    """Return the means of each of the `runs` runs, by name with the prefix that is the part's key.

    All parts are copied to the host at once.
    """
    means = {prefix + name: values for prefix, part in parts.items() for name, values in part.means().items()}
    if not means:
        return [{} for _ in range(runs)]
    rows = to_host(torch.stack(list(means.values()), dim=1), SyncPoint.MEANS)  # (S, names)
    return [dict(zip(means, row, strict=True)) for row in rows.tolist()]


def _mean(values: Tensor) -> Tensor:
    on_metal = values.device.type == "mps"  # which has no float64
    return values.mean(dim=1, dtype=torch.float32 if on_metal else torch.float64)


def add_generalization_gap(measured: Mapping[str, float]) -> dict[str, float]:
    """Add `gap/accuracy`, training minus validation accuracy, if both were measured.

    Training accuracy is the running mean over the epoch, with dropout active.
    """
    if {"train/accuracy", "val/accuracy"} <= measured.keys():
        return {**measured, "gap/accuracy": measured["train/accuracy"] - measured["val/accuracy"]}
    return dict(measured)
