"""Rows that belong to one run: its log, files and sources."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Any

from labbench.errors import InputError, RunNotFound
from labbench.records import Artifact
from labbench.sgr import remove_styles
from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list
from labbench.store.row_checks import RowCheck

_check_logs = RowCheck("logs", ("stream", "text"))
_check_artifacts = RowCheck("artifacts", ("name", "path", "size", "sha256", "created"))
_check_sources = RowCheck("sources", ("kind", "text"))


def require_run_id(connection: sqlite3.Connection, key: str) -> int:
    """Return the id of the run with this key.

    Raises:
        RunNotFound: If there is none.
    """
    row = connection.execute("SELECT id FROM runs WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise RunNotFound(f"no run has the key `{key}`")
    return int(row[0])


def iterate_logs(connection: sqlite3.Connection, key: str, *, styled: bool) -> Iterator[str]:
    """Yield the texts that a run printed in all its attempts, oldest first, with one or two of them in memory.

    SGR sequences are removed unless `styled`.

    Each text of a script's streams ends with a newline: a missing one is added, except to the last text.

    Raises:
        RunNotFound: If no run has the key.
    """
    query = "SELECT stream, text FROM logs WHERE run_id = ? ORDER BY id"
    previous: tuple[str | None, str] | None = None
    for row in connection.execute(query, (require_run_id(connection, key),)):
        [(stream, text)] = _check_logs([row])
        text = text if styled else remove_styles(text)
        if previous is not None:
            yield previous[1] if previous[0] is None or previous[1].endswith("\n") else f"{previous[1]}\n"
        previous = stream, text
    if previous is not None:
        yield previous[1]


def read_artifacts(connection: sqlite3.Connection, key: str) -> list[Artifact]:
    """Return the files that a run produced or used, by name.

    Raises:
        InputError: If no run has the key (`RunNotFound`), or a path points outside the run's folder.
    """
    query = "SELECT name, path, size, sha256, created FROM artifacts WHERE run_id = ? ORDER BY name"
    return [_artifact(*row) for row in _check_artifacts(connection.execute(query, (require_run_id(connection, key),)))]


def read_sources(connection: sqlite3.Connection, key: str) -> dict[str, str]:
    """Return the source texts of a run by kind: grid, task or script, diff.

    Raises:
        RunNotFound: If no run has the key.
    """
    query = "SELECT kind, text FROM run_sources JOIN sources ON sources.id = source_id WHERE run_id = ?"
    return dict(_check_sources(connection.execute(query, (require_run_id(connection, key),))))


def read_grid_texts(connection: sqlite3.Connection, ids: Collection[int]) -> list[str]:
    """Return the different texts of the grid files of the runs with these ids, an empty one if a run has none."""
    query = f"""
        SELECT DISTINCT 'grid', coalesce(text, '') FROM runs
        LEFT JOIN run_sources ON run_id = runs.id AND kind = 'grid' LEFT JOIN sources ON sources.id = source_id
        WHERE runs.id {IN_JSON_LIST}
    """
    return [text for _, text in _check_sources(connection.execute(query, (as_json_list(ids),)))]


def _artifact(name: str, path: str, *rest: Any) -> Artifact:
    """Return a record of a file.

    Raises InputError if its path points outside the run's folder.
    """
    if ".." in PurePosixPath(path).parts:
        raise InputError(f"the path {path!r} of the artifact {name!r} points outside the run's folder")
    return Artifact(name, path, *rest)
