"""`Writer`: queue runs, claim them, and record their events.

Every method is one transaction. Only the current attempt of a run is recorded: events of an earlier attempt are
dropped, so that the series of two attempts never mix.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

from labbench.errors import InputError
from labbench.files import files_folder, run_folder
from labbench.metrics import Goal
from labbench.records import RETRIED, Config, Event, NewRun, RunRecord, Status, Submission
from labbench.store.liveness import this_process, uptime
from labbench.store.queries.run_records import read_records, set_config
from labbench.store.queries.run_sql import (
    HAS_DIVERGED,
    IN_JSON_LIST,
    IS_LOCAL,
    IS_OF_PROCESS,
    IS_WITHOUT_DRIVER,
    NEXT_ATTEMPT_IDS,
    SET_PROCESS,
    STATUS,
    as_json_list,
    storable_text,
)
from labbench.store.recording.continuation import Continuation, begin_from_kept_state
from labbench.store.recording.events import end_run, record_events
from labbench.store.recording.queue import (
    Action,
    add_tags,
    delete_runs,
    insert_missing,
    insert_request,
    link_sources,
    pop_requests,
)
from labbench.store.series.points import delete_points
from labbench.store.writable_database import WritableDatabase
from labbench.system.clock import now

if TYPE_CHECKING:
    from labbench.store.queries.code_versions import CodeSorting
    from labbench.system.provenance import Provenance  # imports subprocess and platform, which edits do not need


class Writer(WritableDatabase):
    """Writer of runs, for one thread; every method raises StoreError if the database cannot be written."""

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
        boundary and starts its next attempt. The run of a command keeps its points: its script, which has checkpoints
        of its own, replaces or continues them, see `ScriptWriter.attach`.

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
            query = f"SELECT key, id FROM runs WHERE key {IN_JSON_LIST} AND {STATUS} {IN_JSON_LIST} AND {IS_LOCAL}"
            claimed = dict(connection.execute(query, (as_json_list(keys), as_json_list(statuses))).fetchall())
            _delete_points_after_boundary(connection, claimed.values(), task)
            ids = [claimed[key] for key in dict.fromkeys(keys) if key in claimed]
            _begin_attempts(connection, ids, source)
            if task is not None:
                _set_task(connection, ids, task)
            if configs is not None:
                for key, run_id in claimed.items():
                    set_config(connection, run_id, configs[key])
            return read_records(connection, ids)

    def adopt(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Take over runs whose jobs have lost their driver; their attempts continue.

        Returns:
            Position in the job's event file after the last recorded event, by key.
        """
        with self._transaction() as connection:
            query = f"SELECT id, key, job_position FROM runs WHERE key {IN_JSON_LIST} AND {IS_WITHOUT_DRIVER}"
            rows = connection.execute(query, (as_json_list(keys),)).fetchall()
            connection.execute(
                f"UPDATE runs SET {SET_PROCESS}, heartbeat = ?, heartbeat_uptime = ? WHERE id {IN_JSON_LIST}",
                (*astuple(this_process()), now(), uptime(), as_json_list(run_id for run_id, _, _ in rows)),
            )
            return {key: position for _, key, position in rows}

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

    def prune(self, reasons: Mapping[str, str], *, keep_checkpoints: bool = True) -> list[str]:
        """End queued runs that a search does not train on, each with its reason, and return their keys.

        Runs that a user has queued again stay in the queue. Without `keep_checkpoints`, a later training of the runs
        begins from the start.
        """
        pruned = []
        with self._transaction() as connection:
            query = f"SELECT id, key FROM runs WHERE key {IN_JSON_LIST} AND status = 'queued' AND reason IS NOT ?"
            for run_id, key in connection.execute(query, (as_json_list(reasons), RETRIED)).fetchall():
                end_run(connection, run_id, "pruned", reasons[key])
                pruned.append(key)
            if not keep_checkpoints:
                connection.execute(f"UPDATE runs SET boundary = 0 WHERE key {IN_JSON_LIST}", (as_json_list(pruned),))
        return pruned

    def retry(self, keys: Sequence[str], *, from_start: bool = False) -> list[str]:
        """Queue failed, diverged, stopped, pruned and lost runs again, and return their keys.

        A run resumes from its boundary unless `from_start` is set. A diverged run always starts from the beginning:
        from its boundary it would diverge again. The run of a command loses its points then, so that its script cannot
        continue them.

        Raises:
            InputError: A run is mirrored from another database.
        """
        with self._transaction() as connection:
            _require_local(connection, keys)
            ended = f"{STATUS} IN ('failed', 'diverged', 'stopped', 'pruned', 'lost')"
            loses_points = f"task = '' AND (? OR {HAS_DIVERGED})"
            query = f"SELECT id, key, {loses_points} FROM runs WHERE key {IN_JSON_LIST} AND {ended}"
            rows = connection.execute(query, (from_start, as_json_list(keys))).fetchall()
            for run_id, _, is_cleared in rows:
                if is_cleared:
                    delete_points(connection, run_id, after=None)
            connection.execute(
                f"""
                UPDATE runs SET status = 'queued', finished = NULL,
                    reason = CASE WHEN status = 'pruned' THEN '{RETRIED}' END,
                    boundary = CASE WHEN {HAS_DIVERGED} OR ? THEN 0 ELSE boundary END
                WHERE id {IN_JSON_LIST}
                """,
                (from_start, as_json_list(run_id for run_id, _, _ in rows)),
            )
            return [key for _, key, _ in rows]

    def request(self, key: str, action: Action) -> None:
        """Request that a run is stopped or retried.

        A queued or lost run is stopped immediately; a running one by its process, which polls `pop_requests`.

        Raises:
            InputError: The run is mirrored from another database.
        """
        if action == "retry":
            self.retry([key])
            return
        with self._transaction() as connection:
            _require_local(connection, [key])
            row = connection.execute(f"SELECT id, {STATUS} FROM runs WHERE key = ?", (key,)).fetchone()
            if row is None:
                return
            run_id, status = row
            if status == "running":
                insert_request(connection, run_id, action)
            elif status in ("queued", "lost"):
                end_run(connection, run_id, "stopped", "stopped by the user")

    def pop_requests(self, keys: Sequence[str]) -> list[tuple[str, Action]]:
        """Return and delete the requests for these runs as (key, action), oldest first."""
        with self._transaction() as connection:
            return pop_requests(connection, keys)

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
            delete_runs(connection, _run_ids(connection, keys))
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        folder = files_folder(self.path)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def define_metric(self, name: str, goal: Goal) -> None:
        """Declare the goal of a metric: "min", "max" or "none"."""
        with self._transaction() as connection:
            _declare_goal(connection, name, goal)


