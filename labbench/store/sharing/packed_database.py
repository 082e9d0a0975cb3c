"""Database of a pack: a new file with chosen runs, and nothing of the other runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from labbench.store.connection import open_for_writing, translate_sqlite_errors
from labbench.store.maintenance.merge import attach_read_only, common_columns
from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list

_PRINTED = {"traceback": "NULL"}
_WITHOUT_CHECKPOINTS = {"boundary": "0"}
_OF_RUN = ("points", "summary", "rollup", "overview", "tags")
_CHOSEN = f"IN (SELECT id FROM other.runs WHERE key {IN_JSON_LIST})"


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """Texts of the runs that a pack holds beside their numbers, configurations, names, notes and tags."""

    source: bool = False
    """Source texts: task or script, grid, command, diff."""
    output: bool = False
    """Captured output, and tracebacks of errors."""


def write_packed_database(source: Path, copy: Path, keys: Sequence[str], texts: PackedTexts) -> None:
    """Copy runs to a new database, one file without a write-ahead log.

    Checkpoints are not packed: a run that is trained from the copy begins from the start. Of artifacts only those in
    the folder of their run are recorded.

    Raises:
        InputError: If `source` cannot be read, or `copy` cannot be created.
        StoreError: If reading or writing fails later on.
    """
    with (
        closing(open_for_writing(copy)) as connection,
        attach_read_only(connection, source),
        translate_sqlite_errors(copy),
    ):
        connection.execute("BEGIN")
        _copy_rows(connection, as_json_list(keys), texts)
        connection.execute("COMMIT")
    with translate_sqlite_errors(copy), closing(sqlite3.connect(copy)) as sole_connection:
        sole_connection.execute("PRAGMA journal_mode = DELETE")


def _copy_rows(connection: sqlite3.Connection, keys: str, texts: PackedTexts) -> None:
    """Copy the rows of the runs from the attached database; `keys` is the parameter of `IN_JSON_LIST`."""
    _copy(connection, "experiments", f"id IN (SELECT experiment_id FROM other.runs WHERE key {IN_JSON_LIST})", keys)
    _copy(connection, "metrics", f"id IN (SELECT metric_id FROM other.summary WHERE run_id {_CHOSEN})", keys)
    replaced = _WITHOUT_CHECKPOINTS if texts.output else {**_WITHOUT_CHECKPOINTS, **_PRINTED}
    _copy(connection, "runs", f"key {IN_JSON_LIST}", keys, replaced)
    for table in _OF_RUN:
        _copy(connection, table, f"run_id {_CHOSEN}", keys)
    _copy(connection, "artifacts", f"run_id {_CHOSEN} AND path NOT GLOB '/*'", keys)
    if texts.source:
        linked = f"SELECT source_id FROM other.run_sources WHERE run_id {_CHOSEN}"
        _copy(connection, "sources", f"id IN ({linked})", keys)
        _copy(connection, "run_sources", f"run_id {_CHOSEN}", keys)
    if texts.output:
        _copy(connection, "logs", f"run_id {_CHOSEN}", keys)


def _copy(
    connection: sqlite3.Connection, table: str, condition: str, keys: str, replaced: dict[str, str] | None = None
) -> None:
    """Copy the rows of a table that meet a condition; `replaced` holds SQL by column. An older file may lack it."""
    columns = common_columns(connection, table)
    if columns:
        values = ", ".join((replaced or {}).get(column, column) for column in columns)
        query = f"INSERT INTO main.{table} ({', '.join(columns)}) SELECT {values} FROM other.{table} WHERE {condition}"
        connection.execute(query, (keys,))
