"""What a script's process writes with: it begins, resumes or joins one run, then keeps it up to date."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from labbench.errors import InputError, LabbenchError, RunNotFound
from labbench.records import Points, RunRecord
from labbench.store.connection import path_with_suffix, translate_sqlite_errors
from labbench.store.liveness import HOST
from labbench.store.queries.find_run import find_run
from labbench.store.recording.events import record_events
from labbench.store.scripts.script_run import PrintedText, ScriptRun, insert_script_run, write_changes, write_printed
from labbench.store.series.points import delete_points
from labbench.store.writer import Writer

_RUN_TABLES = "run_id = (SELECT id FROM runs WHERE key = ?)"
_ATTEMPT_TABLES = f"{_RUN_TABLES} AND attempt = ?"

_CHUNK = 10_000
"""Points in memory while a series is copied."""


class ScriptWriter(Writer):
    """Writes the runs of scripts. Every method is one transaction."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        # of what is open here, if the path comes to name another file
        self._inode = self.path.stat().st_ino
        self._log_inode = _inode(path_with_suffix(self.path, "-wal"))

    def set_busy_timeout(self, seconds: float) -> None:
        """How long to wait for another process's transaction, in place of `opening.BUSY_SECONDS`."""
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    def is_in_place(self) -> bool:
        """Whether the path still names the file that is open here: SQLite writes on into a deleted one."""
        return _inode(self.path) == self._inode

    def abandon(self) -> None:
        """Close a file that is not in place any more.

        The log that it leaves under its old name goes too: SQLite would write it into the file that is there now.
        """
        with suppress(LabbenchError):
            self.close()
        log = path_with_suffix(self.path, "-wal")
        if self._log_inode is not None and _inode(log) == self._log_inode:
            for side in (log, path_with_suffix(self.path, "-shm")):
                side.unlink(missing_ok=True)

    def salvage(self, run: ScriptRun) -> Iterator[Points | PrintedText]:
        """All that the open file knows of a run, to be written elsewhere."""
        with translate_sqlite_errors(self.path):
            printed = f"SELECT time, coalesce(stream, 'stdout'), text FROM logs WHERE {_ATTEMPT_TABLES} ORDER BY id"
            for row in self._connection.execute(printed, (run.key, run.attempt)):
                yield PrintedText(*row)
            metrics = f"SELECT metric_id, name FROM summary JOIN metrics ON metrics.id = metric_id WHERE {_RUN_TABLES}"
            for metric_id, name in self._connection.execute(metrics, (run.key,)).fetchall():
                query = f"SELECT step, time_ms, value FROM points WHERE {_RUN_TABLES} AND metric_id = ? ORDER BY step"
                rows = self._connection.execute(query, (run.key, metric_id))
                while chunk := rows.fetchmany(_CHUNK):
                    steps, times, values = zip(*chunk, strict=True)
                    numbers = [math.nan if value is None else value for value in values]
                    yield Points(run.key, run.attempt, name, steps, times, numbers)

    def begin(self, run: ScriptRun) -> ScriptRun:
        """Insert a running run; returns it with its key and name."""
        with self._transaction() as connection:
            return insert_script_run(connection, run)

    def begin_unless_there(self, run: ScriptRun) -> None:
        """Insert a run that a new file does not have."""
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM runs WHERE key = ?", (run.key,)).fetchone() is None:
                insert_script_run(connection, run)

    def resume(self, word: str) -> tuple[ScriptRun, int | None]:
        """Take up a script's run that has ended, by key, beginning of a key or name: its next attempt begins.

        Returns the run and the last step that it has logged. Raises InputError where it lives or is no script's.
        """
        with self._transaction() as connection:
            record = find_run(connection, word)
            origin, last_step = connection.execute(
                """
                SELECT origin,
                    (SELECT max(last_step) FROM summary JOIN metrics ON metrics.id = metric_id
                     WHERE run_id = runs.id AND metrics.name NOT GLOB 'system/*') -- they have steps of their own
                FROM runs WHERE id = ?
                """,
                (record.id,),
            ).fetchone()
            if origin != "script":
                raise InputError(f"run {record.key} comes from a grid or an import: only a script's run can be resumed")
            if record.status == "running":
                raise InputError(f"run {record.key} is still running, in process {record.pid} on {record.host}")
            connection.execute(
                """
                UPDATE runs SET status = 'running', attempt = attempt + 1, host = ?, pid = ?, heartbeat = ?,
                    finished = NULL, reason = NULL, error_kind = NULL, error = NULL, traceback = NULL
                WHERE id = ?
                """,
                (HOST, os.getpid(), time.time(), record.id),
            )
            run = replace(_run_from_record(record), attempt=record.attempt + 1, host=HOST, pid=os.getpid())
            return run, last_step

    def attach(self, key: str) -> ScriptRun:
        """The running run that another process drives and this one logs to."""
        with self._transaction() as connection:
            record = find_run(connection, key)
            if record.key != key:
                raise RunNotFound(f"no run has the key `{key}`")
            if record.status not in ("running", "lost"):
                raise InputError(f"run {key} is {record.status}, not running: nothing can be logged to it")
            return replace(_run_from_record(record), drives=False)

    def keep(
        self,
        run: ScriptRun,
        known: ScriptRun,
        *,
        points: Iterable[Points] = (),
        printed: Iterable[PrintedText] = (),
        forget_from: int | None = None,
    ) -> bool:
        """Write what is new since `known` was written; says with it that the process lives.

        `forget_from` deletes what an earlier attempt logged from that step on. Returns False, with nothing written,
        where the run is gone, has ended or is in a later attempt.
        """
        with self._transaction() as connection:
            query = "SELECT id FROM runs WHERE key = ? AND attempt = ? AND status = 'running'"
            row = connection.execute(query, (run.key, run.attempt)).fetchone()
            if row is None:
                return False
            [run_id] = row
            if forget_from is not None:
                delete_points(connection, run_id, after=forget_from - 1)
            record_events(connection, points)
            write_printed(connection, run_id, run.attempt, printed)
            if run is not known:
                write_changes(connection, run_id, run, known)
            if run.drives:
                connection.execute("UPDATE runs SET heartbeat = ? WHERE id = ?", (time.time(), run_id))
            return True


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _run_from_record(record: RunRecord) -> ScriptRun:
    """A run that is in the database."""
    return ScriptRun(
        record.key,
        record.name,
        record.experiment,
        record.attempt,
        record.started or time.time(),
        record.host or HOST,
        record.pid or os.getpid(),
        config=record.config,
        tags=record.tags,
        note=record.note,
        git_commit=record.git_commit,
        git_dirty=record.git_dirty,
        versions=record.versions,
    )
