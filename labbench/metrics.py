"""Classification and ranking of metrics by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SPLITS = {
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), 0),
    "test": 1,
    **dict.fromkeys(("train", "training"), 2),
}
"""Rank of the words that name the data of a metric, held-out data first."""

_COUNTERS = {"epoch", "step", "iter", "iteration", "sample", "token", "batch", "num", "n", "global", "seen", "trainer"}
"""Words that make up the names of counters: `epoch`, `trainer/global_step`."""

_CONDITIONS = {
    "lr",
    "grad",
    "gradient",
    "dead",
    "memory",
    "time",
    "timestamp",
    "runtime",
    "sec",
    "second",
    "throughput",
}
"""Words of metrics of the training itself or of its cost."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\dA-Za-z_]+")


def is_axis(metric: str) -> bool:
    """Return True if a metric measures progress or the machine, not the model."""
    return metric in ("epoch", "samples") or metric.startswith(("time/", "system/"))


def is_quality(metric: str) -> bool:
    """Return True if a metric can measure the quality of a run.

    Learning rates, gradient norms, times, memory and counters do not, in any spelling: `lr-Adam`, `train/grad_norm`,
    `eval/samples_per_second`, `learningRate`.
    """
    words = set(_split_words(metric))
    is_counter = words <= _COUNTERS | _SPLITS.keys() and not words.isdisjoint(_COUNTERS)
    is_condition = not words.isdisjoint(_CONDITIONS) or words >= {"learning", "rate"}
    return not (is_axis(metric) or is_counter or is_condition)


def metric_rank(metric: str) -> tuple[bool, int, bool, str]:
    """Return the sort key of a metric.

    Metrics of quality come first, by split (validation, test, training, none), losses before others.

    The split may be anywhere in the name: `val/loss`, `eval_loss`, `loss.dev`, `valLoss`.
    """
    words = _split_words(metric)
    split = min((_SPLITS[word] for word in words if word in _SPLITS), default=len(_SPLITS))
    return not is_quality(metric), split, "loss" not in words, metric


def quality_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the metrics that measure quality, in the order of `metric_rank`."""
    return sorted(filter(is_quality, metrics), key=metric_rank)


def charted_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the metrics that are drawn over an axis, in the order of `metric_rank`."""
    return sorted((name for name in metrics if not is_axis(name)), key=metric_rank)


def _split_words(metric: str) -> list[str]:
    """Return the words of a name in lower case and singular.

    Words are separated by punctuation or capitals.
    """
    return [word if word.endswith("ss") else word.removesuffix("s") for word in map(str.lower, _WORD.findall(metric))]
