"""Read-only consistency check of a database: recomputes derived rows in memory and compares them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labbench.files import JOBS_FOLDER, files_folder
from labbench.records import STATUSES, is_key
from labbench.store import schema
from labbench.store.connection import open_snapshot
from labbench.store.queries.run_sql import IN_JSON_LIST, STATUS, as_json_list
from labbench.store.recording.queue import RECOVERED, TABLES_OF_RUN, ensure_experiment, new_key
from labbench.store.row_checks import COLUMNS, invalid_condition
from labbench.store.scripts.spill import spill_files
from labbench.store.series import overview, rollup
from labbench.store.series.points import rebuild_series
from labbench.system.clock import now

_OF_METRIC = ("points", "summary", "rollup", "overview")
_LOGGED = ("points", "logs", "artifacts")
"""Tables with data that cannot be computed from other tables."""
_NO_EXPERIMENT = "experiment_id NOT IN (SELECT id FROM experiments)"
_BAD_CONFIG = "NOT json_valid(config) OR json_type(config) <> 'object'"
_BAD_VALUE = (
    "typeof(value) NOT IN ('real', 'integer', 'null') OR typeof(step) <> 'integer' OR typeof(time_ms) <> 'integer'"
)
_BAD_VERSIONS = "CASE WHEN json_valid(versions) THEN json_type(versions) ELSE '' END <> 'object'"
_CHECKED_OTHERWISE = {
    ("runs", "experiment"), ("sources", "kind"),  # columns of joined tables
    ("runs", "key"), ("runs", "config"), ("runs", "status"),
}  # fmt: skip
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
    """Series whose summary, rollup or overview does not match their points."""
    n_without_overview: int = 0
    """Number of series without the overview that speeds up charts of many runs."""
    orphans: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that belong to no run or no metric, by table."""
    stray_folders: Sequence[Path] = ()
    """Folders of runs that are not in the database."""
    invalid: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Number of values that labbench does not write and cannot repair, by table and column."""
    bad_keys: Sequence[object] = ()
    """Invalid keys of runs, written by another program."""
    runs_without_experiment: int = 0
    """Number of runs whose row of the table `experiments` is missing."""
    bad_configs: int = 0
    """Number of runs whose config is not a JSON object."""
    bad_statuses: Sequence[str] = ()
    """Statuses of runs that labbench does not know."""
    bad_values: int = 0
    """Number of points whose value, step or time is not a number."""
    spill_files: Sequence[Path] = ()
    """Files beside the database with data that could not be written to it."""
    lost: Sequence[str] = ()
    """Keys of runs whose process has ended without recording it."""

    @property
    def is_sound(self) -> bool:
        """True if nothing needs a repair.

        Tables of an older version, stray folders, spill files, lost runs and missing overviews are harmless.
        """
        return not (self._is_wrong or self.damage or self.invalid or self.bad_keys or self.bad_values)

    @property
    def is_repairable(self) -> bool:
        """True if `repair` can do something."""
        return self._is_wrong or self.is_older or self.n_without_overview > 0

    @property
    def _is_wrong(self) -> bool:
        """True if there is something wrong that `repair` corrects."""
        return bool(self.wrong or self.orphans or self.runs_without_experiment or self.bad_configs or self.bad_statuses)


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
            n_without_overview=_count_missing_overviews(connection),
            orphans={table: count for table in TABLES_OF_RUN if (count := _count_orphans(connection, table))},
            stray_folders=[entry for entry in folders if entry.is_dir() and entry.name not in {*runs, JOBS_FOLDER}],
            invalid=_count_invalid_values(connection),
            bad_keys=[key for key in runs if not is_key(key)],
            runs_without_experiment=_count(connection, f"runs WHERE {_NO_EXPERIMENT}"),
            bad_configs=_count(connection, f"runs WHERE {_BAD_CONFIG}"),
            bad_statuses=sorted({str(status) for status in runs.values()} - set(STATUSES)),
            bad_values=_count(connection, f"points WHERE {_BAD_VALUE}"),
            spill_files=spill_files(path),
            lost=[key for key, status in runs.items() if status == "lost" and is_key(key)],
        )


def repair(connection: sqlite3.Connection, diagnosis: Diagnosis) -> None:
    """Rescue runs and metrics whose rows are missing, and recompute wrong summaries, rollups and overviews.

    The caller holds a transaction. No logged value is deleted: points, output and artifacts without a run get a new run
    in the experiment `recovered`. Other rows without a run are deleted.
    """
    if diagnosis.runs_without_experiment or diagnosis.orphans:
        _rescue_runs(connection)
    connection.execute(f"""
        UPDATE runs SET config = json_object('config', CASE WHEN json_valid(config) THEN json(config) ELSE config END)
        WHERE {_BAD_CONFIG}
    """)
    query = f"UPDATE runs SET reason = 'unknown status ' || status, status = 'stopped' WHERE NOT status {IN_JSON_LIST}"
    connection.execute(query, (as_json_list(STATUSES),))
    for table in diagnosis.orphans:
        connection.execute(f"DELETE FROM {table} WHERE {_orphan_condition(table)}")
    for series in diagnosis.wrong:
        rebuild_series(connection, series.run_id, series.metric_id)
    overview.add_missing(connection)


def _rescue_runs(connection: sqlite3.Connection) -> None:
    """Insert the missing runs and metrics of points, output and artifacts, and the missing experiments of runs."""
    lost_ids = " UNION ".join(
        f"SELECT run_id FROM {table} WHERE run_id NOT IN (SELECT id FROM runs)" for table in _LOGGED
    )
    missing = [run_id for (run_id,) in connection.execute(lost_ids)]
    if missing or _count(connection, f"runs WHERE {_NO_EXPERIMENT}"):
        experiment_id = ensure_experiment(connection, RECOVERED)
        connection.execute(f"UPDATE runs SET experiment_id = ? WHERE {_NO_EXPERIMENT}", (experiment_id,))
        for run_id in missing:
            connection.execute(
                """
                INSERT INTO runs (id, key, experiment_id, name, origin, status, reason, created)
                VALUES (?, ?, ?, ?, 'script', 'stopped', 'recovered by doctor: its row was missing', ?)
                """,
                (run_id, new_key(connection), experiment_id, f"{RECOVERED} {run_id}", now()),
            )
    query = "SELECT DISTINCT metric_id FROM points WHERE metric_id NOT IN (SELECT id FROM metrics)"
    for (metric_id,) in connection.execute(query).fetchall():
        connection.execute("INSERT INTO metrics (id, name) VALUES (?, ?)", (metric_id, f"{RECOVERED}/{metric_id}"))


def _integrity_errors(connection: sqlite3.Connection) -> list[str]:
    """Return the errors of SQLite's integrity check."""
    try:
        return [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    except UnicodeDecodeError:  # SQLite quotes broken bytes of the schema
        return ["the schema is not text"]
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        return [str(error)]  # too damaged for the check to run


def _count_invalid_values(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """Return the number of values that labbench does not write, by table and column, without zeros.

    Leaves out the tables of series, and the columns that `repair` corrects.
    """
    counts: dict[tuple[str, str], int] = {}
    for table in COLUMNS.keys() - _OF_METRIC:
        columns = [column for column in COLUMNS[table] if (table, column) not in _CHECKED_OTHERWISE]
        sums = ", ".join(f"total({invalid_condition(table, column)})" for column in columns)
        row = connection.execute(f"SELECT {sums} FROM {table}").fetchone()
        counts |= {(table, column): int(count) for column, count in zip(columns, row, strict=True) if count}
    if count := _count(connection, f"runs WHERE {_BAD_VERSIONS}"):
        counts["runs", "versions"] = count
    return counts


def _all_series(connection: sqlite3.Connection) -> list[SeriesId]:
    """Return all series with points or rows derived from points, except those that cannot be summarized."""
    query = " UNION ".join(f"SELECT run_id, metric_id FROM {table}" for table in _OF_METRIC)
    query = f"SELECT * FROM ({query}) EXCEPT SELECT run_id, metric_id FROM points WHERE {_BAD_VALUE}"
    return [SeriesId(*ids) for ids in connection.execute(query)]


def _outdated_series(connection: sqlite3.Connection, all_series: Sequence[SeriesId]) -> list[SeriesId]:
    """Return the series whose stored summary, rollup or overview differs from a recomputed one.

    Recomputed rows go to temporary tables, which hide the tables of the same names in the file.
    """
    has_overviews = _count(connection, "main.sqlite_master WHERE name = 'overview'") > 0
    tables = (*_DERIVED, "overview") if has_overviews else tuple(_DERIVED)
    connection.execute("PRAGMA query_only = 0")  # for the temporary tables
    schema.create_temporary_tables(connection, tables)
    wrong = []
    for series in all_series:
        ids = series.run_id, series.metric_id
        rebuild_series(connection, *ids)
        is_equal = _is_equal(connection, "summary", series) and _has_current_rollup(connection, series)
        if not is_equal or (has_overviews and not overview.agrees_with_points(connection, *ids)):
            wrong.append(series)
        for table in _DERIVED:
            connection.execute(f"DELETE FROM temp.{table}")
    for table in tables:
        connection.execute(f"DROP TABLE temp.{table}")
    return wrong


def _has_current_rollup(connection: sqlite3.Connection, series: SeriesId) -> bool:
    """Compare the stored chunks with all recomputed ones, or with all but the last if that may be written later."""
    ids = series.run_id, series.metric_id
    if _is_equal(connection, "rollup", series):
        return True
    [n] = connection.execute("SELECT n FROM summary WHERE run_id = ? AND metric_id = ?", ids).fetchone() or (0,)
    if n < rollup.CHUNK or n % rollup.CHUNK >= rollup.MAX_DELAY:
        return False
    rollup.truncate_chunks(connection, *ids, from_step=rollup.first_step_after_chunks(connection, *ids) - 1)
    return _is_equal(connection, "rollup", series)


def _is_equal(connection: sqlite3.Connection, table: str, series: SeriesId) -> bool:
    return _rows(connection, f"main.{table}", series) == _rows(connection, table, series)


def _count_missing_overviews(connection: sqlite3.Connection) -> int:
    return _count(
        connection,
        "summary LEFT JOIN overview USING (run_id, metric_id) "
        f"WHERE summary.n > {overview.BUCKETS} AND overview.n IS NULL",
    )


def _rows(connection: sqlite3.Connection, table: str, series: SeriesId) -> list[tuple[object, ...]]:
    columns = _DERIVED[table.removeprefix("main.")]
    query = f"SELECT {columns} FROM {table} WHERE run_id = ? AND metric_id = ? ORDER BY {columns.partition(',')[0]}"
    query += ", first_step" if "first_step" in columns else ""
    return connection.execute(query, (series.run_id, series.metric_id)).fetchall()


def _count_orphans(connection: sqlite3.Connection, table: str) -> int:
    return _count(connection, f"{table} WHERE {_orphan_condition(table)}")


def _count(connection: sqlite3.Connection, rows: str) -> int:
    [count] = connection.execute(f"SELECT count(*) FROM {rows}").fetchone()
    return int(count)


def _orphan_condition(table: str) -> str:
    condition = "run_id NOT IN (SELECT id FROM runs)"
    return condition + (" OR metric_id NOT IN (SELECT id FROM metrics)" if table in _OF_METRIC else "")
