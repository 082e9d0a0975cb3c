"""Backup of a database that other processes may write to, and merge of another database into this one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from labbench.errors import InputError
from labbench.files import write_atomically
from labbench.records import require_key
from labbench.store.connection import (
    EXISTING_SIDE_FILES,
    belongs_to_other_user,
    is_live,
    open_for_reading,
    translate_sqlite_errors,
)
from labbench.store.queries.run_rows import IN_JSON_LIST, STATUS, as_json_list
from labbench.store.recording.queue import insert_run

_COPIED_WITH_RUN = ("points", "summary", "rollup", "logs", "artifacts", "run_sources", "tags")
_REPLACED_WITH_RUN = ("points", "summary", "rollup", "logs", "artifacts", "run_sources")
"""Tables whose rows are replaced; tags belong to the user, so they are only added."""

_LOCAL_RUN = {"run_id": "r.ours", "metric_id": "m.ours", "source_id": "s.ours"}
_EDITS = ("id", "key", "experiment_id", "name", "origin", "note", "archived")
"""Columns of `runs` that stay when a run is updated: ids of this database and edits by its user."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Result of a merge."""

    new: Mapping[str, str]
    """Keys of inserted runs in this database, by their keys in the other."""
    newer: Mapping[str, str]
    """Keys of updated runs in this database, by their keys in the other."""
    n_same: int
    """Number of runs without changes."""
    skipped: Sequence[Path] = ()
    """Files that were not copied because they are links or not regular files."""


def back_up(path: Path, copy: Path) -> None:
    """Copy the current state of a database; other processes may write to it meanwhile.

    The copy is atomic: no partial file is ever visible.

    Raises:
        InputError: If `copy` exists, its folder does not, or `path` is not a labbench database.
        StoreError: If the database cannot be read.
        OSError: If the copy cannot be written.
    """
    if copy.exists():
        raise InputError(f"{copy}: this file exists already; pass another name for the backup")
    if not copy.parent.is_dir():
        raise InputError(f"{copy}: the folder {copy.parent} does not exist")
    source = open_for_reading(path, live=is_live(path))
    with (
        translate_sqlite_errors(path),
        closing(source),
        write_atomically(copy) as file,
        closing(sqlite3.connect(file.name)) as target,
    ):
        source.backup(target)  # in one step: a commit between two steps would restart the backup
        target.execute("PRAGMA journal_mode = DELETE")  # a single file, without a write-ahead log


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
            names = ", ".join(_common_columns(connection, table))
            connection.execute(f"INSERT OR IGNORE INTO other.{table} ({names}) SELECT {names} FROM main.{table}")
        for table, column in (("runs", "id"), *((table, "run_id") for table in _COPIED_WITH_RUN)):
            names = ", ".join(_common_columns(connection, table))
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
    finally:
        connection.execute("DETACH other")


def merge(connection: sqlite3.Connection) -> MergeResult:
    """Insert the runs of the attached database that are missing here, and update those that are older here.

    The caller holds a transaction. A run keeps its key unless another run has it here. Merging again is a no-op.

    Raises:
        InputError: If a run of the attached database has an invalid key.
    """
    _pair_names(connection)
    new, newer, n_same = {}, {}, 0
    columns = _common_columns(connection, "runs")
    for their_id, key, ours in _match_runs(connection):
        if ours is None:
            run_id, new[key] = _copy_run(connection, their_id, columns)
        elif ours.is_behind:
            run_id, newer[key] = ours.id, ours.key
            _update_run(connection, run_id, their_id, columns)
        else:
            n_same += 1
            continue
        connection.execute("INSERT INTO temp.merged_runs VALUES (?, ?)", (their_id, run_id))
    for table in _COPIED_WITH_RUN:
        _copy_rows(connection, table)
    for table in ("merged_runs", "merged_metrics", "merged_sources", "merged_experiments"):
        connection.execute(f"DROP TABLE temp.{table}")
    return MergeResult(new, newer, n_same)


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
    """True if the other database has a newer state and no process drives the run here."""


