"""Copies of databases: a backup while others write, and the runs of another database merged into this one."""

from __future__ import annotations

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
from labbench.store.connection import is_live, open_for_reading, translate_sqlite_errors
from labbench.store.queries.run_rows import STATUS
from labbench.store.recording.queue import insert_run

_COPIED_WITH_RUN = ("points", "summary", "rollup", "logs", "artifacts", "run_sources", "tags")
_REPLACED_WITH_RUN = ("points", "summary", "rollup", "logs", "artifacts", "run_sources")
"""Tags are a person's: they are added, and none is taken off."""

_LOCAL_RUN = {"run_id": "r.ours", "metric_id": "m.ours", "source_id": "s.ours"}
_EDITS = ("id", "key", "experiment_id", "name", "origin", "note", "archived")
"""Columns of `runs` that are this database's own, or a person's, when a run is brought up to date."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge did: keys there by keys here."""

    new: Mapping[str, str]
    newer: Mapping[str, str]
    """Runs that were here and had gone on there."""
    n_same: int
    skipped: Sequence[Path] = ()
    """Files there that were not copied, since they are links or no regular files."""


def back_up(path: Path, copy: Path) -> None:
    """Copy a database as it is at this moment; others may go on writing it. The copy is there whole or not at all.

    Raises InputError where there is something under the name of the copy.
    """
    if copy.exists():
        raise InputError(f"{copy}: there is such a file already; a backup takes another name")
    if not copy.parent.is_dir():
        raise InputError(f"{copy}: there is no folder {copy.parent}")
    source = open_for_reading(path, live=is_live(path))
    with (
        translate_sqlite_errors(path),
        closing(source),
        write_atomically(copy) as file,
        closing(sqlite3.connect(file.name)) as target,
    ):
        source.backup(target)  # in one step: between two, another's commit would make it begin again
        target.execute("PRAGMA journal_mode = DELETE")  # one file, to be carried anywhere


@contextmanager
def attach_read_only(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Another labbench database as the schema `other`, which is only read."""
    open_for_reading(path, live=is_live(path)).close()  # says what is wrong with it
    options = "mode=ro" if is_live(path) else "mode=ro&immutable=1"
    with translate_sqlite_errors(path, opening=True):
        connection.execute("ATTACH ? AS other", (f"file:{quote(str(path.absolute()))}?{options}",))
    try:
        yield
    finally:
        connection.execute("DETACH other")


def merge(connection: sqlite3.Connection) -> MergeResult:
    """Bring in the runs of the attached database that are not here, or have gone on there.

    The caller holds a transaction. Keys are kept where they are free; the same again changes nothing. Raises InputError
    where a key there is none that labbench makes.
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
    """Temporary tables from their ids to ours, of what is known by its name; what is not here is made."""
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
    """The run here that was made there."""

    id: int
    key: str
    is_behind: bool
    """Whether it has gone on there, and not here."""


def _match_runs(connection: sqlite3.Connection) -> list[tuple[int, str, _LocalRun | None]]:
    """Every run there, its id and key, and what it is here, perhaps under another key for its own was taken."""
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
            went_on = heartbeat > our_heartbeat or (heartbeat == our_heartbeat and our_runs and not runs)
            ours = _LocalRun(our_id, our_key, went_on and not driven)
        pairs.append((their_id, key, ours))
    return pairs


def _copy_run(connection: sqlite3.Connection, their_id: int, columns: list[str]) -> tuple[int, str]:
    """Copy a run of the other database; returns its id and key here."""
    copied = [column for column in columns if column not in ("id", "experiment_id", "origin")]
    # where a run of the same identity is here, this one is the same made again
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
    """Bring a run up to date; its rows elsewhere are copied anew."""
    for table in _REPLACED_WITH_RUN:
        connection.execute(f"DELETE FROM main.{table} WHERE run_id = ?", (run_id,))
    names = ", ".join(column for column in columns if column not in _EDITS)
    query = f"UPDATE main.runs SET ({names}) = (SELECT {names} FROM other.runs WHERE id = ?) WHERE id = ?"
    connection.execute(query, (their_id, run_id))


def _copy_rows(connection: sqlite3.Connection, table: str) -> None:
    """The rows of a table that belong to the merged runs."""
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
    """Those that both databases have: the other may be of an older version."""
    query = """
        SELECT name FROM pragma_table_info(?, 'main')
        WHERE name IN (SELECT name FROM pragma_table_info(?, 'other'))
    """
    return [name for (name,) in connection.execute(query, (table, table))]
