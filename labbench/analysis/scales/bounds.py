"""Smallest and largest possible value of a metric, within which means and intervals are clipped.

A limit beyond the possible values excludes no possible value, so an interval holds as often without that part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from labbench.analysis.intervals import Interval, Scale
from labbench.analysis.table import Table

_SHARE_WORDS = {
    *("accuracy", "acc", "f1", "auc", "auroc", "auprc", "ap", "map", "ndcg", "mrr", "precision", "recall"),
    *("sensitivity", "specificity", "iou", "dice", "jaccard", "top1", "top5", "success", "bleu", "rouge"),
}
_CORRELATION_WORDS = {"mcc", "kappa", "correlation", "pearson", "spearman"}
_DETERMINATION_WORDS = {"r2"}
_ERROR_WORDS = {"loss", "error", "err", "mse", "mae", "rmse", "nll", "perplexity", "wer", "cer"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Smallest and largest possible analysed value, infinite if there is none."""

    low: float = -math.inf
    high: float = math.inf
    scale: Scale = "linear"
    """Scale of the analysed values: `linear` for the metric, `log` for its logarithm."""

    def clip(self, interval: Interval) -> Interval:
        """Return the interval of a mean within the possible values."""
        return _clip(interval, self.low, self.high)

    def clip_difference(self, interval: Interval) -> Interval:
        """Return the interval of a difference of two means within the possible differences."""
        largest = self.high - self.low
        return _clip(interval, -largest, largest)


def _clip(interval: Interval, low: float, high: float) -> Interval:
    mean = min(max(interval.mean, low), high)  # one that an incomplete grid predicts may be impossible
    if interval.low is None or interval.high is None or interval.high < low or interval.low > high:
        return Interval(mean, None, None, interval.scale)
    return Interval(mean, max(interval.low, low), min(interval.high, high), interval.scale)


def guess_bounds(metric: str, table: Table) -> Bounds:
    """Return the bounds of a metric by its name, as far as its values agree.

    An accuracy is a share of 1, or of 100 if a value is above 1.
    """
    words = set(metric.lower().replace("/", "_").replace("-", "_").replace("@", "_").split("_"))
    low, high = float(table.value.min(initial=math.inf)), float(table.value.max(initial=-math.inf))
    if words & _SHARE_WORDS and low >= 0.0 and high <= 100.0:
        return Bounds(0.0, 1.0 if high <= 1.0 else 100.0)
    if words & _CORRELATION_WORDS and low >= -1.0 and high <= 1.0:
        return Bounds(-1.0, 1.0)
    if words & _DETERMINATION_WORDS and high <= 1.0:
        return Bounds(-math.inf, 1.0)
    return Bounds(0.0 if words & _ERROR_WORDS and low >= 0.0 else -math.inf)