def _match_runs(connection: sqlite3.Connection) -> list[tuple[int, str, _LocalRun | None]]:
    """Return (id, key, local run or None) of each run of the other database.

    The local run has a different key if its key was taken when it was first merged.
    """
    columns = "id, key, created, identity, coalesce(heartbeat, 0), runs.status = 'running'"
    theirs = connection.execute(f"SELECT {columns} FROM other.runs ORDER BY id").fetchall()
    for _, key, *_ in theirs:
        require_key(key)
    by_key, renamed = {}, {}
    their_keys = {key for _, key, *_ in theirs}
    is_driven = f"{STATUS} = 'running'"
    for row in connection.execute(f"SELECT {columns}, {is_driven} FROM main.runs"):
        _, key, created, identity, *_ = row
        if key in their_keys:
            by_key[key, created, identity] = row
        else:
            renamed[created, identity] = row
    pairs = []
    for their_id, key, created, identity, heartbeat, runs in theirs:
        ours = None
        if row := by_key.get((key, created, identity)) or renamed.get((created, identity)):
            our_id, our_key, _, _, our_heartbeat, our_runs, driven = row
            is_newer = heartbeat > our_heartbeat or (heartbeat == our_heartbeat and our_runs and not runs)
            ours = _LocalRun(our_id, our_key, is_newer and not driven)
        pairs.append((their_id, key, ours))
    return pairs


def _copy_run(connection: sqlite3.Connection, their_id: int, columns: list[str]) -> tuple[int, str]:
    """Copy a run of the other database; return its local id and key."""
    copied = [column for column in columns if column not in ("id", "experiment_id", "origin")]
    # a run whose identity exists here already is recorded as a rerun
    query = f"""
        SELECT e.ours, CASE WHEN theirs.origin IN ('grid', 'import') AND EXISTS (
                SELECT 1 FROM main.runs AS same WHERE same.experiment_id = e.ours
                    AND same.identity = theirs.identity AND same.origin IN ('grid', 'import')
            ) THEN 'rerun' ELSE theirs.origin END, {", ".join(f"theirs.{column}" for column in copied)}
        FROM other.runs AS theirs JOIN temp.merged_experiments AS e ON e.theirs = theirs.experiment_id
        WHERE theirs.id = ?
    """
    row = connection.execute(query, (their_id,)).fetchone()
    return insert_run(connection, dict(zip(["experiment_id", "origin", *copied], row, strict=True)))


def _update_run(connection: sqlite3.Connection, run_id: int, their_id: int, columns: list[str]) -> None:
    """Update a row of `runs` and delete its rows in other tables, which are copied afterwards."""
    for table in _REPLACED_WITH_RUN:
        connection.execute(f"DELETE FROM main.{table} WHERE run_id = ?", (run_id,))
    names = ", ".join(column for column in columns if column not in _EDITS)
    query = f"UPDATE main.runs SET ({names}) = (SELECT {names} FROM other.runs WHERE id = ?) WHERE id = ?"
    connection.execute(query, (their_id, run_id))


def _copy_rows(connection: sqlite3.Connection, table: str) -> None:
    """Copy the rows of a table that belong to the merged runs."""
    columns = [column for column in _common_columns(connection, table) if column != "id"]
    values = ", ".join(_LOCAL_RUN.get(column, f"theirs.{column}") for column in columns)
    joins = "JOIN temp.merged_metrics AS m ON m.theirs = theirs.metric_id" if "metric_id" in columns else ""
    joins += "JOIN temp.merged_sources AS s ON s.theirs = theirs.source_id" if "source_id" in columns else ""
    connection.execute(
        f"""
        INSERT OR IGNORE INTO main.{table} ({", ".join(columns)}) SELECT {values}
        FROM temp.merged_runs AS r CROSS JOIN other.{table} AS theirs ON theirs.run_id = r.theirs {joins}
        """
    )


def _common_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table that both databases have; the other may have an older schema."""
    query = """
        SELECT name FROM pragma_table_info(?, 'main')
        WHERE name IN (SELECT name FROM pragma_table_info(?, 'other'))
    """
    return [name for (name,) in connection.execute(query, (table, table))]
