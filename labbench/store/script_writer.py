"""Writer for the process of a training script: start, resume or attach to a run, and update it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from labbench.errors import InputError, RunNotFound
from labbench.records import Points
from labbench.store.connection import translate_sqlite_errors
from labbench.store.liveness import HOST, ProcessIdentity, this_process, uptime
from labbench.store.queries.run_sql import IS_OF_PROCESS, NEXT_ATTEMPT_IDS, SET_PROCESS, storable_text
from labbench.store.recording.events import record_events
from labbench.store.recording.queue import Action, pop_requests
from labbench.store.scripts.script_run import (
    SCRIPT_ENDED,
    PrintedText,
    ScriptRun,
    insert_script_run,
    write_changes,
    write_printed,
)
from labbench.store.series.points import delete_points
from labbench.store.writable_database import WritableDatabase
from labbench.system.clock import now

if TYPE_CHECKING:
    from labbench.records import RunRecord

_OF_RUN = "run_id = (SELECT id FROM runs WHERE key = ?)"
_OF_ATTEMPT = f"{_OF_RUN} AND attempt = ?"

ResumeRule: TypeAlias = Literal["allow", "must", "never"]
"""Rule for `id=`: continue the run if it exists; require that it exists; refuse a run that exists."""

Outcome: TypeAlias = Literal["recorded", "removed", "ended", "superseded"]
"""Result of recording a batch; "superseded": another process has begun the run's next attempt."""

_CHUNK = 10_000
"""Maximum number of points in memory while a series is copied."""


