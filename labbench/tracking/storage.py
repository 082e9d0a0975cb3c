"""Keeps what a run logs safe: in its database, and where that cannot be written, in a spill file beside it.

Used by one thread at a time. Nothing in here raises for the sake of storage: what is wrong is told, then tried again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from labbench.errors import LabbenchError
from labbench.records import Points
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import PrintedText, ScriptRun
from labbench.store.scripts.spill import Spill
from labbench.tracking.messages import warn, warn_once

_RETRY_PAUSES = (0.1, 5.0)
"""Seconds before a database that could not be written is tried again: the first time, and at most."""

_BUSY_SECONDS = 2.0
"""How long a transaction waits for another process's, then it is tried again: a process that is told to end has ten."""

_inherited: list[object] = []
"""What a forked child got open from its parent: closing it here would reach into the parent's files."""

_STORAGE_ERRORS = (LabbenchError, sqlite3.Error, OSError)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes."""

    run: ScriptRun
    points: list[Points]
    printed: list[PrintedText]
    forget_from: int | None
    """Delete what an earlier attempt logged from this step on."""
    calls: int
    """Log calls that are in it."""


class Storage:
    """Where batches go. `writer` is open already; after a fork or a lost file another is opened when it is needed."""

    def __init__(self, writer: ScriptWriter, run: ScriptRun) -> None:
        self.path = writer.path
        self._writer: ScriptWriter | None = writer
        writer.set_busy_timeout(_BUSY_SECONDS)
        self._known = run
        self._spill: Spill | None = None
        self._pause = 0.0
        self._retry_at = 0.0
        self.stuck = False
        """Neither the database nor a spill file can be written."""
        self.gone = False
        """The run is not ours any more: what is put is dropped."""

    @property
    def failing(self) -> bool:
        """Whether the database could not be written when it was last tried."""
        return self._pause > 0

    def put(self, batch: Batch, *, at_once: bool = False) -> bool:
        """Write a batch to the database; False where that fails or, unless `at_once`, has failed just before."""
        if self.gone or (self.failing and not at_once and time.monotonic() < self._retry_at):
            return self.gone
        try:
            kept = self._opened().keep(
                batch.run, self._known, points=batch.points, printed=batch.printed, forget_from=batch.forget_from
            )
        except _STORAGE_ERRORS as error:
            self._failed(error)
            return False
        self._known = batch.run
        if self.failing:
            self._pause, self.stuck = 0.0, False
            warn(f"{self.path} can be written again")
        if not kept:
            self.gone = True
            warn(f"{self.path}: run {batch.run.key} was removed, ended or resumed elsewhere; nothing more is recorded")
        return True

    def spill(self, batch: Batch) -> bool:
        """Write a batch to the spill file; False where that fails too."""
        try:
            self._spilled(batch.run, batch.points, batch.printed, batch.forget_from)
        except OSError as error:
            if not self.stuck:
                warn(f"{self.path}: nor can a file beside it be written ({error}): what memory cannot hold is lost")
            self.stuck = True
            return False
        self.stuck = False
        assert self._spill is not None  # it was just written
        warn_once(f"what could not be written is in {self._spill.path}; opening the database for writing takes it in")
        return True

    def asked_to_stop(self) -> bool:
        """Whether a person has asked for the run to be stopped, which is told once."""
        if self._writer is None or self.failing or self.gone:
            return False
        try:
            return bool(self._writer.take_requests([self._known.key]))
        except _STORAGE_ERRORS:
            return False  # the next batch meets it too

    def after_fork_in_child(self, run: ScriptRun) -> None:
        """Leave the parent's files alone; the run is known as it stands there."""
        _inherited.append((self._writer, self._spill))
        self._writer = self._spill = None
        self._known = run
        self._pause, self.stuck = 0.0, False

    def release(self) -> None:
        """Close the database, until it is needed again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(*_STORAGE_ERRORS):
                writer.close()

    def close(self) -> None:
        """Close all files; a spill file stays for whoever opens the database next."""
        self._close_spill()
        self.release()

    def _opened(self) -> ScriptWriter:
        """The writer, of a file that is where it was, with everything in it that was spilled."""
        if self._writer is not None and not self._writer.is_in_place():
            warn(f"{self.path} was deleted or replaced: run {self._known.key} goes on in the file that is there now")
            self._salvage(self._writer)
        if self._writer is None:
            self._close_spill()
            is_new = not self.path.exists()
            self._writer = ScriptWriter(self.path)  # takes in what was spilled
            self._writer.set_busy_timeout(_BUSY_SECONDS)
            if is_new:
                self._writer.begin_unless_there(self._known)
        elif self._spill is not None:
            self._close_spill()
            self._writer.take_in_spilled()
        return self._writer

    def _salvage(self, writer: ScriptWriter) -> None:
        """Copy the run out of a file that has lost its name, for the next one to take in."""
        self._spilled(self._known, [], [], None)
        with suppress(LabbenchError):  # what cannot be read is lost
            for piece in writer.salvage(self._known):
                points, printed = ([piece], []) if isinstance(piece, Points) else ([], [piece])
                self._spilled(self._known, points, printed, None)
        writer.abandon()
        self._writer = None

    def _spilled(
        self, run: ScriptRun, points: Iterable[Points], printed: Iterable[PrintedText], forget_from: int | None
    ) -> None:
        if self._spill is None:
            self._spill = Spill(self.path, run)
        self._spill.add(run, points, printed, forget_from)

    def _close_spill(self) -> None:
        spill, self._spill = self._spill, None
        if spill is not None:
            spill.close()

    def _failed(self, error: Exception) -> None:
        shortest, longest = _RETRY_PAUSES
        self._pause = min(longest, max(shortest, 2 * self._pause))
        self._retry_at = time.monotonic() + self._pause
        warn_once(f"{error}; the run goes on, and what it logs is kept and written as soon as that works")