def _declare_goal(connection: sqlite3.Connection, metric: str, goal: Goal, *, unless_declared: bool = False) -> None:
    value = "coalesce(goal, excluded.goal)" if unless_declared else "excluded.goal"
    query = f"INSERT INTO metrics (name, goal) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET goal = {value}"
    connection.execute(query, (storable_text(metric), goal))


def _run_ids(connection: sqlite3.Connection, keys: Sequence[str]) -> list[int]:
    query = f"SELECT id FROM runs WHERE key {IN_JSON_LIST}"
    return [run_id for (run_id,) in connection.execute(query, (as_json_list(keys),))]


def _require_local(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    """Raise InputError if one of the runs is mirrored from another database."""
    query = f"SELECT key, source FROM runs WHERE key {IN_JSON_LIST} AND NOT {IS_LOCAL}"
    for key, source in connection.execute(query, (as_json_list(keys),)):
        raise InputError(f"run {key} is mirrored from {source}: stop or retry it there")


def _delete_points_after_boundary(connection: sqlite3.Connection, ids: Iterable[int], task: str | None) -> None:
    """Delete points after the boundary of each run, except of commands; `task` replaces the recorded task."""
    query = f"SELECT id, boundary FROM runs WHERE id {IN_JSON_LIST} AND coalesce(?, task) != ''"
    for run_id, boundary in connection.execute(query, (as_json_list(ids), task)).fetchall():
        delete_points(connection, run_id, after=boundary or None)


def _begin_attempts(connection: sqlite3.Connection, ids: Sequence[int], source: Provenance | None) -> None:
    # a run that starts from the beginning loses the start time and the engine of its earlier attempt; the times of
    # points that it keeps count from that start
    connection.execute(
        f"""
        UPDATE runs SET
            status = 'running', attempt = attempt + (heartbeat IS NOT NULL), attempt_ids = {NEXT_ATTEMPT_IDS},
            {SET_PROCESS}, heartbeat = ?, heartbeat_uptime = ?, finished = NULL, reason = NULL,
            started = CASE WHEN boundary > 0 OR EXISTS (SELECT 1 FROM summary WHERE run_id = runs.id) THEN started END,
            way = CASE WHEN boundary > 0 THEN way END,
            continued_from = CASE WHEN boundary > 0 THEN continued_from END,
            continued_step = CASE WHEN boundary > 0 THEN continued_step END,
            device = NULL, executor = NULL, cluster = NULL, job_id = NULL, job_position = NULL, node = NULL,
            error_kind = NULL, error = NULL, traceback = NULL,
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
