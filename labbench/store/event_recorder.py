"""Recorder of a driver's events, which survives a database that is locked, full, deleted or replaced for a while.

Events that cannot be written are kept and retried. If there are too many for memory, or the driver ends, they go to
spill files beside the database, which the next process that opens it for writing merges.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from labbench.errors import LabbenchError
from labbench.records import Config, Event, Points, RunRecord, Status
from labbench.store.liveness import this_process
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.recording.queue import Action
from labbench.store.scripts.script_run import ScriptRun
from labbench.store.scripts.spill import Spill
from labbench.store.writer import Writer
from labbench.system.clock import now
from labbench.system.provenance import Provenance

RETRY_PAUSES = (0.1, 5.0)
"""Seconds between retries after a failed write: the first and the longest pause; the pause doubles in between."""

BUSY_SECONDS = 2.0
"""Seconds that a transaction waits for a lock before it fails and is retried; Ctrl-C has no effect meanwhile."""

OUTAGE_SECONDS = 90.0
"""Seconds for which claims and the last events wait for a database that cannot be written, together."""

MAX_KEPT_VALUES = 1_000_000
"""Maximum number of values of kept events in memory; more go to spill files."""

Result = TypeVar("Result")

_STORAGE_ERRORS = (LabbenchError, sqlite3.Error, OSError)


class EventRecorder:
    """Records the events of runs that this process drives; no method raises an error of the database."""

    def __init__(self, writer: Writer, runs: Sequence[RunRecord], *, is_interrupted: Callable[[], bool]) -> None:
        """`runs` are the runs that may be claimed; after `is_interrupted()`, nothing is waited for."""
        self.path = writer.path
        self.problem: str | None = None
        """Reason why the database does not hold everything that it should, for the user."""
        self._writer = writer
        self._runs = {run.key: run for run in runs}
        self._is_interrupted = is_interrupted
        self._kept: list[Event] = []
        self._n_kept_values = 0
        self._reported_later: list[Event] = []
        """Events that were written before a claim, and that the next flush returns."""
        self._spills: dict[str, Spill] = {}
        self._rescued: Path | None = None
        """Copy of the runs of a database that was deleted or replaced, until it is merged."""
        self._pause = self._retry_at = 0.0
        self._give_up_at: float | None = None
        """Time at which nothing waits for the database any more, None while nothing waits."""
        writer.set_busy_timeout(BUSY_SECONDS)

    def claim(
        self,
        keys: Sequence[str],
        *,
        statuses: Collection[Status],
        task: str,
        configs: Mapping[str, Config],
        source: Provenance,
    ) -> list[RunRecord]:
        """Claim runs as `Writer.claim` does, after the events so far; return none if that fails for too long."""
        claimed = self.perform(
            lambda writer: writer.claim(keys, statuses=statuses, task=task, configs=configs, source=source)
        )
        self._runs |= {run.key: run for run in claimed or ()}
        return claimed or []

    def perform(self, operation: Callable[[Writer], Result]) -> Result | None:
        """Return the result of an operation after the events so far; None if that fails for too long."""
        while True:
            written = self.flush()
            self._reported_later += written or ()
            result = None if written is None else self._try(operation)
            if result is not None:
                return result
            if self._gives_up():
                self.problem = f"{self.path} could not be written, so some runs were not started; run the grid again"
                return None
            time.sleep(RETRY_PAUSES[0])

    def add(self, event: Event) -> None:
        """Keep an event until the next flush."""
        self._kept.append(event)
        self._n_kept_values += len(event.steps) if isinstance(event, Points) else 1

    def flush(self) -> list[Event] | None:
        """Write the kept events in one transaction; return None if that fails.

        Returns the events that were written since the last call, also those before a claim.
        """
        events = self._kept
        if (events or self._spills) and self._try(lambda writer: self._write(writer, events)) is None:
            if self._n_kept_values > MAX_KEPT_VALUES:
                self._spill()
            return None
        written = [*self._reported_later, *events]
        self._kept, self._n_kept_values, self._reported_later = [], 0, []
        return written

    def send_heartbeat(self, keys: Sequence[str]) -> list[str]:
        """Record a heartbeat as `Writer.send_heartbeat` does; return all keys if that fails."""
        driven = self._try(lambda writer: writer.send_heartbeat(keys))
        return list(keys) if driven is None else driven

    def pop_requests(self, keys: Sequence[str]) -> list[tuple[str, Action]]:
        """Return and delete the requests for these runs; return none if that fails."""
        return self._try(lambda writer: writer.pop_requests(keys)) or []

    def close(self, active: Sequence[str]) -> list[Event]:
        """Write the last events and return the `active` runs to the queue, or spill the events if that fails.

        Returns the events that were written.
        """
        try:
            while True:
                events = self.flush()
                if events is not None and self._try(lambda writer: _requeue(writer, active)):
                    return events
                if self._gives_up():
                    break
                time.sleep(RETRY_PAUSES[0])
        except KeyboardInterrupt:
            pass
        self._spill()
        for spill in self._spills.values():
            spill.close()
        return []

    def _try(self, operation: Callable[[Writer], Result]) -> Result | None:
        """Return the result of an operation; None if it fails, or during the pause after a failure."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            if self._rescued is not None or not self._writer.is_in_place():
                self._move_to_new_file()
            result = operation(self._writer)
        except _STORAGE_ERRORS as error:
            if not self._pause:
                _warn(f"{error}; training continues, and its events are written once the database can be written")
            shortest, longest = RETRY_PAUSES
            self._pause = min(longest, max(shortest, 2 * self._pause))
            self._retry_at = time.monotonic() + self._pause
            return None
        self._give_up_at = None
        if self._pause:
            self._pause = 0.0
            _warn(f"{self.path} can be written again")
        return result

    def _gives_up(self) -> bool:
        """Return True if the database has been waited for long enough: once for all claims of an outage."""
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + OUTAGE_SECONDS
        return self._is_interrupted() or time.monotonic() > self._give_up_at

    def _write(self, writer: Writer, events: Sequence[Event]) -> bool:
        if self._spills:
            for spill in self._spills.values():
                spill.close()
            writer.merge_spilled()
            self._spills = {}
        writer.write(events)
        return True

    def _move_to_new_file(self) -> None:
        """Go on in the file that is now at the path, with the runs of the open file, which was deleted or replaced."""
        if self._rescued is None:
            copy = self.path.with_name(f"{self.path.name}.rescued-{os.getpid()}.db")
            self._writer.copy_runs(copy, list(self._runs))
            self._writer.abandon()
            self._rescued = copy
            self.problem = (
                f"{self.path} was deleted or replaced during training; the runs of this command are in the file that "
                "is at this path now, other runs of the deleted file are not"
            )
            _warn(f"{self.path} was deleted or replaced: training goes on in the file at this path")
        writer = MaintenanceWriter(self.path)
        try:
            writer.set_busy_timeout(BUSY_SECONDS)
            writer.merge(self._rescued)
        except BaseException:
            writer.close()
            raise
        self._rescued.unlink(missing_ok=True)
        self._writer, self._rescued = writer, None

    def _spill(self) -> None:
        """Write the kept events to a spill file for each run."""
        try:
            for event in self._kept:
                run = self._runs[event.run]
                if event.run not in self._spills:
                    self._spills[event.run] = Spill(self.path, _as_script_run(run, event.attempt))
                self._spills[event.run].append_event(_as_script_run(run, event.attempt), event)
        except OSError as error:
            self.problem = (
                f"{self.path} could not be written, nor a file beside it ({error}): the last events are lost; "
                "free some space and run the grid again"
            )
            return
        self._kept, self._n_kept_values = [], 0
        names = ", ".join(spill.path.name for spill in list(self._spills.values())[:3])
        rescued = "" if self._rescued is None else f", and earlier ones in the database {self._rescued} (import it)"
        if self._spills or rescued:
            self.problem = (
                f"{self.path} could not be written: the last events are in {names or 'no file'}{rescued} beside it; "
                "the next command that writes to the database merges them"
            )


def _requeue(writer: Writer, keys: Sequence[str]) -> bool:
    writer.requeue(keys)
    return True


def _as_script_run(run: RunRecord, attempt: int) -> ScriptRun:
    """Return the run for the first line of a spill file."""
    return ScriptRun(
        run.key, run.name, run.experiment, attempt, run.started or now(), this_process(), config=run.config
    )


def _warn(message: str) -> None:
    print(f"\nlabbench: {message}", file=sys.stderr, flush=True)
