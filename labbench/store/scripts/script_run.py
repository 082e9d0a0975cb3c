"""State of a script's run in its process, and its conversion to rows.

A script's process holds its run as an immutable `ScriptRun`; each write stores only the changes since the last one. So
an edit by a user (a note, a tag) is not overwritten, and the run can be recreated in another file.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from labbench.metrics import Goal
from labbench.records import Artifact, Config, FailureKind
from labbench.store.liveness import ProcessIdentity, this_process, uptime
from labbench.store.queries.run_sql import config_json, storable_text
from labbench.store.recording.events import complete_run, delete_unfinished_output, ensure_metric
from labbench.store.recording.queue import SqlValue, add_tags, ensure_experiment, ensure_source, insert_run
from labbench.system.clock import now

Stream: TypeAlias = Literal["stdout", "stderr"]

SCRIPT_ENDED = "script ended"
"""Reason of the end of a run whose script ended without an error."""


@dataclass(frozen=True, slots=True)
class PrintedText:
    """Lines that a script printed to one stream."""

    time: float
    """Unix time in seconds."""
    stream: Stream
    text: str
    """Complete lines; or, without a newline at the end, lines that may still change."""
    replaces_unfinished: bool = False
    """True if the stream's last text without a newline at the end is deleted first."""


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """State of a script's run in its process.

    An empty key or name is filled in when the run is inserted.
    """

    key: str
    name: str
    experiment: str
    attempt: int
    started: float
    """Unix time in seconds."""
    process: ProcessIdentity
    """Process that drives the run."""
    drives: bool = True
    """True if this process sends the heartbeats and records the end; False in a process that only logs to the run."""
    last_sample_step: int = 0
    """Last step of the system metrics of earlier attempts."""
    external_id: str | None = None
    """Id that the script gave the run, unique in the experiment."""
    attempt_ids: str | None = None
    """Random id of each attempt, oldest first, separated by spaces; None if not known."""
    config: Config = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    note: str | None = None
    goals: Mapping[str, Goal] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source texts by kind: script, diff."""
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    status: Literal["running", "finished", "failed", "stopped", "pruned"] = "running"
    reason: str | None = None
    finished: float | None = None
    error_kind: FailureKind | None = None
    error: str | None = None
    traceback: str | None = None


def new_script_run(name: str, experiment: str, config: Config) -> ScriptRun:
    """Return a run that this process starts now."""
    return ScriptRun("", name, experiment, 1, now(), this_process(), attempt_ids=os.urandom(4).hex(), config=config)


def insert_script_run(connection: sqlite3.Connection, run: ScriptRun) -> ScriptRun:
    """Insert a new run and return it with its key and name.

    The caller holds a transaction.
    """
    experiment_id = ensure_experiment(connection, run.experiment)
    name = run.name or _next_free_name(connection, experiment_id, run.experiment)
    columns: dict[str, SqlValue] = {
        "key": run.key,
        "experiment_id": experiment_id,
        "name": name,
        "origin": "script",
        "config": config_json(run.config),
        "external_id": run.external_id,
        "attempt_ids": run.attempt_ids,
        "status": "running",
        "attempt": run.attempt,
        "created": run.started,
        "started": run.started,
        "heartbeat": now(),
        "heartbeat_uptime": uptime(),
        **asdict(run.process),
    }
    run_id, key = insert_run(connection, columns)
    write_changes(connection, run_id, run, new_script_run(run.name, run.experiment, run.config))
    return replace(run, key=key, name=name)


def write_changes(connection: sqlite3.Connection, run_id: int, run: ScriptRun, written: ScriptRun) -> None:
    """Write the differences between `run` and its state `written`; the caller holds a transaction."""
    before = _mutable_columns(written)
    columns = {name: value for name, value in _mutable_columns(run).items() if value != before.get(name)}
    if columns:
        names = ", ".join(f"{name} = ?" for name in columns)
        connection.execute(f"UPDATE runs SET {names} WHERE id = ?", (*columns.values(), run_id))
    if columns.get("status", "running") != "running":
        complete_run(connection, run_id)
    if run.config != written.config:
        [text] = connection.execute("SELECT config FROM runs WHERE id = ?", (run_id,)).fetchone()
        changes = {
            key: value for key, value in run.config.items() if key not in written.config or written.config[key] != value
        }
        merged = {**json.loads(text), **changes}  # another process of the run may have added keys
        connection.execute("UPDATE runs SET config = ? WHERE id = ?", (config_json(merged), run_id))
    add_tags(connection, [run_id], [tag for tag in run.tags if tag not in written.tags])
    for metric, goal in run.goals.items():
        if written.goals.get(metric) != goal:
            connection.execute("UPDATE metrics SET goal = ? WHERE id = ?", (goal, ensure_metric(connection, metric)))
    recorded = set(written.artifacts)
    connection.executemany(
        "INSERT OR REPLACE INTO artifacts (run_id, name, path, size, sha256, created) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                run_id,
                storable_text(artifact.name),
                storable_text(artifact.path),
                artifact.size,
                artifact.sha256,
                artifact.created,
            )
            for artifact in run.artifacts
            if artifact not in recorded
        ],
    )
    for kind, text in run.sources.items():
        if written.sources.get(kind) != text:
            query = "INSERT OR REPLACE INTO run_sources SELECT ?, ?, id FROM sources WHERE sha256 = ?"
            connection.execute(query, (run_id, kind, ensure_source(connection, text)))


def write_printed(connection: sqlite3.Connection, run_id: int, attempt: int, printed: Iterable[PrintedText]) -> None:
    """Append printed texts to a run's log; the caller holds a transaction."""
    for lines in printed:
        if lines.replaces_unfinished:
            delete_unfinished_output(connection, run_id, attempt, lines.stream)
        if lines.text:
            row = (run_id, attempt, lines.time, lines.stream, storable_text(lines.text))
            connection.execute("INSERT INTO logs (run_id, attempt, time, stream, text) VALUES (?, ?, ?, ?, ?)", row)


def _mutable_columns(run: ScriptRun) -> dict[str, Any]:
    """Return the columns of `runs` that may change while the run is active."""
    columns: dict[str, Any] = {
        "name": storable_text(run.name),
        "note": run.note and storable_text(run.note),
        "git_commit": run.git_commit,
        "git_dirty": run.git_dirty,
        "versions": json.dumps(dict(run.versions)),
    }
    if run.drives:
        columns |= {
            "status": run.status,
            "reason": run.reason and storable_text(run.reason),
            "finished": run.finished and max(run.finished, run.started),
            "error_kind": run.error_kind,
            "error": run.error and storable_text(run.error),
            "traceback": run.traceback and storable_text(run.traceback),
        }
    return columns


def _next_free_name(connection: sqlite3.Connection, experiment_id: int, experiment: str) -> str:
    """Return the default name of a run, `EXPERIMENT-N` with the first free number."""
    names = {name for (name,) in connection.execute("SELECT name FROM runs WHERE experiment_id = ?", (experiment_id,))}
    number = len(names) + 1
    while f"{experiment}-{number}" in names:
        number += 1
    return f"{experiment}-{number}"
