"""The only thing that writes a database: it queues runs, hands them out, and records what becomes of them.

Every method is one transaction. A run belongs to one attempt at a time: what an older attempt still sends is dropped,
so that attempts never splice.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from labbench.files import files_folder, run_folder
from labbench.provenance import Provenance
from labbench.records import Config, Event, Goal, NewRun, RunRecord, Status, Submission
from labbench.store.connection import open_for_writing, resolve_path, translate_sqlite_errors
from labbench.store.liveness import HOST
from labbench.store.queries.code_versions import CodeSorting, record_sorting
from labbench.store.queries.run_rows import IN_JSON_LIST, STATUS, as_json_list, read_records, set_config, storable_text
from labbench.store.recording.events import end_run, record_events
from labbench.store.recording.queue import add_tags, insert_missing, link_sources
from labbench.store.scripts.spill import merge_spill_files
from labbench.store.series.points import delete_points

Action: TypeAlias = Literal["stop", "retry"]


class Writer:
    """Writes one database, which is created if it is not there. For one thread; close it, or use it in a `with`.

    Raises InputError when the database cannot be opened, StoreError when it cannot be written later on.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = resolve_path(path)
        self._connection = open_for_writing(self.path)
        self._closed = False
        try:
            self.merge_spilled()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Move what is in the log into the database; the last connection leaves that one file alone."""
        with translate_sqlite_errors(self.path):
            if not self._closed:
                self._closed = True
                self._connection.execute("PRAGMA wal_checkpoint")
                self._connection.close()

    def merge_spilled(self) -> None:
        """Merge the spill files that scripts wrote while the database was locked or its disk full."""
        with translate_sqlite_errors(self.path, opening=True):
            merge_spill_files(self._connection, self.path)

    def queue(self, submission: Submission, runs: Sequence[NewRun], *, rerun: bool = False) -> list[RunRecord]:
        """Insert the runs whose identity the experiment does not have yet; `rerun` inserts all of them again.

        Returns all that were asked for, in order, as they stand now.
        """
        with self._transaction() as connection:
            for metric, goal in submission.metrics.items():
                _declare_goal(connection, metric, goal)
            if (stop := submission.stop) is not None:
                _declare_goal(connection, stop.metric, stop.goal, unless_declared=True)
            ids = insert_missing(connection, submission, runs, rerun=rerun)
            link_sources(connection, ids, submission.sources)
            return read_records(connection, ids)

    def sort_by_code(self, experiment: str, sorting: CodeSorting) -> None:
        """Record which runs of an experiment count as computed by its present code, and which by an older one."""
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
        """Take those of the runs that are in one of `statuses`: they are running now, driven by this process.

        A run that has begun before loses its points behind its boundary and starts its next attempt. Of two
        processes that claim one run, one gets it. `task` and `configs` (by key) are what they will be trained with:
        where another program has written something else into the database, it is replaced. `source` is the code that
        they will be trained by.
        """
        with self._transaction() as connection:
            query = f"SELECT id, key, boundary FROM runs WHERE key {IN_JSON_LIST} AND {STATUS} {IN_JSON_LIST}"
            found = connection.execute(query, (as_json_list(keys), as_json_list(statuses)))
            won = {key: (run_id, boundary) for run_id, key, boundary in found}
            for run_id, boundary in won.values():
                delete_points(connection, run_id, after=boundary or None)
            ids = [won[key][0] for key in dict.fromkeys(keys) if key in won]
            # a run that starts anew forgets when and how it went before
            connection.execute(
                f"""
                UPDATE runs SET
                    status = 'running', attempt = attempt + (heartbeat IS NOT NULL),
                    host = ?, pid = ?, heartbeat = ?, finished = NULL, reason = NULL,
                    started = CASE WHEN boundary > 0 THEN started END, way = CASE WHEN boundary > 0 THEN way END,
                    device = NULL, error_kind = NULL, error = NULL, traceback = NULL,
                    git_commit = ?, git_dirty = ?, versions = ?
                WHERE id {IN_JSON_LIST}
                """,
                (HOST, os.getpid(), time.time(), source and source.git_commit, source and source.git_dirty,
                 json.dumps(source.versions if source else {}), as_json_list(ids)),
            )  # fmt: skip
            connection.execute(f"DELETE FROM requests WHERE run_id {IN_JSON_LIST}", (as_json_list(ids),))
            if task is not None:
                connection.execute(
                    f"UPDATE runs SET task = ? WHERE id {IN_JSON_LIST}", (storable_text(task), as_json_list(ids))
                )
            for key, (run_id, _) in won.items():
                if configs is not None:
                    set_config(connection, run_id, configs[key])
            return read_records(connection, ids)

    def write(self, events: Iterable[Event]) -> None:
        """Record events, all or none. Those of a run that is gone, or not in that attempt any more, are dropped."""
        with self._transaction() as connection:
            record_events(connection, events)

    def beat(self, keys: Sequence[str]) -> list[str]:
        """Say that this process still drives the runs; returns those that it does, the others being somebody else's."""
        with self._transaction() as connection:
            mine = f"key {IN_JSON_LIST} AND status = 'running' AND host = ? AND pid = ?"
            owner = (as_json_list(keys), HOST, os.getpid())
            connection.execute(f"UPDATE runs SET heartbeat = ? WHERE {mine}", (time.time(), *owner))
            return [key for (key,) in connection.execute(f"SELECT key FROM runs WHERE {mine}", owner)]

    def requeue(self, keys: Sequence[str]) -> None:
        """Give runs back that this process holds and will not end, to go on from their boundary."""
        with self._transaction() as connection:
            connection.execute(
                f"""
                UPDATE runs SET status = 'queued', reason = 'interrupted'
                WHERE key {IN_JSON_LIST} AND status = 'running' AND host = ? AND pid = ?
                """,
                (as_json_list(keys), HOST, os.getpid()),
            )

    def retry(self, keys: Sequence[str], *, from_start: bool = False) -> list[str]:
        """Put runs back into the queue that failed, diverged, were stopped or lost; returns which of them.

        They go on from their boundary, unless `from_start`, but a diverged one always begins anew: behind it lies only
        what led there.
        """
        with self._transaction() as connection:
            ended = f"{STATUS} IN ('failed', 'diverged', 'stopped', 'lost')"
            query = f"SELECT id, key FROM runs WHERE key {IN_JSON_LIST} AND {ended}"
            found = connection.execute(query, (as_json_list(keys),)).fetchall()
            connection.execute(
                f"""
                UPDATE runs SET status = 'queued', reason = NULL, finished = NULL,
                    boundary = CASE WHEN status = 'diverged' OR ? THEN 0 ELSE boundary END
                WHERE id {IN_JSON_LIST}
                """,
                (from_start, as_json_list(run_id for run_id, _ in found)),
            )
            return [key for _, key in found]

    def request(self, key: str, action: Action) -> None:
        """Ask for a run to be stopped, or to be trained once more.

        A run that nobody drives is stopped at once; the process that drives it finds the wish in `take_requests`.
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
                connection.execute(query, (run_id, action, time.time()))
            elif status in ("queued", "lost"):
                end_run(connection, run_id, "stopped", "stopped by a person")

    def take_requests(self, keys: Sequence[str]) -> list[tuple[str, Action]]:
        """What people asked of these runs, each wish once: (key, action), oldest first."""
        with self._transaction() as connection:
            query = f"""
                SELECT requests.id, key, action FROM requests JOIN runs ON runs.id = run_id
                WHERE key {IN_JSON_LIST} ORDER BY requests.id
            """
            found = connection.execute(query, (as_json_list(keys),)).fetchall()
            connection.executemany("DELETE FROM requests WHERE id = ?", [(request_id,) for request_id, _, _ in found])
            return [(key, action) for _, key, action in found]

    def tag(self, keys: Sequence[str], add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Put tags on runs and take others off."""
        with self._transaction() as connection:
            ids = _run_ids(connection, keys)
            add_tags(connection, ids, add)
            off = [(run_id, storable_text(tag)) for tag in remove for run_id in ids]
            connection.executemany("DELETE FROM tags WHERE run_id = ? AND tag = ?", off)

    def note(self, key: str, text: str) -> None:
        """Set the note of a run; an empty text takes it away."""
        with self._transaction() as connection:
            connection.execute("UPDATE runs SET note = ? WHERE key = ?", (storable_text(text) or None, key))

    def rename(self, key: str, name: str) -> None:
        """Give a run another name; its identity is not its name, so that its grid knows it still."""
        with self._transaction() as connection:
            connection.execute("UPDATE runs SET name = ? WHERE key = ?", (storable_text(name), key))

    def archive(self, keys: Sequence[str], archived: bool = True) -> None:
        """Hide runs from every list that does not ask for archived ones, or show them again."""
        with self._transaction() as connection:
            connection.execute(f"UPDATE runs SET archived = ? WHERE key {IN_JSON_LIST}", (archived, as_json_list(keys)))

    def remove(self, keys: Sequence[str]) -> None:
        """Delete runs with everything that belongs to them, the files too."""
        folders = [run_folder(files_folder(self.path), key) for key in keys]
        with self._transaction() as connection:
            ids = _run_ids(connection, keys)
            for table in ("points", "summary", "rollup", "tags", "logs", "artifacts", "requests", "run_sources"):
                connection.execute(f"DELETE FROM {table} WHERE run_id {IN_JSON_LIST}", (as_json_list(ids),))
            connection.execute(f"DELETE FROM runs WHERE id {IN_JSON_LIST}", (as_json_list(ids),))
            connection.execute("DELETE FROM sources WHERE id NOT IN (SELECT source_id FROM run_sources)")
            connection.execute("DELETE FROM experiments WHERE id NOT IN (SELECT experiment_id FROM runs)")
        import shutil  # 4 ms, which a script's start need not pay

        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        folder = files_folder(self.path)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def define_metric(self, name: str, goal: Goal) -> None:
        """Say whether less or more of a metric is better."""
        with self._transaction() as connection:
            _declare_goal(connection, name, goal)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
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
    new = "coalesce(goal, excluded.goal)" if unless_declared else "excluded.goal"
    query = f"INSERT INTO metrics (name, goal) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET goal = {new}"
    connection.execute(query, (storable_text(metric), goal))


def _run_ids(connection: sqlite3.Connection, keys: Sequence[str]) -> list[int]:
    query = f"SELECT id FROM runs WHERE key {IN_JSON_LIST}"
    return [run_id for (run_id,) in connection.execute(query, (as_json_list(keys),))]
