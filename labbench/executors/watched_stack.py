"""Stack that trains in another process: its active runs, their time limit, and what remains if the process ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from labbench.executors.attempt import sub_stack
from labbench.records import Boundary, Event, Failed, FailureKind, Finished, Points, RunRecord, Stack
from labbench.train.active_runs import ActiveRuns

MAX_FRUITLESS_STARTS = 3
"""Number of jobs or nodes of a stack that may end in a row before a new checkpoint."""


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

    def skip(self) -> None:
        """Do not count the time since the last call of `charge`."""
        self._last_charge = self._last_report = time.monotonic()

    def over(self, runs: Iterable[str]) -> list[str]:
        """Return the runs whose share exceeds the limit."""
        return [run for run in runs if self.seconds is not None and self._shares[run] > self.seconds]

    @property
    def is_silent(self) -> bool:
        """True if the worker has reported nothing for longer than the limit."""
        return self.seconds is not None and time.monotonic() - self._last_report > self.seconds


class WatchedStack:
    """State of a stack as its events report it."""

    def __init__(self, stack: Stack, timeout: float | None) -> None:
        """`timeout` is the time limit of one attempt of a run in seconds."""
        self.stack = stack
        self.active = ActiveRuns(stack.runs)
        """Runs that have not ended."""
        self.has_advanced = False
        """True after a run has ended or has reached a new boundary, so that training the stack again is less work."""
        self._timeout = timeout
        self._time_limit = TimeLimit(timeout)
        self._measured: set[str] = set()
        """Runs with points."""

    @property
    def has_time_limit(self) -> bool:
        """True if the runs have a time limit."""
        return self._timeout is not None

    def report(self) -> None:
        """Note a sign of life of the process."""
        self._time_limit.report()

    def restart_clock(self) -> None:
        """Count the time from now on."""
        self._time_limit = TimeLimit(self._timeout)

    def skip_time(self) -> None:
        """Do not count the time since the last look at the time limit: the stack waits for a node."""
        self._time_limit.skip()

    def update(self, event: Event) -> None:
        """Apply an event."""
        if isinstance(event, Points) and event.run in self._measured:
            return  # most events: the same runs share the time as before
        self._time_limit.charge(self._measured_runs() or self.active.keys)
        if isinstance(event, Points):
            self._measured.add(event.run)
        is_new_boundary = isinstance(event, Boundary) and event.step > self.active[event.run].boundary
        self.has_advanced = self.has_advanced or is_new_boundary or isinstance(event, Failed | Finished)
        self.active.update(event)

    def overdue_runs(self) -> dict[str, str]:
        """Return the runs that have exceeded the time limit, each with its error message."""
        self._time_limit.charge(self._measured_runs() or self.active.keys)
        if over := self._time_limit.over(self.active.keys):
            return dict.fromkeys(over, f"timed out after {self._timeout or 0:g} s ([resources] timeout)")
        if self._time_limit.is_silent:
            started = [run.key for run in self.active if self.active.has_started(run)]
            message = f"timed out: nothing was reported for {self._timeout:g} s ([resources] timeout)"
            return dict.fromkeys(started if self._measured else self.active.keys, message)
        return {}

    def _measured_runs(self) -> list[str]:
        """Return the active runs that have measured something; none while the stack loads."""
        return [run for run in self.active.keys if run in self._measured]

    def end_dead(
        self, message: str, last_lines: Sequence[str], kind: FailureKind = "crash"
    ) -> tuple[list[Failed], list[Stack]]:
        """Return the failure of the run of a dead process if it was the only one, else two halves to retry."""
        runs = list(self.active)
        if len(runs) == 1:
            return [failure(runs[0], kind, message, last_lines)], []
        halves = runs[: len(runs) // 2], runs[len(runs) // 2 :]
        return [], [sub_stack(self.stack, half) for half in halves if half]

    def end_overdue(self, overdue: Mapping[str, str], last_lines: Sequence[str]) -> tuple[list[Failed], list[Stack]]:
        """Return the failures of overdue runs, given with their messages, and a stack of the others to retry."""
        failures = [failure(run, "timeout", overdue[run.key], last_lines) for run in self.active if run.key in overdue]
        others = [run for run in self.active if run.key not in overdue]
        return failures, [sub_stack(self.stack, others)] if others else []


def failure(run: RunRecord, kind: FailureKind, message: str, last_lines: Sequence[str]) -> Failed:
    """Return the failure of a run whose process ended, with its last lines of output."""
    return Failed(run.key, run.attempt, kind, message, "\n".join(last_lines))
