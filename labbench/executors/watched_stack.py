"""Stack that trains in another process: its active runs, their time limit, and what remains if the process ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labbench.executors.attempt import sub_stack
from labbench.executors.time_limit import TimeLimit
from labbench.records import Event, Failed, FailureKind, Points, RunRecord, Stack
from labbench.train.active_runs import ActiveRuns


class WatchedStack:
    """State of a stack as its events report it."""

    def __init__(self, stack: Stack, timeout: float | None) -> None:
        """`timeout` is the time limit of one attempt of a run in seconds."""
        self.stack = stack
        self.active = ActiveRuns(stack.runs)
        """Runs that have not ended."""
        self._timeout = timeout
        self._time_limit = TimeLimit(timeout)
        self._measured: set[str] = set()
        """Runs with points."""

    def report(self) -> None:
        """Note a sign of life of the process."""
        self._time_limit.report()

    def restart_clock(self) -> None:
        """Count the time from now on."""
        self._time_limit = TimeLimit(self._timeout)

    def update(self, event: Event) -> None:
        """Apply an event."""
        if isinstance(event, Points) and event.run in self._measured:
            return  # most events: the same runs share the time as before
        self._time_limit.charge(self._measured_runs() or self.active.keys)
        if isinstance(event, Points):
            self._measured.add(event.run)
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
