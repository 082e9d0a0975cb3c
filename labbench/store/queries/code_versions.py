"""Code versions of the runs of an experiment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from labbench.records import Config, Status, Stop
from labbench.store.queries.run_sql import FROM_RUNS, IN_JSON_LIST, STATUS, as_json_list


@dataclass(frozen=True, slots=True)
class CodedRun:
    """Run of an experiment with the parts of its identity and the code that computed it."""

    id: int
    identity: str
    task: str
    config: Config
    stop: Stop | None
    status: Status
    has_begun: bool
    code_version: str | None
    files: Mapping[str, str]
    """SHA-256 of the code files that computed the run, by name; empty if they were not recorded."""
    seconds: float | None
    """The run's share of the compute time of its stack; if not recorded, the time from start to end."""


@dataclass(frozen=True, slots=True)
class CodeSorting:
    """Runs of an experiment, sorted into runs of the current code and runs of older code."""

    code_version: str = ""
    present: Mapping[int, str] = field(default_factory=dict)
    """New identities by run id, for runs recorded with another version that count as runs of the current code."""
    older: Collection[int] = ()
    """Ids of runs of older code."""


def read_other_code(connection: sqlite3.Connection, experiment: str, code_version: str) -> list[CodedRun]:
    """Return an experiment's runs recorded with another code version or none, in queue order."""
    query = f"""
        SELECT runs.id, runs.identity, runs.task, runs.config, runs.stop, {STATUS}, runs.heartbeat IS NOT NULL,
            runs.code_version, sources.text, coalesce(s.last, runs.finished - runs.started)
        {FROM_RUNS}
        LEFT JOIN run_sources ON run_sources.run_id = runs.id AND run_sources.kind = 'code'
        LEFT JOIN sources ON sources.id = run_sources.source_id
        LEFT JOIN summary AS s ON s.run_id = runs.id
            AND s.metric_id = (SELECT id FROM metrics WHERE name = 'time/compute_s')
        WHERE experiments.name = ? AND runs.code_version IS NOT ? AND runs.origin IN ('grid', 'rerun', 'import')
        ORDER BY runs.id
    """
    rows = connection.execute(query, (experiment, code_version)).fetchall()
    return [run for row in rows if (run := _coded_run(row)) is not None]


def _coded_run(row: tuple[Any, ...]) -> CodedRun | None:
    """Convert a row; return None if another program wrote invalid values."""
    run_id, identity, task, config, stop, status, has_begun, version, files, seconds = row
    try:
        rule = None if stop is None else Stop(**json.loads(stop))
        settings = json.loads(config)
        digests = json.loads(files or "{}")
    except (ValueError, TypeError):
        return None
    if not (isinstance(settings, dict) and isinstance(digests, dict)):
        return None
    return CodedRun(run_id, identity, task, settings, rule, status, bool(has_begun), version, digests, seconds)


def record_sorting(connection: sqlite3.Connection, experiment: str, sorting: CodeSorting) -> None:
    """Record the code version of runs; the caller holds a transaction."""
    ours = "experiment_id = (SELECT id FROM experiments WHERE name = ?)"
    connection.execute(
        f"UPDATE runs SET code_version = ?, older_code = 0 WHERE {ours} AND id {IN_JSON_LIST}",
        (sorting.code_version, experiment, as_json_list(sorting.present)),
    )
    connection.execute(
        f"UPDATE runs SET older_code = 0 WHERE {ours} AND code_version = ? AND older_code",
        (experiment, sorting.code_version),
    )
    connection.execute(
        f"UPDATE runs SET older_code = 1 WHERE {ours} AND id {IN_JSON_LIST}", (experiment, as_json_list(sorting.older))
    )
    # IGNORE: another run may have the identity already, for instance after an import
    connection.executemany(
        "UPDATE OR IGNORE runs SET identity = ? WHERE id = ?",
        [(identity, run_id) for run_id, identity in sorting.present.items()],
    )
