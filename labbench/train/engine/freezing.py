"""Freeze a network except for its head.

The backbone has no gradients and fixed batch-norm statistics.
"""

from __future__ import annotations

from torch import nn

from labbench.train.engine.dropout import SPATIAL_DIMENSIONS

EVAL_MODE_ATTRIBUTE = "labbench_kept"
"""Attribute that marks a module which stays in eval mode during training."""

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def find_head(model: nn.Module) -> tuple[str, nn.Module]:
    """Return path and module of the head.

    The head is the last module with direct parameters.
    """
    *_, last = ((path, m) for path, m in model.named_modules() if any(True for _ in m.parameters(recurse=False)))
    return last


def freeze(model: nn.Module) -> None:
    """Freeze all modules except the head.

    Frozen modules get no gradients and drop nothing; batch norms use their running statistics.
    """
    _, head = find_head(model)
    for module in model.modules():
        if module is head:
            continue
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if isinstance(module, NORMALISATIONS):
            setattr(module, EVAL_MODE_ATTRIBUTE, True)
        elif type(module) in SPATIAL_DIMENSIONS:
            module.p = 0.0  # type: ignore[assignment]
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0


def set_mode(model: nn.Module, training: bool) -> None:
    """Set training or eval mode; frozen batch norms stay in eval mode."""
    model.train(training)
    for module in model.modules():
        if hasattr(module, EVAL_MODE_ATTRIBUTE):
            module.eval()
