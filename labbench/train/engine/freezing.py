"""A network of which the head alone learns: the backbone is kept as it is, the statistics of its normalisation too."""

from __future__ import annotations

from torch import nn

from labbench.train.engine.dropout import SPATIAL_DIMENSIONS

EVAL_MODE_ATTRIBUTE = "labbench_kept"
"""The attribute of a module that stays in eval mode."""

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def find_head(model: nn.Module) -> tuple[str, nn.Module]:
    """The last module with parameters of its own, and its path in the model."""
    *_, last = ((path, m) for path, m in model.named_modules() if any(True for _ in m.parameters(recurse=False)))
    return last


def freeze(model: nn.Module) -> None:
    """Let only the head learn. The backbone drops nothing, and its batch normalisation uses what it has learnt."""
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


def set_mode(model: nn.Module, training: bool) -> None:
    """Into training mode or out of it, but for what is kept as it is."""
    model.train(training)
    for module in model.modules():
        if hasattr(module, EVAL_MODE_ATTRIBUTE):
            module.eval()
