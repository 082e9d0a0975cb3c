"""`Writer`: queue runs, claim them, and record their events.

Only this class and its subclasses write to a database. Every method is one transaction. Only the current attempt of a
run is recorded: events of an earlier attempt are dropped, so that the series of two attempts never mix.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from labbench.errors import InputError, LabbenchError, StoreError
from labbench.files import files_folder, run_folder
from labbench.records import Config, Event, Goal, NewRun, RunRecord, Status, Submission
from labbench.store.connection import file_id, open_for_writing, path_with_suffix, resolve_path, translate_sqlite_errors
from labbench.store.liveness import this_process, uptime
from labbench.store.queries.run_rows import (
    IN_JSON_LIST,
    IS_OF_PROCESS,
    SET_PROCESS,
    STATUS,
    as_json_list,
    read_records,
    set_config,
    storable_text,
)
from labbench.store.recording.continuation import Continuation, begin_from_kept_state
from labbench.store.recording.events import end_run, record_events
from labbench.store.recording.queue import add_tags, insert_missing, link_sources
from labbench.store.scripts.spill import merge_spill_files
from labbench.store.series.points import delete_points
from labbench.system.clock import now

if TYPE_CHECKING:
    from labbench.store.queries.code_versions import CodeSorting
    from labbench.system.provenance import Provenance  # imports subprocess and platform, which start() does not need

Action: TypeAlias = Literal["stop", "retry"]


class Writer:
    """Writer of a database, for one thread.

    Close it, or use it in a `with` block. Every method raises StoreError if the database cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        """Open or create a database and merge spill files.

        Raises InputError if the file is not a labbench database or cannot be written.
        """
        self.path = resolve_path(path)
        self._connection = open_for_writing(self.path)
        self._closed = self._is_abandoned = False
        try:
            self.merge_spilled()
        except BaseException:
            self._connection.close()
            raise
        # identity of the open files, in case the path later refers to another file
        self._file_id = file_id(self.path)
        self._connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone()  # the first access creates the log
        self._log_id = file_id(path_with_suffix(self.path, "-wal"))

    def set_busy_timeout(self, seconds: float) -> None:
        """Set how many seconds to wait for a lock; the default is `connection.BUSY_SECONDS`."""
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    def is_in_place(self) -> bool:
        """Return True if the path still refers to the open file: SQLite keeps writing to a deleted one."""
        return file_id(self.path) == self._file_id

    def abandon(self) -> None:
        """Close a file that was deleted or replaced.

        Also deletes its write-ahead log, if that is still in place: SQLite would apply it to the new file at the path.
        """
        self._is_abandoned = True
        with suppress(LabbenchError):
            self.close()
        log = path_with_suffix(self.path, "-wal")
        if self._log_id is not None and file_id(log) == self._log_id:
            for side_file in (log, path_with_suffix(self.path, "-shm")):
                side_file.unlink(missing_ok=True)

    def copy_runs(self, copy: Path, keys: Sequence[str]) -> None:
        """Copy runs of the open file, which may have been deleted, to a new database at `copy`.

        Raises:
            InputError: If `copy` cannot be created.
            StoreError: If the open file cannot be read.
        """
        from labbench.store.maintenance.merge import copy_runs  # needed only after a file was deleted

        open_for_writing(copy).close()
        with translate_sqlite_errors(copy):
            copy_runs(self._connection, copy, keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        is_in_place = self.is_in_place()
        self.close()
        if kind is None and not is_in_place and not self._is_abandoned:
            raise StoreError(f"{self.path} was deleted or replaced while it was written to; do the same again")

    def close(self) -> None:
        """Close the database after a WAL checkpoint; the last connection also deletes SQLite's side files.

        Without room for the checkpoint everything stays in the write-ahead log, from which it is read.
        """
        with translate_sqlite_errors(self.path):
            if not self._closed:
                self._closed = True
                with suppress(sqlite3.OperationalError):
                    self._connection.execute("PRAGMA wal_checkpoint")
                self._connection.close()

    def merge_spilled(self) -> None:
        """Merge the spill files that scripts wrote while the database was locked or its disk full."""
        with translate_sqlite_errors(self.path, opening=True):
            merge_spill_files(self._connection, self.path)

    def queue(
        self,
        submission: Submission,
        runs: Sequence[NewRun],
        *,
        rerun: bool = False,
        continuations: Mapping[str, Continuation] | None = None,
    ) -> list[RunRecord]:
        """Insert the runs whose identity the experiment does not have, or all of them if `rerun`.

        `continuations` names, by identity, the shorter runs from whose final states inserted runs begin.

        Returns:
            The records of all the given runs, existing ones included, in order.
        """
        with self._transaction() as connection:
            for metric, goal in submission.metrics.items():
                _declare_goal(connection, metric, goal)
            if (stop := submission.stop) is not None:
                _declare_goal(connection, stop.metric, stop.goal, unless_declared=True)
            (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()
            ids = insert_missing(connection, submission, runs, rerun=rerun)
            link_sources(connection, ids, submission.sources)
            for run_id, run in zip(ids, runs, strict=True):
                if run_id > newest and continuations and run.identity in continuations:
                    begin_from_kept_state(connection, run_id, continuations[run.identity], files_folder(self.path))
            return read_records(connection, ids)

    def sort_by_code(self, experiment: str, sorting: CodeSorting) -> None:
        """Record which runs of an experiment count as runs of the current code and which as runs of older code."""
        from labbench.store.queries.code_versions import record_sorting  # 4 ms that only `labbench run` needs

        with self._transaction() as connection:
            record_sorting(connection, experiment, sorting)

    def claim(
        self,
        keys: Sequence[str],
        *,
        statuses: Collection[Status] = ("queued", "lost"),
        task: str | None = None,
        configs: Mapping[str, Config] | None = None,
        source: Provenance | None = None,
    ) -> list[RunRecord]:
        """Set runs to running, driven by this process.

        If several processes claim a run, one of them gets it. A run that was started before loses its points after its
        boundary and starts its next attempt.

        Args:
            keys: Keys of the runs to claim.
            statuses: Claim only runs in one of these statuses.
            task: Task to train; replaces a value that another program wrote.
            configs: Config values by run key; they replace values that another program wrote.
            source: Code that trains the runs.

        Returns:
            The records of the claimed runs, in the order of `keys`.
        """
        with self._transaction() as connection:
            query = f"SELECT id, key, boundary FROM runs WHERE key {IN_JSON_LIST} AND {STATUS} {IN_JSON_LIST}"
            rows = connection.execute(query, (as_json_list(keys), as_json_list(statuses)))
            claimed = {key: (run_id, boundary) for run_id, key, boundary in rows}
            for run_id, boundary in claimed.values():
                delete_points(connection, run_id, after=boundary or None)
            ids = [claimed[key][0] for key in dict.fromkeys(keys) if key in claimed]
            _begin_attempts(connection, ids, source)
            if task is not None:
                _set_task(connection, ids, task)
            if configs is not None:
                for key, (run_id, _) in claimed.items():
                    set_config(connection, run_id, configs[key])
            return read_records(connection, ids)

    def write(self, events: Iterable[Event]) -> None:
        """Record events; drop events of a run that was removed, has ended or is in a later attempt."""
        with self._transaction() as connection:
            record_events(connection, events)

    def send_heartbeat(self, keys: Sequence[str]) -> list[str]:
        """Record a heartbeat for the runs that this process drives, and return their keys."""
        with self._transaction() as connection:
            condition = f"key {IN_JSON_LIST} AND status = 'running' AND {IS_OF_PROCESS}"
            parameters = (as_json_list(keys), *astuple(this_process()))
            query = f"UPDATE runs SET heartbeat = ?, heartbeat_uptime = ? WHERE {condition}"
            connection.execute(query, (now(), uptime(), *parameters))
            return [key for (key,) in connection.execute(f"SELECT key FROM runs WHERE {condition}", parameters)]

    def requeue(self, keys: Sequence[str]) -> None:
        """Return runs that this process drives to the queue, to resume from their boundary."""
        with self._transaction() as connection:
            connection.execute(
                f"""
                UPDATE runs SET status = 'queued', reason = 'interrupted'
                WHERE key {IN_JSON_LIST} AND status = 'running' AND {IS_OF_PROCESS}
                """,
                (as_json_list(keys), *astuple(this_process())),
            )

    def retry(self, keys: Sequence[str], *, from_start: bool = False) -> list[str]:
        """Queue failed, diverged, stopped and lost runs again, and return their keys.

        A run resumes from its boundary unless `from_start` is set. A diverged run always starts from the beginning:
        from its boundary it would diverge again.
        """
        with self._transaction() as connection:
            ended = f"{STATUS} IN ('failed', 'diverged', 'stopped', 'lost')"
            query = f"SELECT id, key FROM runs WHERE key {IN_JSON_LIST} AND {ended}"
            rows = connection.execute(query, (as_json_list(keys),)).fetchall()
            connection.execute(
                f"""
                UPDATE runs SET status = 'queued', reason = NULL, finished = NULL,
                    boundary = CASE WHEN status = 'diverged' OR ? THEN 0 ELSE boundary END
                WHERE id {IN_JSON_LIST}
                """,
                (from_start, as_json_list(run_id for run_id, _ in rows)),
            )
            return [key for _, key in rows]

    def request(self, key: str, action: Action) -> None:
        """Request that a run is stopped or retried.

        A queued or lost run is stopped immediately; a running one by its process, which polls `pop_requests`.
        """
        if action == "retry":
            self.retry([key])
            return
        with self._transaction() as connection:
            row = connection.execute(f"SELECT id, {STATUS} FROM runs WHERE key = ?", (key,)).fetchone()
            if row is None:
                return
            run_id, status = row
            if status == "running":
                query = "INSERT OR IGNORE INTO requests (run_id, action, created) VALUES (?, ?, ?)"
                connection.execute(query, (run_id, action, now()))
            elif status in ("queued", "lost"):
                end_run(connection, run_id, "stopped", "stopped by the user")

    def pop_requests(self, keys: Sequence[str]) -> list[tuple[str, Action]]:
        """Return and delete the requests for these runs as (key, action), oldest first."""
        with self._transaction() as connection:
            query = f"""
                SELECT requests.id, key, action FROM requests JOIN runs ON runs.id = run_id
                WHERE key {IN_JSON_LIST} ORDER BY requests.id
            """
            rows = connection.execute(query, (as_json_list(keys),)).fetchall()
            connection.executemany("DELETE FROM requests WHERE id = ?", [(request_id,) for request_id, _, _ in rows])
            return [(key, action) for _, key, action in rows]

    def tag(self, keys: Sequence[str], add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Add tags to runs and remove others."""
        with self._transaction() as connection:
            ids = _run_ids(connection, keys)
            add_tags(connection, ids, add)
            removed_tags = [(run_id, storable_text(tag)) for tag in remove for run_id in ids]
            connection.executemany("DELETE FROM tags WHERE run_id = ? AND tag = ?", removed_tags)

    def note(self, key: str, text: str) -> None:
        """Set the note of a run; an empty text removes it."""
        with self._transaction() as connection:
            connection.execute("UPDATE runs SET note = ? WHERE key = ?", (storable_text(text) or None, key))

    def rename(self, key: str, name: str) -> None:
        """Rename a run. Its grid still finds it by its identity."""
        with self._transaction() as connection:
            connection.execute("UPDATE runs SET name = ? WHERE key = ?", (storable_text(name), key))

    def rename_experiment(self, name: str, new: str) -> None:
        """Rename an experiment.

        Raises:
            InputError: An experiment has the new name.
        """
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM experiments WHERE name = ?", (storable_text(new),)).fetchone():
                raise InputError(f"the experiment `{new}` exists already: choose another name")
            connection.execute("UPDATE experiments SET name = ? WHERE name = ?", (storable_text(new), name))

    def archive(self, keys: Sequence[str], archived: bool = True) -> None:
        """Archive runs, which hides them unless a filter asks for archived runs, or unarchive them."""
        with self._transaction() as connection:
            connection.execute(f"UPDATE runs SET archived = ? WHERE key {IN_JSON_LIST}", (archived, as_json_list(keys)))

    def remove(self, keys: Sequence[str]) -> None:
        """Delete runs with all their data and files.

        Raises:
            InputError: If a key is invalid, or a run's folder is a link that points outside the folder of files.
        """
        folders = [run_folder(files_folder(self.path), key) for key in keys]
        with self._transaction() as connection:
            ids = _run_ids(connection, keys)
            for table in ("points", "summary", "rollup", "tags", "logs", "artifacts", "requests", "run_sources"):
                connection.execute(f"DELETE FROM {table} WHERE run_id {IN_JSON_LIST}", (as_json_list(ids),))
            connection.execute(f"DELETE FROM runs WHERE id {IN_JSON_LIST}", (as_json_list(ids),))
            connection.execute("DELETE FROM sources WHERE id NOT IN (SELECT source_id FROM run_sources)")
            connection.execute("DELETE FROM experiments WHERE id NOT IN (SELECT experiment_id FROM runs)")
        import shutil  # takes 4 ms, which the start of a script does not need

        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        folder = files_folder(self.path)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def define_metric(self, name: str, goal: Goal) -> None:
        """Declare the goal of a metric: "min", "max" or "none"."""
        with self._transaction() as connection:
            _declare_goal(connection, name, goal)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if not self.is_in_place():
            raise StoreError(f"{self.path} was deleted or replaced while it was open; nothing more is written to it")
        with translate_sqlite_errors(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has rolled it back already
                    connection.execute("ROLLBACK")
                raise


def _declare_goal(connection: sqlite3.Connection, metric: str, goal: Goal, *, unless_declared: bool = False) -> None:
    value = "coalesce(goal, excluded.goal)" if unless_declared else "excluded.goal"
    query = f"INSERT INTO metrics (name, goal) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET goal = {value}"
    connection.execute(query, (storable_text(metric), goal))


def _run_ids(connection: sqlite3.Connection, keys: Sequence[str]) -> list[int]:
    query = f"SELECT id FROM runs WHERE key {IN_JSON_LIST}"
    return [run_id for (run_id,) in connection.execute(query, (as_json_list(keys),))]


def _begin_attempts(connection: sqlite3.Connection, ids: Sequence[int], source: Provenance | None) -> None:
    # a run that starts from the beginning loses the start time and the engine of its earlier attempt
    connection.execute(
        f"""
        UPDATE runs SET
            status = 'running', attempt = attempt + (heartbeat IS NOT NULL),
            {SET_PROCESS}, heartbeat = ?, heartbeat_uptime = ?, finished = NULL, reason = NULL,
            started = CASE WHEN boundary > 0 THEN started END, way = CASE WHEN boundary > 0 THEN way END,
            continued_from = CASE WHEN boundary > 0 THEN continued_from END,
            continued_step = CASE WHEN boundary > 0 THEN continued_step END,
            device = NULL, error_kind = NULL, error = NULL, traceback = NULL,
            git_commit = ?, git_dirty = ?, versions = ?
        WHERE id {IN_JSON_LIST}
        """,
        (*astuple(this_process()), now(), uptime(), source and source.git_commit, source and source.git_dirty,
         json.dumps(source.versions if source else {}), as_json_list(ids)),
    )  # fmt: skip
    connection.execute(f"DELETE FROM requests WHERE run_id {IN_JSON_LIST}", (as_json_list(ids),))


def _set_task(connection: sqlite3.Connection, ids: Sequence[int], task: str) -> None:
    query = f"UPDATE runs SET task = ? WHERE id {IN_JSON_LIST}"
    connection.execute(query, (storable_text(task), as_json_list(ids)))
