"""Dialog to choose a metric by typing, or all metrics that match a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from labbench import text
from labbench.tui.widgets.picker import Choice, ListDialog


@dataclass(frozen=True, slots=True)
class PickedMetrics:
    """One metric, or a page of charts."""

    metric: str | None = None
    pattern: str = ""
    """Regular expression of the metrics on the page, without a single `metric`; "" for all metrics."""


class MetricPicker(ListDialog[PickedMetrics]):
    """Dialog that returns the chosen metrics, or None if cancelled."""

    def __init__(self, metrics: Sequence[str], *, chosen: str | None, pattern: str) -> None:
        """Open the dialog on all metrics; `pattern` limits the charts so far."""
        choices = [Choice(PickedMetrics(metric), text.clean(metric)) for metric in metrics]
        present = next((choice.value for choice in choices if choice.value.metric == chosen), None)
        super().__init__("metric", choices, chosen=present)
        self._pattern = pattern

    def matching(self, words: str) -> list[Choice[PickedMetrics]]:
        try:
            pattern = re.compile(words, re.IGNORECASE)
        except re.error:
            return super().matching(words)
        metrics = [choice for choice in self.choices if pattern.search(choice.label)]
        if words and len(metrics) > 1:
            label = f"charts of the {len(metrics)} metrics that match “{words}”"
            metrics.append(Choice(PickedMetrics(pattern=words), label))
        elif not words and self._pattern:
            metrics.append(Choice(PickedMetrics(), "charts of all metrics"))
        return metrics
