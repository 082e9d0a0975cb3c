"""How runs come into a database: their keys, their experiment, and the texts that they were made from."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from labbench.records import NewRun, Stop
from labbench.store.queries.run_rows import IN_JSON_LIST, as_json_list, config_json, storable_text

# no 0, 1, i, l, o to misread; a letter first, so that no key reads as a number
_LETTERS = "abcdefghjkmnpqrstuvwxyz"
_ALPHABET = _LETTERS + "23456789"


def insert_missing(
    connection: sqlite3.Connection,
    experiment_id: int,
    runs: Sequence[NewRun],
    *,
    origin: Literal["grid", "rerun"],
    task: str,
    stop: Stop | None,
    code_version: str | None = None,
) -> list[int]:
    """The ids of the runs, in order; those whose identity the experiment lacks are inserted, reruns always."""
    known = {} if origin == "rerun" else _runs_by_identity(connection, experiment_id)
    columns = {
        "experiment_id": experiment_id,
        "origin": origin,
        "task": storable_text(task),
        "stop": None if stop is None else config_json(asdict(stop)),
        "created": time.time(),
        "code_version": code_version,
    }
    ids = []
    for run in runs:
        run_id = known.get(run.identity)
        if run_id is None:
            run_id = _insert_run(connection, run, columns)
            if origin != "rerun":
                known[run.identity] = run_id
        ids.append(run_id)
    return ids


def ensure_experiment(connection: sqlite3.Connection, name: str) -> int:
    """The id of an experiment, which is made if it is not there."""
    name = storable_text(name)
    query = "INSERT OR IGNORE INTO experiments (name, created) VALUES (?, ?)"
    connection.execute(query, (name, time.time()))
    row: tuple[int] = connection.execute("SELECT id FROM experiments WHERE name = ?", (name,)).fetchone()
    return row[0]


def link_sources(connection: sqlite3.Connection, ids: Sequence[int], sources: Mapping[str, str]) -> None:
    """Note from which texts, by kind, those of the runs will be made that have not begun."""
    for kind, source in sources.items():
        digest = keep_source(connection, source)
        connection.execute(
            f"""
            INSERT OR REPLACE INTO run_sources (run_id, kind, source_id)
            SELECT runs.id, ?, sources.id FROM runs, sources
            WHERE runs.id {IN_JSON_LIST} AND runs.heartbeat IS NULL AND sources.sha256 = ?
            """,
            (kind, as_json_list(ids), digest),
        )


def keep_source(connection: sqlite3.Connection, source: str) -> str:
    """Insert a text that is not there; its SHA-256."""
    import hashlib  # 3 ms, which a script's start need not pay

    text = storable_text(source)
    digest = hashlib.sha256(text.encode()).hexdigest()
    connection.execute("INSERT OR IGNORE INTO sources (sha256, text) VALUES (?, ?)", (digest, text))
    return digest


def _runs_by_identity(connection: sqlite3.Connection, experiment_id: int) -> dict[str, int]:
    """The runs of a grid, and reruns whose original is gone: one result serves both."""
    query = "SELECT identity, id FROM runs WHERE experiment_id = ? AND origin IN ('grid', 'rerun') ORDER BY origin DESC"
    return dict(connection.execute(query, (experiment_id,)).fetchall())  # a grid's come last: they win


def _insert_run(connection: sqlite3.Connection, run: NewRun, columns: Mapping[str, Any]) -> int:
    query = """
        INSERT INTO runs
            (key, experiment_id, name, origin, identity, task, config, stop, status, created, code_version) VALUES
            (:key, :experiment_id, :name, :origin, :identity, :task, :config, :stop, 'queued', :created, :code_version)
    """
    own = {"key": new_key(connection), "name": storable_text(run.name), "identity": run.identity}
    run_id = connection.execute(query, {**columns, **own, "config": config_json(run.config)}).lastrowid
    assert run_id is not None  # an INSERT has one
    return run_id


def new_key(connection: sqlite3.Connection) -> str:
    """A random key that no run has yet."""
    while True:
        number = int.from_bytes(os.urandom(8), "little")
        number, digit = divmod(number, len(_LETTERS))
        key = _LETTERS[digit]
        for _ in range(7):
            number, digit = divmod(number, len(_ALPHABET))
            key += _ALPHABET[digit]
        if connection.execute("SELECT 1 FROM runs WHERE key = ?", (key,)).fetchone() is None:
            return key
