"""Backup of a database that other processes may write to, and merge of another database into this one."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from labbench.errors import InputError, StoreError
from labbench.files import write_atomically
from labbench.records import require_key
from labbench.store.connection import (
    EXISTING_SIDE_FILES,
    belongs_to_other_user,
    is_live,
    open_for_reading,
    path_with_suffix,
    translate_sqlite_errors,
)
from labbench.store.liveness import this_process
from labbench.store.queries.run_sql import IN_JSON_LIST, STATUS, as_json_list
from labbench.store.recording.queue import RECOVERED, ensure_experiment, insert_run, key_from_number
from labbench.store.revisions import mark_rewritten
from labbench.store.series import overview

_COPIED_WITH_RUN = ("points", "summary", "rollup", "overview", "logs", "artifacts", "run_sources", "tags")
_REPLACED_WITH_RUN = ("points", "summary", "rollup", "overview", "logs", "artifacts", "run_sources")
"""Tables whose rows are replaced; tags belong to the user, so they are only added."""

_LOCAL_RUN = {"run_id": "r.ours", "metric_id": "m.ours", "source_id": "s.ours"}
_EDITS = ("id", "key", "experiment_id", "name", "origin", "note", "archived", "revision")
"""Columns of `runs` that stay when a run is updated: ids of this database and edits by its user."""


MAX_SLICE_POINTS = 200_000
"""Number of points after which a merge commits."""

SLICE_PAUSE_SECONDS = 0.1
"""Pause after a long transaction."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Result of a merge."""

    new: Mapping[str, str]
    """Keys of inserted runs in this database, by their keys in the other."""
    newer: Mapping[str, str]
    """Keys of updated runs in this database, by their keys in the other."""
    same: Mapping[str, str]
    """Keys of runs with the same state in both databases: in this one, by their keys in the other."""
    n_ahead: int = 0
    """Number of runs that have progressed further in this database."""
    skipped: Sequence[Path] = ()
    """Files that were not copied because they are links or not regular files."""

    @property
    def n_same(self) -> int:
        """Number of runs that the merge left as they are."""
        return len(self.same) + self.n_ahead


def back_up(path: Path, copy: Path) -> None:
    """Copy the current state of a database; other processes may write to it meanwhile.

    The copy is atomic: no partial file is ever visible.

    Raises:
        InputError: If `copy` exists, its folder does not, or `path` is not a labbench database.
        StoreError: If the database cannot be read, or the copy cannot be completed.
        OSError: If the copy cannot be written.
    """
    if copy.exists():
        raise InputError(f"{copy}: this file exists already; pass another name for the backup")
    if not copy.parent.is_dir():
        raise InputError(f"{copy}: the folder {copy.parent} does not exist")
    source = open_for_reading(path, live=is_live(path))
    with translate_sqlite_errors(path), closing(source), write_atomically(copy) as file:
        try:
            with closing(sqlite3.connect(file.name)) as target:
                source.backup(target)  # in one step: a commit between two steps would restart the backup
                # a single file, without a write-ahead log; if that fails, SQLite returns the mode that remains
                [mode] = target.execute("PRAGMA journal_mode = DELETE").fetchone()
        finally:
            for suffix in ("-journal", "-wal", "-shm"):
                path_with_suffix(Path(file.name), suffix).unlink(missing_ok=True)
        if mode != "delete":
            raise StoreError(f"{copy}: the backup could not be completed; check the free space of the disk")


def copy_runs(connection: sqlite3.Connection, copy: Path, keys: Sequence[str]) -> None:
    """Copy runs, with their ids and rows of other tables, to another database without runs."""
    ids = as_json_list(
        run_id
        for (run_id,) in connection.execute(f"SELECT id FROM runs WHERE key {IN_JSON_LIST}", (as_json_list(keys),))
    )
    connection.execute("ATTACH ? AS other", (f"file:{quote(os.fsencode(copy.absolute()))}?mode=rw",))
    try:
        connection.execute("BEGIN")
        for table in ("experiments", "metrics", "sources"):
            names = ", ".join(common_columns(connection, table))
            connection.execute(f"INSERT OR IGNORE INTO other.{table} ({names}) SELECT {names} FROM main.{table}")
        for table, column in (("runs", "id"), *((table, "run_id") for table in _COPIED_WITH_RUN)):
            names = ", ".join(common_columns(connection, table))
            query = f"INSERT OR IGNORE INTO other.{table} ({names}) SELECT {names} FROM main.{table}"
            connection.execute(f"{query} WHERE {column} {IN_JSON_LIST}", (ids,))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("DETACH other")


