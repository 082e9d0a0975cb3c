"""Time limit of the runs in a worker process: `[resources] timeout`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence


class TimeLimit:
    """Limit of each run's share of a worker's time, and of the time without a report.

    The time in which several runs train together counts in equal shares, so that a run has the same limit alone and in
    a stack. The time of loading, before the first run starts, is shared by all runs.
    """

    def __init__(self, seconds: float | None) -> None:
        """`seconds` is the limit; None means that there is none."""
        self.seconds = seconds
        self._shares: Counter[str] = Counter()
        self._last_charge = self._last_report = time.monotonic()

    def report(self) -> None:
        """Note that the worker has reported something."""
        self._last_report = time.monotonic()

    def charge(self, runs: Sequence[str]) -> None:
        """Divide the time since the last call among these runs."""
        now = time.monotonic()
        for run in runs:
            self._shares[run] += (now - self._last_charge) / len(runs)  # type: ignore[assignment]
        self._last_charge = now

    def over(self, runs: Iterable[str]) -> list[str]:
        """Return the runs whose share exceeds the limit."""
        return [run for run in runs if self.seconds is not None and self._shares[run] > self.seconds]

    @property
    def is_silent(self) -> bool:
        """True if the worker has reported nothing for longer than the limit."""
        return self.seconds is not None and time.monotonic() - self._last_report > self.seconds
