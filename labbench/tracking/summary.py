"""`run.summary`: the last value of each metric of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic_ns
from typing import Any

from labbench.tracking.values import storable_name, to_numbers
from labbench.tracking.writer_thread import RunWriterThread


class RunSummary(Mapping[str, float]):
    """Last value of each metric that this process logged: `run.summary["val/loss"]`.

    An assignment, `run.summary["best/accuracy"] = 0.97`, logs the value as a metric at the run's last step.
    """

    def __init__(self, writer_thread: RunWriterThread) -> None:
        self._writer_thread = writer_thread

    def __setitem__(self, metric: str, value: Any) -> None:
        self.update({metric: value})

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several values; nested dicts are joined with `/`.

        Raises:
            InputError: In a strict run, if a value is not a number or the run has ended.
        """
        numbers = to_numbers(values, self._writer_thread.problems)
        self._writer_thread.flush()  # so that the last step is known
        self._writer_thread.calls.append((max(0, self._writer_thread.step), monotonic_ns(), numbers))
        if not self._writer_thread.wake():
            self._writer_thread.report_end()

    def __getitem__(self, metric: str) -> float:
        return self._writer_thread.last_values()[storable_name(metric)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._writer_thread.last_values())

    def __len__(self) -> int:
        return len(self._writer_thread.last_values())

    def __repr__(self) -> str:
        return f"RunSummary({self._writer_thread.last_values()!r})"
