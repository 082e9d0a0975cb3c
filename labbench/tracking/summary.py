"""`run.summary`: the last value of every metric of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic_ns
from typing import Any

from labbench.tracking.values import flatten_metrics, storable_name
from labbench.tracking.writer_thread import RunWriterThread


class RunSummary(Mapping[str, float]):
    """What this process has logged last: `run.summary["val/loss"]`.

    What is set here, `run.summary["best/accuracy"] = 0.97`, is a metric like any other, logged at the run's last step.
    """

    def __init__(self, recorder: RunWriterThread) -> None:
        self._recorder = recorder

    def __setitem__(self, metric: str, value: Any) -> None:
        self.update({metric: value})

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several at once; nested dicts are joined with `/`."""
        numbers = flatten_metrics(values)
        self._recorder.flush()  # so that the last step is known
        self._recorder.calls.append((max(0, self._recorder.step), monotonic_ns(), numbers))
        self._recorder.wake()

    def __getitem__(self, metric: str) -> float:
        return self._recorder.last_values()[storable_name(metric)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._recorder.last_values())

    def __len__(self) -> int:
        return len(self._recorder.last_values())

    def __repr__(self) -> str:
        return f"RunSummary({self._recorder.last_values()!r})"