@contextmanager
def attach_read_only(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Attach another labbench database as the schema `other`, read-only.

    Raises:
        InputError: If the file is not a labbench database or cannot be read.
    """
    open_for_reading(path, live=is_live(path)).close()  # raises a clear error for an invalid file
    options = "mode=ro&immutable=1"
    if is_live(path):
        options = EXISTING_SIDE_FILES if belongs_to_other_user(path) else "mode=ro"
    with translate_sqlite_errors(path, opening=True):
        connection.execute("ATTACH ? AS other", (f"file:{quote(str(path.absolute()))}?{options}",))
    try:
        yield
    except BaseException:
        with suppress(sqlite3.OperationalError):  # a query that failed may still be open
            connection.execute("DETACH other")
        raise
    connection.execute("DETACH other")


def merge(
    connection: sqlite3.Connection, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]]
) -> MergeResult:
    """Insert the runs of the attached database that are missing here, and update those that are older here.

    Commits after every `MAX_SLICE_POINTS` points, so that other processes can write; an interrupted merge is completed
    by the next one. A run keeps its key unless another run has it here. A run that continued in both databases is kept
    twice, see `_derive_key`. Merging again is a no-op.

    Raises:
        InputError: If the attached database has values that labbench does not write, such as an invalid key.
    """
    new, newer, same = dict[str, str](), dict[str, str](), dict[str, str]()
    try:
        with transaction():
            _pair_names(connection)
            matches = deque(_match_runs(connection))
            n_runs = len(matches)
            sizes = dict(connection.execute("SELECT run_id, sum(n) FROM other.summary GROUP BY run_id"))
        columns = common_columns(connection, "runs")
        while matches:
            start = time.monotonic()
            with transaction():
                n_points = 0
                while matches and n_points < MAX_SLICE_POINTS:
                    match = matches.popleft()
                    n_points += sizes.get(match.id, 0)
                    _merge_run(connection, match, columns, new, newer, same)
                _copy_data(connection)
            if matches and time.monotonic() - start > SLICE_PAUSE_SECONDS:
                time.sleep(SLICE_PAUSE_SECONDS)  # SQLite's lock is not fair: a waiting process tries every 0.1 s
    except sqlite3.IntegrityError as error:
        raise InputError(
            f"the imported database has values that labbench does not write ({error}); the command `doctor` lists them"
        ) from error
    finally:
        for table in ("merged_runs", "merged_metrics", "merged_sources", "merged_experiments"):
            connection.execute(f"DROP TABLE IF EXISTS temp.{table}")
    return MergeResult(new, newer, same, n_runs - len(new) - len(newer) - len(same))


def _merge_run(
    connection: sqlite3.Connection,
    match: _Match,
    columns: list[str],
    new: dict[str, str],
    newer: dict[str, str],
    same: dict[str, str],
) -> None:
    """Insert or update the row of a run, and add its keys, theirs and ours, to one of the mappings."""
    if match.ours is None:
        run_id, new[match.key] = _copy_run(connection, match, columns)
    elif match.ours.is_behind:
        run_id, newer[match.key] = match.ours.id, match.ours.key
        _update_run(connection, run_id, match.id, columns)
    else:
        if not match.ours.is_ahead:
            same[match.key] = match.ours.key
        return
    connection.execute("INSERT INTO temp.merged_runs VALUES (?, ?)", (match.id, run_id))


def _pair_names(connection: sqlite3.Connection) -> None:
    """Create temporary tables that map ids of metrics, sources and experiments to local ids.

    Missing rows are inserted.
    """
    connection.execute("CREATE TEMP TABLE merged_runs (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL)")
    for table, name, columns in (
        ("metrics", "name", "name, goal"),
        ("sources", "sha256", "sha256, text"),
        ("experiments", "name", "name, created"),
    ):
        connection.execute(f"INSERT OR IGNORE INTO main.{table} ({columns}) SELECT {columns} FROM other.{table}")
        connection.execute(f"CREATE TEMP TABLE merged_{table} (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL)")
        connection.execute(
            f"""
            INSERT INTO temp.merged_{table}
            SELECT theirs.id, ours.id FROM other.{table} AS theirs JOIN main.{table} AS ours USING ({name})
            """
        )
    # runs whose experiment is missing there, after damage
    lost = "SELECT experiment_id FROM other.runs WHERE experiment_id NOT IN (SELECT id FROM other.experiments)"
    for (their_id,) in connection.execute(f"SELECT DISTINCT experiment_id FROM ({lost})").fetchall():
        ours = ensure_experiment(connection, RECOVERED)
        connection.execute("INSERT INTO temp.merged_experiments VALUES (?, ?)", (their_id, ours))
    connection.execute(
        """
        UPDATE main.metrics SET goal = (SELECT goal FROM other.metrics AS theirs WHERE theirs.name = metrics.name)
        WHERE goal IS NULL AND name IN (SELECT name FROM other.metrics WHERE goal IS NOT NULL)
        """
    )


class _LocalRun(NamedTuple):
    """Run of this database that corresponds to a run of the other."""

    id: int
    key: str
    is_behind: bool
    """True if the other database has a newer state and no other process drives the run here."""
    is_ahead: bool
    """True if this database has a newer state, or another process drives the run here."""


class _Match(NamedTuple):
    """Run of the other database, and what becomes of it here."""

    id: int
    key: str
    ours: _LocalRun | None
    """Run of this database to update or to leave; None: the run is inserted."""
    fork_key: str | None = None
    """Key of the inserted run if it continued in both databases."""


class _State(NamedTuple):
    """State of a run in one of the databases."""

    id: int
    key: str
    attempt: int
    heartbeat: float
    is_running: bool
    host: str | None
    pid: int | None
    pid_start: int | None
    attempt_ids: str | None
    """Random id of each attempt; None if recorded by a release without them."""
    is_driven: bool = False
    """True if another living process drives it."""

    @property
    def process(self) -> tuple[str | None, int | None, int | None]:
        """Process of the last attempt."""
        return self.host, self.pid, self.pid_start

    def is_fork_of(self, other: _State) -> bool:
        """Return True if the run continued in both databases after one was copied from the other.

        Without ids of the attempts: attempts and heartbeats only increase, and each attempt has one process.
        """
        if self.attempt_ids is not None and other.attempt_ids is not None:
            return not (self.continues(other) or other.continues(self))
        if not self.heartbeat or not other.heartbeat or self.heartbeat == other.heartbeat:
            return False
        if self.attempt == other.attempt:
            return self.process != other.process
        return (self.attempt < other.attempt) != (self.heartbeat < other.heartbeat)

    def continues(self, other: _State) -> bool:
        """Return True if the attempts of `other` are the first ones of this state, or all of them."""
        return f"{self.attempt_ids} ".startswith(f"{other.attempt_ids} ")

    def is_behind(self, other: _State) -> bool:
        """Return True if `other` is a later state of this run."""
        if self.attempt_ids != other.attempt_ids and None not in (self.attempt_ids, other.attempt_ids):
            return other.continues(self)
        if self.heartbeat == other.heartbeat:
            return self.is_running and not other.is_running
        return self.heartbeat < other.heartbeat


def _match_runs(connection: sqlite3.Connection) -> list[_Match]:
    """Return the match of each run of the other database.

    A local run that corresponds to it has a different key if its key was taken when it was first merged.
    """
    columns = "id, key, attempt, coalesce(heartbeat, 0), runs.status = 'running', host, pid"
    later = ("pid_start", "attempt_ids")  # columns that an older database lacks
    common = common_columns(connection, "runs")
    their_columns = ", ".join(column if column in common else "NULL" for column in later)
    theirs = connection.execute(f"SELECT created, identity, {columns}, {their_columns} FROM other.runs ORDER BY id")
    their_runs = theirs.fetchall()
    for _, _, _, key, *_ in their_runs:
        require_key(key)
    this = this_process()
    is_driven = f"{STATUS} = 'running' AND NOT (host IS ? AND pid IS ?)"
    query = f"SELECT created, identity, {columns}, {', '.join(later)}, {is_driven} FROM main.runs ORDER BY id"
    ours: dict[tuple[float, str], list[_State]] = {}
    for created, identity, *values in connection.execute(query, (this.host, this.pid)):
        ours.setdefault((created, identity), []).append(_State(*values))
    matches = []
    for created, identity, *values in their_runs:
        state = _State(*values)
        matches.append(_match(state, ours.setdefault((created, identity), [])))
    return matches


def _match(theirs: _State, candidates: list[_State]) -> _Match:
    """Return the match of a run, given the local states of the run, which are updated."""
    fork_key = _derive_key(theirs)
    names = {theirs.key: 0, fork_key: 1}
    for local in sorted(candidates, key=lambda state: names.get(state.key, 2)):
        if theirs.is_fork_of(local):
            continue
        is_behind = local.is_behind(theirs) and not local.is_driven
        if is_behind:
            candidates[candidates.index(local)] = theirs._replace(id=local.id, key=local.key)
        return _Match(
            theirs.id, theirs.key, _LocalRun(local.id, local.key, is_behind, local.is_driven or theirs.is_behind(local))
        )
    is_fork = any(local.key == theirs.key for local in candidates)
    return _Match(theirs.id, theirs.key, None, fork_key if is_fork else None)


def _derive_key(run: _State) -> str:
    """Return the key of the copy of a run that went on here and in another database.

    It depends on the run and its last attempt in the other database alone, so that importing again finds the copy.
    """
    digest = hashlib.sha256(repr((run.key, run.process, run.attempt)).encode()).digest()
    return key_from_number(int.from_bytes(digest[:8], "little"))


def _copy_run(connection: sqlite3.Connection, match: _Match, columns: list[str]) -> tuple[int, str]:
    """Copy a run of the other database; return its local id and key. Raises InputError if its row is missing."""
    copied = [column for column in columns if column not in ("id", "experiment_id", "origin", "revision")]
    # a run whose identity exists here already is recorded as a rerun
    query = f"""
        SELECT e.ours, CASE WHEN theirs.origin IN ('grid', 'import') AND EXISTS (
                SELECT 1 FROM main.runs AS same WHERE same.experiment_id = e.ours
                    AND same.identity = theirs.identity AND same.origin IN ('grid', 'import')
            ) THEN 'rerun' ELSE theirs.origin END, {", ".join(f"theirs.{column}" for column in copied)}
        FROM other.runs AS theirs JOIN temp.merged_experiments AS e ON e.theirs = theirs.experiment_id
        WHERE theirs.id = ?
    """
    row = connection.execute(query, (match.id,)).fetchone()
    if row is None:
        raise InputError(
            f"the imported database is damaged: the run {match.key} is in an index, but not in its table; "
            "`sqlite3 DB .recover` recovers the readable part"
        )
    values = dict(zip(["experiment_id", "origin", *copied], row, strict=True))
    if match.fork_key is not None:
        values |= {"key": match.fork_key, "name": _fork_name(connection, values["experiment_id"], values["name"])}
    return insert_run(connection, values)


def _fork_name(connection: sqlite3.Connection, experiment_id: int, name: str) -> str:
    """Return the name followed by the first free number from 2 on, such as `baseline (2)`."""
    query = "SELECT name FROM main.runs WHERE experiment_id = ?"
    names = {taken for (taken,) in connection.execute(query, (experiment_id,))}
    return next(fork for number in count(2) if (fork := f"{name} ({number})") not in names)


def _update_run(connection: sqlite3.Connection, run_id: int, their_id: int, columns: list[str]) -> None:
    """Update a row of `runs` and delete its rows in other tables, which are copied afterwards."""
    for table in _REPLACED_WITH_RUN:
        connection.execute(f"DELETE FROM main.{table} WHERE run_id = ?", (run_id,))
    names = ", ".join(column for column in columns if column not in _EDITS)
    query = f"UPDATE main.runs SET ({names}) = (SELECT {names} FROM other.runs WHERE id = ?) WHERE id = ?"
    connection.execute(query, (their_id, run_id))


def _copy_data(connection: sqlite3.Connection) -> None:
    """Copy the rows of the other tables that belong to the merged runs, and begin the next slice."""
    for table in _COPIED_WITH_RUN:
        _copy_rows(connection, table)
    for (run_id,) in connection.execute("SELECT ours FROM temp.merged_runs").fetchall():
        mark_rewritten(connection, run_id)
        overview.complete(connection, run_id)  # a database of an older version has none
    connection.execute("DELETE FROM temp.merged_runs")


def _copy_rows(connection: sqlite3.Connection, table: str) -> None:
    """Copy the rows of a table that belong to the merged runs; an older database may lack the table."""
    columns = [column for column in common_columns(connection, table) if column != "id"]
    if not columns:
        return
    values = ", ".join(_LOCAL_RUN.get(column, f"theirs.{column}") for column in columns)
    joins = "JOIN temp.merged_metrics AS m ON m.theirs = theirs.metric_id" if "metric_id" in columns else ""
    joins += "JOIN temp.merged_sources AS s ON s.theirs = theirs.source_id" if "source_id" in columns else ""
    connection.execute(
        f"""
        INSERT OR IGNORE INTO main.{table} ({", ".join(columns)}) SELECT {values}
        FROM temp.merged_runs AS r CROSS JOIN other.{table} AS theirs ON theirs.run_id = r.theirs {joins}
        """
    )


def common_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table that both databases have; the other may have an older schema."""
    query = """
        SELECT name FROM pragma_table_info(?, 'main')
        WHERE name IN (SELECT name FROM pragma_table_info(?, 'other'))
    """
    return [name for (name,) in connection.execute(query, (table, table))]
