"""Storage of batches in the database, or in a spill file beside it while the database cannot be written.

For one thread at a time. No function raises an error of the database or the file system: it prints a warning, and the
write is retried.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from labbench.errors import LabbenchError
from labbench.messages import describe_error, warn, warn_once
from labbench.records import Points
from labbench.store.script_writer import Outcome, ScriptWriter
from labbench.store.scripts.script_run import PrintedText, ScriptRun
from labbench.store.scripts.spill import Spill

_RETRY_PAUSES = (0.1, 5.0)
"""Seconds between retries after a failed write: the first and the longest pause; the pause doubles in between."""

_BUSY_SECONDS = 2.0
"""Seconds that a transaction waits for a lock before it fails and is retried.

Short, because a scheduler kills a process about ten seconds after it has asked the process to end.
"""

_ADOPTION_SECONDS = 10.0
"""Seconds that a forked process waits to drive a run that another process has ended."""

_inherited: list[object] = []
"""Open files that a forked child inherited from its parent; closing them would damage the parent's files."""

_STORAGE_ERRORS = (LabbenchError, sqlite3.Error, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class Batch:
    """Content of one transaction."""

    run: ScriptRun
    points: list[Points]
    printed: list[PrintedText]
    truncate_from: int | None
    """First step whose points of earlier attempts are deleted; None deletes no points."""
    calls: int
    """Number of log calls in the batch."""

    def changes(self, written: ScriptRun) -> bool:
        """Return True unless the batch is a mere heartbeat of a run in the state `written`."""
        return bool(self.points or self.printed or self.run is not written)


class Storage:
    """Destination of batches.

    Starts with an open `writer`; after a fork or the loss of the file, a new one is opened on demand.
    """

    def __init__(self, writer: ScriptWriter, run: ScriptRun) -> None:
        self.path = writer.path
        self._writer: ScriptWriter | None = writer
        writer.set_busy_timeout(_BUSY_SECONDS)
        self._written = run
        self._spill: Spill | None = None
        self._has_spilled = False
        """True from the first batch in a spill file until it is merged."""
        self._pause = 0.0
        self._retry_at = 0.0
        self.stuck = False
        """True if neither the database nor a spill file can be written."""
        self._is_detached = False
        """True once the run was removed, ended or resumed elsewhere; the database is then left alone."""
        self._keeps_leftover = False
        """True if the batches of a detached run are kept in a file."""
        self._leftover: Spill | None = None
        self.awaits_adoption = False
        """True if batches wait for the exit of the process that has ended the run, see `_may_be_adopted`."""
        self._adoption_deadline = 0.0

    @property
    def failing(self) -> bool:
        """True if the last attempt to write to the database failed."""
        return self._pause > 0 or self._is_cut_off()

    def put(self, batch: Batch, *, immediately: bool = False) -> bool:
        """Write a batch to the database.

        Returns False if that fails. During the pause after a failure, also returns False, unless `immediately` is set.
        """
        if self._is_detached:
            self._keep_leftover(batch)
            return True
        if self._is_cut_off():
            return not batch.changes(self._written) or self.spill(batch)
        if self.failing and not immediately and time.monotonic() < self._retry_at:
            return False
        try:
            outcome = self._ensure_open().record(
                batch.run, self._written, points=batch.points, printed=batch.printed, truncate_from=batch.truncate_from
            )
        except _STORAGE_ERRORS as error:
            self._handle_failure(error)
            return False
        if self.failing:
            self._pause, self.stuck = 0.0, False
            warn(f"{self.path} can be written again")
        self.awaits_adoption = outcome == "ended" and not immediately and self._may_be_adopted(batch.run)
        if self.awaits_adoption:
            return False
        if outcome != "recorded":
            self._detach(outcome, batch)
        self._written = batch.run
        return True

    def adopt(self, run: ScriptRun) -> bool:
        """Drive the run in this process; return False if another process drives it or has ended it."""
        try:
            return not self._is_detached and self._ensure_open().adopt(run)
        except _STORAGE_ERRORS as error:
            self._handle_failure(error)
            return False

    def spill(self, batch: Batch) -> bool:
        """Write a batch to the spill file; return False if that fails too."""
        try:
            self._append_to_spill(batch.run, batch.points, batch.printed, batch.truncate_from)
        except (OSError, MemoryError) as error:
            if not self.stuck:
                warn(
                    f"{self.path}: no file beside the database can be written either ({describe_error(error)}); "
                    "log calls that do not fit into memory will be lost"
                )
            self.stuck = True
            return False
        self.stuck = False
        assert self._spill is not None  # it was just written
        warn_once(
            f"data that could not be written to the database is in {self._spill.path}; "
            "the next process that opens the database for writing merges it"
        )
        return True

    def pop_stop_request(self) -> bool:
        """Return True once after a user has requested that the run stop."""
        if self._writer is None or self.failing or self._is_detached:
            return False
        try:
            return bool(self._writer.pop_requests([self._written.key]))
        except _STORAGE_ERRORS:
            return False  # the next batch reports the error

    def after_fork_in_child(self, run: ScriptRun) -> None:
        """Drop the parent's open files without closing them.

        `run` is the state that the parent has written.
        """
        _inherited.append((self._writer, self._spill, self._leftover))
        self._writer = self._spill = self._leftover = None
        self._has_spilled = False
        self._written = run
        self._pause, self.stuck = 0.0, False

    def release(self) -> None:
        """Close the database; the next batch reopens it."""
        if self._is_cut_off():
            return
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(*_STORAGE_ERRORS):
                writer.close()

    def close(self) -> None:
        """Close all files; a spill file stays until the next process merges it."""
        self._close_spill()
        if self._leftover is not None:
            self._leftover.close()
        self.release()

    def _is_cut_off(self) -> bool:
        """Return True once the script has closed the descriptors of the database: it cannot be opened again."""
        if self._writer is None or self._writer.has_descriptors():
            return False
        warn_once(
            f"{self.path}: the script has closed the file descriptors of the database, as `os.closerange` does; run "
            f"{self._written.key} continues, and what it logs from now on is written to another file. Call "
            "labbench.start() after such a call"
        )
        return True

    def _may_be_adopted(self, run: ScriptRun) -> bool:
        """Return True for a moment if another process has ended the run: it may be about to exit, or just have exited.

        A script that forks a daemon ends its run at its exit, and the daemon then drives the run.
        """
        self._adoption_deadline = self._adoption_deadline or time.monotonic() + _ADOPTION_SECONDS
        return not run.drives and time.monotonic() < self._adoption_deadline

    def _detach(self, outcome: Outcome, batch: Batch) -> None:
        """Leave the run in the database to others; further data is kept in a file, unless the run was removed."""
        self._is_detached, self._keeps_leftover = True, outcome != "removed"
        causes = {"removed": "removed", "ended": "ended elsewhere", "superseded": "resumed by another process"}
        warn(f"{self.path}: run {batch.run.key} was {causes[outcome]}; nothing more of this process is recorded in it")
        self._keep_leftover(batch)

    def _keep_leftover(self, batch: Batch) -> None:
        """Append a batch to the file of data that is no longer recorded in the database."""
        if self._keeps_leftover and batch.changes(self._written):
            try:
                if self._leftover is None:
                    self._leftover = Spill(self.path, batch.run, superseded=True)
                    warn(f"what run {batch.run.key} logs in this process is kept in {self._leftover.path}")
                self._leftover.append(batch.run, batch.points, batch.printed, batch.truncate_from)
            except (OSError, MemoryError) as error:
                warn_once(f"log calls of run {batch.run.key} were lost: {describe_error(error)}")
        self._written = batch.run

    def _ensure_open(self) -> ScriptWriter:
        """Return a writer of the file at `path`, after merging the spill file."""
        if self._writer is not None and not self._writer.is_in_place():
            warn(f"{self.path} was deleted or replaced: run {self._written.key} continues in the file at this path")
            self._salvage(self._writer)
        if self._writer is None:
            self._close_spill()
            is_new = not self.path.exists()
            self._writer = ScriptWriter(self.path)  # merges spill files
            self._writer.set_busy_timeout(_BUSY_SECONDS)
            if is_new:
                self._writer.begin_if_missing(self._written)
        elif self._has_spilled:
            self._close_spill()
            self._writer.merge_spilled()
        self._has_spilled = False
        return self._writer

    def _salvage(self, writer: ScriptWriter) -> None:
        """Copy the run from an open file that was deleted or replaced to the spill file."""
        self._append_to_spill(self._written, [], [], None)
        with suppress(LabbenchError):  # data that cannot be read is lost
            for item in writer.salvage(self._written):
                points, printed = ([item], []) if isinstance(item, Points) else ([], [item])
                self._append_to_spill(self._written, points, printed, None)
        writer.abandon()
        self._writer = None

    def _append_to_spill(
        self, run: ScriptRun, points: Iterable[Points], printed: Iterable[PrintedText], truncate_from: int | None
    ) -> None:
        if self._spill is None:
            self._spill = Spill(self.path, run)
        self._spill.append(run, points, printed, truncate_from)
        self._has_spilled = True

    def _close_spill(self) -> None:
        spill, self._spill = self._spill, None
        if spill is not None:
            spill.close()

    def _handle_failure(self, error: Exception) -> None:
        shortest, longest = _RETRY_PAUSES
        self._pause = min(longest, max(shortest, 2 * self._pause))
        self._retry_at = time.monotonic() + self._pause
        warn_once(
            f"{describe_error(error)}; the run continues, and its data is buffered and written once the database can "
            "be written"
        )


class DiscardingStorage:
    """Storage of a run that is not recorded: batches are discarded."""

    failing = stuck = awaits_adoption = False

    def put(self, batch: Batch, *, immediately: bool = False) -> bool:
        return True

    def spill(self, batch: Batch) -> bool:
        return True

    def adopt(self, run: ScriptRun) -> bool:
        return False

    def pop_stop_request(self) -> bool:
        return False

    def after_fork_in_child(self, run: ScriptRun) -> None: ...

    def release(self) -> None: ...

    def close(self) -> None: ...