class ScriptWriter(WritableDatabase):
    """Writer of the runs of scripts; every method is one transaction."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, temporary_files=False)  # the script may use up its file descriptors

    def salvage(self, run: ScriptRun) -> Iterator[Points | PrintedText]:
        """Yield all points and printed texts of a run in the open file.

        Raises:
            StoreError: If the file cannot be read.
        """
        with translate_sqlite_errors(self.path):
            printed = f"SELECT time, coalesce(stream, 'stdout'), text FROM logs WHERE {_OF_ATTEMPT} ORDER BY id"
            for row in self._connection.execute(printed, (run.key, run.attempt)):
                yield PrintedText(*row)
            metrics = f"SELECT metric_id, name FROM summary JOIN metrics ON metrics.id = metric_id WHERE {_OF_RUN}"
            for metric_id, name in self._connection.execute(metrics, (run.key,)).fetchall():
                query = f"SELECT step, time_ms, value FROM points WHERE {_OF_RUN} AND metric_id = ? ORDER BY step"
                rows = self._connection.execute(query, (run.key, metric_id))
                while chunk := rows.fetchmany(_CHUNK):
                    steps, times, values = zip(*chunk, strict=True)
                    numbers = [math.nan if value is None else value for value in values]
                    yield Points(run.key, run.attempt, name, steps, times, numbers)

    def begin(self, run: ScriptRun) -> ScriptRun:
        """Insert a new running run, and return it with its key and name.

        Raises:
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            return insert_script_run(connection, run)

    def begin_if_missing(self, run: ScriptRun) -> None:
        """Insert a run unless the database has a run with its key.

        Raises:
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM runs WHERE key = ?", (run.key,)).fetchone() is None:
                insert_script_run(connection, run)

    def begin_or_resume(self, run: ScriptRun, resume: ResumeRule) -> tuple[ScriptRun, int | None]:
        """Insert a new running run, or start the next attempt of the run with its `external_id` in its experiment.

        Returns:
            The run and the last step that it logged, None if it logged nothing.

        Raises:
            InputError: If the rule does not allow what would be done, or the run is still running.
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            query = """
                SELECT runs.key FROM runs JOIN experiments ON experiments.id = runs.experiment_id
                WHERE experiments.name = ? AND runs.external_id = ? AND runs.origin = 'script'
                ORDER BY runs.id DESC LIMIT 1 -- a merged database may have brought another one
            """
            identity = (storable_text(run.experiment), storable_text(run.external_id or ""))
            row = connection.execute(query, identity).fetchone()
            name = f"`{run.external_id}` in the experiment `{run.experiment}`"
            if row is None and resume == "must":
                raise RunNotFound(f"{self.path}: no run has the id {name}; resume='allow' begins it")
            if row is not None and resume == "never":
                raise InputError(f"{self.path}: run {row[0]} has the id {name}; resume='allow' continues it")
            if row is None:
                return insert_script_run(connection, run), None
            return _start_next_attempt(connection, self._find_run(connection, row[0]))

    def resume(self, word: str, *, otherwise: ScriptRun | None = None) -> tuple[ScriptRun, int | None]:
        """Start the next attempt of a script's run that has ended, given its key, name or key prefix.

        If no run has the name `word`, insert the run `otherwise`, unless that is None.

        Returns:
            The run and the last step that it logged, None if it logged nothing.

        Raises:
            InputError: If there is no such run, it is still running, or it is not a script's run.
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            try:
                record = self._find_run(connection, word)
                if otherwise is not None and record.external_id == word not in (record.key, record.name):
                    raise RunNotFound(f"no run has the name `{word}`", candidates=())
            except RunNotFound:
                has_name = connection.execute("SELECT 1 FROM runs WHERE name = ?", (storable_text(word),)).fetchone()
                if otherwise is None or has_name:
                    raise
                return insert_script_run(connection, otherwise), None
            return _start_next_attempt(connection, record)

    def attach(
        self, key: str, *, external_id: str | None = None, from_start: bool = False
    ) -> tuple[ScriptRun, int | None]:
        """Attach to a running run of another process, so that this process can log to it.

        Args:
            external_id: Id that the script gives the run; an id that it has stays.
            from_start: Delete the points of the run, and let it start now.

        Returns:
            The run and the last step that it logged, None if it logged nothing.

        Raises:
            InputError: If there is no such run (`RunNotFound`), or it is not running.
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            record = self._find_run(connection, key)
            if record.key != key:
                raise RunNotFound(f"no run has the key `{key}`")
            if record.status not in ("running", "lost"):
                raise InputError(f"run {key} is {record.status}, not running; nothing can be logged to it")
            if record.source is not None:
                raise InputError(f"run {key} is mirrored from {record.source}; nothing can be logged to it here")
            last_step = _last_step(connection, record.id)
            if external_id is not None:
                query = "UPDATE runs SET external_id = coalesce(external_id, ?) WHERE id = ?"
                connection.execute(query, (storable_text(external_id), record.id))
            if from_start and record.summary:
                record = replace(record, started=now(), summary={})
                delete_points(connection, record.id, after=None)
                connection.execute("UPDATE runs SET started = ? WHERE id = ?", (record.started, record.id))
                last_step = None
            return replace(_run_from_record(record), drives=False), last_step

    def record(
        self,
        run: ScriptRun,
        written: ScriptRun,
        *,
        points: Iterable[Points] = (),
        printed: Iterable[PrintedText] = (),
        truncate_from: int | None = None,
    ) -> Outcome:
        """Write new data of a run, the changes since its state `written`, and a heartbeat.

        Args:
            truncate_from: First step whose points of earlier attempts are deleted before writing.

        Returns:
            "recorded"; else nothing was written, because the run is not running in this attempt.

        Raises:
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            row = connection.execute("SELECT id, attempt, status FROM runs WHERE key = ?", (run.key,)).fetchone()
            if row is None:
                return "removed"
            run_id, attempt, status = row
            if attempt != run.attempt:
                return "superseded"
            if status != "running":
                return "ended"
            if truncate_from is not None:
                delete_points(connection, run_id, after=truncate_from - 1)
            record_events(connection, points)
            write_printed(connection, run_id, run.attempt, printed)
            if run is not written:
                write_changes(connection, run_id, run, written)
            if run.drives:
                query = "UPDATE runs SET heartbeat = ?, heartbeat_uptime = ? WHERE id = ?"
                connection.execute(query, (now(), uptime(), run_id))
            return "recorded"

    def pop_requests(self, keys: Sequence[str]) -> list[tuple[str, Action]]:
        """Return and delete the requests for these runs as (key, action), oldest first.

        Raises:
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            return pop_requests(connection, keys)

    def adopt(self, run: ScriptRun) -> bool:
        """Drive a run in this process instead of `run.process`, which has ended without other processes noticing.

        Returns:
            False if the run is not in this attempt, or another process drives it or has ended it.

        Raises:
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            # a script that forks a daemon may end the run at its exit
            query = f"""
                UPDATE runs SET {SET_PROCESS}, heartbeat = ?, heartbeat_uptime = ?,
                    status = 'running', finished = NULL, reason = NULL
                WHERE key = ? AND attempt = ? AND {IS_OF_PROCESS}
                    AND (status = 'running' OR status = 'finished' AND reason = '{SCRIPT_ENDED}')
            """
            parameters = (*astuple(this_process()), now(), uptime(), run.key, run.attempt, *astuple(run.process))
            return connection.execute(query, parameters).rowcount == 1

    def _find_run(self, connection: sqlite3.Connection, word: str) -> RunRecord:
        from labbench.store.queries.find_run import find_run  # 5 ms that the start of a new run does not need

        return find_run(connection, word, self.path)


def _start_next_attempt(connection: sqlite3.Connection, record: RunRecord) -> tuple[ScriptRun, int | None]:
    """Resume a run; see `ScriptWriter.resume`. The caller holds a transaction."""
    [origin] = connection.execute("SELECT origin FROM runs WHERE id = ?", (record.id,)).fetchone()
    if origin != "script":
        raise InputError(
            f"run {record.key} comes from a grid, an import or a mirror; only runs of scripts can be resumed"
        )
    if record.status == "running":
        raise InputError(f"run {record.key} is still running, in process {record.pid} on {record.host}")
    process = this_process()
    connection.execute(
        f"""
        UPDATE runs SET status = 'running', attempt = attempt + 1, attempt_ids = {NEXT_ATTEMPT_IDS},
            {SET_PROCESS}, heartbeat = ?, heartbeat_uptime = ?,
            finished = NULL, reason = NULL, error_kind = NULL, error = NULL, traceback = NULL
        WHERE id = ?
        """,
        (*astuple(process), now(), uptime(), record.id),
    )
    [attempt_ids] = connection.execute("SELECT attempt_ids FROM runs WHERE id = ?", (record.id,)).fetchone()
    run = _run_from_record(record)
    run = replace(run, attempt=record.attempt + 1, attempt_ids=attempt_ids, process=process)
    return run, _last_step(connection, record.id)


def _last_step(connection: sqlite3.Connection, run_id: int) -> int | None:
    """Return the last step that a run logged, without system metrics, which are sampled at separate steps."""
    query = """
        SELECT max(last_step) FROM summary JOIN metrics ON metrics.id = metric_id
        WHERE run_id = ? AND metrics.name NOT GLOB 'system/*'
    """
    row: tuple[int | None] = connection.execute(query, (run_id,)).fetchone()
    return row[0]


def _run_from_record(record: RunRecord) -> ScriptRun:
    """Convert a record of the database."""
    return ScriptRun(
        record.key,
        record.name,
        record.experiment,
        record.attempt,
        record.started or now(),
        ProcessIdentity(record.host or HOST, record.pid or 0),
        last_sample_step=max(
            (summary.last_step for name, summary in record.summary.items() if name.startswith("system/")), default=0
        ),
        external_id=record.external_id,
        config=record.config,
        tags=record.tags,
        note=record.note,
        git_commit=record.git_commit,
        git_dirty=record.git_dirty,
        versions=record.versions,
    )
