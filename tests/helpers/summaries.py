"""Reference implementation of metric summaries, to compare the store's summaries with."""

from __future__ import annotations

import math
from dataclasses import fields

from labbench.records import MetricSummary


def summarize(series: dict[int, float]) -> MetricSummary:
    """Compute the summary from all points at once, by definition."""
    steps = sorted(series)
    bad = [step for step in steps if not math.isfinite(series[step])]
    finite = [(series[step], step) for step in steps if math.isfinite(series[step])]
    low = min(finite, default=(None, None), key=lambda pair: pair[0])
    high = max(finite, default=(None, None), key=lambda pair: pair[0])
    first_bad = bad[0] if bad else None
    return MetricSummary(len(steps), len(bad), first_bad, series[steps[-1]], steps[-1], *low, *high)


def is_same_summary(left: MetricSummary, right: MetricSummary) -> bool:
    """Compare two summaries; NaN equals NaN, and zero has no sign because SQLite stores none."""
    return [repr(_unsigned(getattr(left, name))) for name in FIELDS] == [
        repr(_unsigned(getattr(right, name))) for name in FIELDS
    ]


def _unsigned(value: float | None) -> float | None:
    return None if value is None else value + 0


FIELDS = [field.name for field in fields(MetricSummary)]
