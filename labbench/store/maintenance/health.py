"""Read-only consistency check of a database: recomputes derived rows in memory and compares them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labbench.files import files_folder
from labbench.records import is_key
from labbench.store import schema
from labbench.store.connection import open_snapshot
from labbench.store.queries.run_rows import STATUS
from labbench.store.series.points import rebuild_series

_OF_RUN = ("points", "summary", "rollup", "tags", "logs", "artifacts", "requests", "run_sources")
_OF_METRIC = ("points", "summary", "rollup")
_DERIVED = {
    "summary": "n, n_nonfinite, first_nonfinite_step, last, last_step, min, min_step, max, max_step",
    "rollup": "level, first_step, last_step, buckets",
}


@dataclass(frozen=True, slots=True)
class SeriesId:
    """Ids of a run and a metric."""

    run_id: int
    metric_id: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Result of a consistency check."""

    damage: Sequence[str] = ()
    """Errors of SQLite's integrity check; if there are any, nothing else was checked."""
    is_older: bool = False
    """True if the tables have the schema of an older version."""
    n_series: int = 0
    """Number of series in the database."""
    wrong: Sequence[SeriesId] = ()
    """Series whose summary or rollup does not match their points."""
    orphans: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that belong to no run or no metric, by table."""
    stray_folders: Sequence[Path] = ()
    """Folders of runs that are not in the database."""
    bad_keys: Sequence[object] = ()
    """Invalid keys of runs, written by another program."""
    lost: Sequence[str] = ()
    """Keys of runs whose process has ended without recording it."""

    @property
    def is_sound(self) -> bool:
        """True if nothing needs a repair; stray folders and lost runs are harmless."""
        return not (self.damage or self.is_older or self.wrong or self.orphans or self.bad_keys)


def diagnose(path: Path) -> Diagnosis:
    """Check a whole database; other processes may write to it meanwhile.

    Raises:
        InputError: If the file is not a labbench database or cannot be read.
        StoreError: If reading fails later on, or another user's database was changed during the read.
    """
    with open_snapshot(path) as connection:
        if damage := _integrity_errors(connection):
            return Diagnosis(damage)
        runs = dict(connection.execute(f"SELECT key, {STATUS} FROM runs"))
        folder = files_folder(path)
        folders = sorted(folder.iterdir()) if folder.is_dir() else []
        series = _all_series(connection)
        return Diagnosis(
            is_older=schema.read_state(connection) == "older",
            n_series=len(series),
            wrong=_outdated_series(connection, series),
            orphans={table: count for table in _OF_RUN if (count := _count_orphans(connection, table))},
            stray_folders=[entry for entry in folders if entry.is_dir() and entry.name not in runs],
            bad_keys=[key for key in runs if not is_key(key)],
            lost=[key for key, status in runs.items() if status == "lost"],
        )


def repair(connection: sqlite3.Connection, diagnosis: Diagnosis) -> None:
    """Delete orphans and recompute wrong summaries and rollups; the caller holds a transaction."""
    for table in diagnosis.orphans:
        connection.execute(f"DELETE FROM {table} WHERE {_orphan_condition(table)}")
    for series in diagnosis.wrong:
        rebuild_series(connection, series.run_id, series.metric_id)


def _integrity_errors(connection: sqlite3.Connection) -> list[str]:
    """Return the errors of SQLite's integrity check."""
    try:
        return [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        return [str(error)]  # too damaged for the check to run


def _all_series(connection: sqlite3.Connection) -> list[SeriesId]:
    """Return all series with points, a summary or a rollup."""
    query = " UNION ".join(f"SELECT run_id, metric_id FROM {table}" for table in _OF_METRIC)
    return [SeriesId(*ids) for ids in connection.execute(query)]


def _outdated_series(connection: sqlite3.Connection, all_series: Sequence[SeriesId]) -> list[SeriesId]:
    """Return the series whose stored summary or rollup differs from a recomputed one.

    Recomputed rows go to temporary tables, which hide the tables of the same names in the file.
    """
    connection.execute("PRAGMA query_only = 0")  # for the temporary tables
    for statement in schema.statements(schema.DDL):
        if statement.startswith(tuple(f"CREATE TABLE {table} " for table in _DERIVED)):
            connection.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE"))
    wrong = []
    for series in all_series:
        rebuild_series(connection, series.run_id, series.metric_id)
        if any(_rows(connection, f"main.{table}", series) != _rows(connection, table, series) for table in _DERIVED):
            wrong.append(series)
        for table in _DERIVED:
            connection.execute(f"DELETE FROM temp.{table}")
    for table in _DERIVED:
        connection.execute(f"DROP TABLE temp.{table}")
    return wrong


def _rows(connection: sqlite3.Connection, table: str, series: SeriesId) -> list[tuple[object, ...]]:
    columns = _DERIVED[table.removeprefix("main.")]
    query = f"SELECT {columns} FROM {table} WHERE run_id = ? AND metric_id = ? ORDER BY {columns.partition(',')[0]}"
    query += ", first_step" if "first_step" in columns else ""
    return connection.execute(query, (series.run_id, series.metric_id)).fetchall()


def _count_orphans(connection: sqlite3.Connection, table: str) -> int:
    [count] = connection.execute(f"SELECT count(*) FROM {table} WHERE {_orphan_condition(table)}").fetchone()
    return int(count)


def _orphan_condition(table: str) -> str:
    condition = "run_id NOT IN (SELECT id FROM runs)"
    return condition + (" OR metric_id NOT IN (SELECT id FROM metrics)" if table in _OF_METRIC else "")
