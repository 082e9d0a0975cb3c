"""Metrics by name: which are axes, and in which order they are shown."""

from __future__ import annotations

from collections.abc import Iterable


def is_axis(metric: str) -> bool:
    """Whether a metric says how far a run is, not how well it does."""
    return metric in ("epoch", "samples") or metric.startswith(("time/", "system/"))


def metric_rank(metric: str) -> tuple[int, bool, str]:
    """Sorts metrics by how much they say of a run: validation, test, training, then the rest; losses first."""
    order = ("val", "test", "train")
    first = metric.lower().replace("_", "/").split("/")[0]
    return (order.index(first) if first in order else len(order)), "loss" not in metric.lower(), metric


def quality_metrics(metrics: Iterable[str]) -> list[str]:
    """The metrics that say how good a run is, the most telling first."""
    return sorted((name for name in metrics if not is_axis(name)), key=metric_rank)
