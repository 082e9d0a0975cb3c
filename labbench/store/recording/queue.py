"""Insertion and deletion of runs (keys, experiments, source texts, tags); requests to the processes that drive them."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, TypeAlias

from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list, config_json, storable_text
from labbench.store.revisions import NEXT_REVISION
from labbench.system.clock import now

if TYPE_CHECKING:
    from labbench.records import NewRun, Submission

SqlValue: TypeAlias = str | int | float | bytes | None

Action: TypeAlias = Literal["stop", "retry"]
"""Request to the process that drives a run."""

RECOVERED = "recovered"
"""Name of the experiment of runs whose own is missing after damage."""

TABLES_OF_RUN = (
    "points", "summary", "rollup", "overview", "tags", "logs", "artifacts", "requests", "run_sources",
    "series_revisions", "mirrored_runs", "mirrored_series",
)  # fmt: skip
"""Tables whose rows belong to a run each, by the column `run_id`."""

# without 0, 1, i, l and o, which are easy to misread; the first character is a letter, so that no key is a number
_LETTERS = "abcdefghjkmnpqrstuvwxyz"
_ALPHABET = _LETTERS + "23456789"


def insert_missing(
    connection: sqlite3.Connection, submission: Submission, runs: Sequence[NewRun], *, rerun: bool
) -> list[int]:
    """Insert the runs whose identity the experiment lacks, or all if `rerun`.

    Return the ids of all, in order.
    """
    experiment_id = ensure_experiment(connection, submission.experiment)
    ids_by_identity = {} if rerun else _runs_by_identity(connection, experiment_id)
    stop = submission.stop
    columns = {
        "experiment_id": experiment_id,
        "origin": "rerun" if rerun else "grid",
        "task": submission.task,
        "stop": None if stop is None else config_json(asdict(stop)),
        "status": "queued",
        "created": now(),
        "code_version": submission.code_version,
    }
    ids = []
    for run in runs:
        run_id = ids_by_identity.get(run.identity)
        if run_id is None:
            config = config_json(run.config)
            run_id, _ = insert_run(
                connection, {**columns, "name": run.name, "identity": run.identity, "config": config}
            )
            if not rerun:
                ids_by_identity[run.identity] = run_id
        ids.append(run_id)
    return ids


def insert_run(connection: sqlite3.Connection, columns: Mapping[str, SqlValue]) -> tuple[int, str]:
    """Insert a row into the table `runs`.

    Missing columns get the defaults of the schema. The run keeps its `key` unless another run has it; then, or without
    a key, it gets a new one. The caller holds a transaction.

    Returns:
        The run's id and key.
    """
    key = columns.get("key")
    if not isinstance(key, str) or not key or _has_run(connection, key):
        key = new_key(connection)
    row = {**columns, "key": key}
    values = [storable_text(value) if isinstance(value, str) else value for value in row.values()]
    query = f"INSERT INTO main.runs ({', '.join(row)}, revision) VALUES ({', '.join('?' * len(row))}, {NEXT_REVISION})"
    run_id = connection.execute(query, values).lastrowid
    assert run_id is not None  # an INSERT sets it
    return run_id, key


def delete_runs(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete runs with the rows of other tables that only they need. The caller holds a transaction."""
    for table in TABLES_OF_RUN:
        connection.execute(f"DELETE FROM {table} WHERE run_id {IN_JSON_LIST}", (as_json_list(ids),))
    connection.execute(f"DELETE FROM runs WHERE id {IN_JSON_LIST}", (as_json_list(ids),))
    connection.execute("DELETE FROM sources WHERE id NOT IN (SELECT source_id FROM run_sources)")
    connection.execute("DELETE FROM experiments WHERE id NOT IN (SELECT experiment_id FROM runs)")


def add_tags(connection: sqlite3.Connection, ids: Sequence[int], tags: Iterable[str]) -> None:
    """Add tags to runs. The caller holds a transaction."""
    rows = [(run_id, storable_text(tag)) for tag in tags for run_id in ids]
    connection.executemany("INSERT OR IGNORE INTO tags (run_id, tag) VALUES (?, ?)", rows)


def ensure_experiment(connection: sqlite3.Connection, name: str) -> int:
    """Return the id of an experiment, which is inserted if it does not exist."""
    name = storable_text(name)
    query = "INSERT OR IGNORE INTO experiments (name, created) VALUES (?, ?)"
    connection.execute(query, (name, now()))
    row: tuple[int] = connection.execute("SELECT id FROM experiments WHERE name = ?", (name,)).fetchone()
    return row[0]


def link_sources(connection: sqlite3.Connection, ids: Sequence[int], sources: Mapping[str, str]) -> None:
    """Link the runs that have not started to their source texts, given by kind."""
    for kind, source in sources.items():
        digest = ensure_source(connection, source)
        connection.execute(
            f"""
            INSERT OR REPLACE INTO run_sources (run_id, kind, source_id)
            SELECT runs.id, ?, sources.id FROM runs, sources
            WHERE runs.id {IN_JSON_LIST} AND runs.heartbeat IS NULL AND sources.sha256 = ?
            """,
            (kind, as_json_list(ids), digest),
        )


def ensure_source(connection: sqlite3.Connection, source: str) -> str:
    """Insert a source text if it does not exist, and return its SHA-256."""
    text = storable_text(source)
    digest = hashlib.sha256(text.encode()).hexdigest()
    connection.execute("INSERT OR IGNORE INTO sources (sha256, text) VALUES (?, ?)", (digest, text))
    return digest


def _runs_by_identity(connection: sqlite3.Connection, experiment_id: int) -> dict[str, int]:
    """Return run ids by identity: runs of a grid, and reruns whose original was removed."""
    # in this order, a run of the grid replaces its reruns
    query = "SELECT identity, id FROM runs WHERE experiment_id = ? AND origin IN ('grid', 'rerun') ORDER BY origin DESC"
    return dict(connection.execute(query, (experiment_id,)).fetchall())


def new_key(connection: sqlite3.Connection) -> str:
    """Return a random key that no run has."""
    while True:
        key = key_from_number(int.from_bytes(os.urandom(8), "little"))
        if not _has_run(connection, key):
            return key


def key_from_number(number: int) -> str:
    """Return the key that the last bits of a number of 64 bits give."""
    number, digit = divmod(number, len(_LETTERS))
    key = _LETTERS[digit]
    for _ in range(7):
        number, digit = divmod(number, len(_ALPHABET))
        key += _ALPHABET[digit]
    return key


def _has_run(connection: sqlite3.Connection, key: str) -> bool:
    return connection.execute("SELECT 1 FROM main.runs WHERE key = ?", (key,)).fetchone() is not None


def insert_request(connection: sqlite3.Connection, run_id: int, action: Action) -> None:
    """Insert a request for a run, unless it has one."""
    query = "INSERT OR IGNORE INTO requests (run_id, action, created) VALUES (?, ?, ?)"
    connection.execute(query, (run_id, action, now()))


def pop_requests(connection: sqlite3.Connection, keys: Sequence[str]) -> list[tuple[str, Action]]:
    """Return and delete the requests for these runs as (key, action), oldest first."""
    query = f"""
        SELECT requests.id, key, action FROM requests JOIN runs ON runs.id = run_id
        WHERE key {IN_JSON_LIST} ORDER BY requests.id
    """
    rows = connection.execute(query, (as_json_list(keys),)).fetchall()
    connection.executemany("DELETE FROM requests WHERE id = ?", [(request_id,) for request_id, _, _ in rows])
    return [(key, action) for _, key, action in rows]
