"""Conversion of a run's events to rows: points with their summary, boundaries, logs, and the end."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

from labbench.metrics import trainer_goal
from labbench.records import Points
from labbench.store.queries.run_sql import DIVERGENCE, storable_text
from labbench.store.series import overview
from labbench.store.series.points import add_points
from labbench.system.clock import now

if TYPE_CHECKING:
    from labbench.records import Event

END_TIME = "max(?, coalesce(started, 0))"
"""Value of `finished` for an end at the time of the parameter; NULL stays NULL.

No run finishes before it starts, even if the clocks of two attempts differ.
"""


def record_events(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Record events; drop events of a run that was removed, has ended or is in a later attempt.

    The caller holds a transaction.
    """
    running: dict[str, tuple[int, int] | None] = {}
    series: dict[tuple[int, str], Points] = {}
    others: list[tuple[int, Event]] = []
    for event in events:
        if event.run not in running:
            query = "SELECT id, attempt FROM runs WHERE key = ? AND status = 'running'"
            running[event.run] = connection.execute(query, (event.run,)).fetchone()
        run = running[event.run]
        if run is None or run[1] != event.attempt:
            continue
        if isinstance(event, Points):
            earlier = series.get((run[0], event.metric))
            series[run[0], event.metric] = event if earlier is None else _merge_points(earlier, event)
        else:
            others.append((run[0], event))
    # points first: a boundary is only valid with all points before it
    metric_ids = {metric: ensure_metric(connection, metric) for metric in dict.fromkeys(metric for _, metric in series)}
    for (run_id, metric), points in series.items():
        add_points(connection, run_id, metric_ids[metric], points.steps, points.times, points.values)
    for run_id, event in others:
        record_event(connection, run_id, event)


def end_run(
    connection: sqlite3.Connection, run_id: int, status: str, reason: str | None, at: float | None = None
) -> None:
    """Record the end of a run, now or at the Unix time `at`.

    For status `queued`, which is not an end, no time is recorded.
    """
    finished = None if status == "queued" else at or now()
    query = f"UPDATE runs SET status = ?, reason = ?, finished = {END_TIME} WHERE id = ?"
    connection.execute(query, (status, reason and storable_text(reason), finished, run_id))
    complete_run(connection, run_id)


def complete_run(connection: sqlite3.Connection, run_id: int) -> None:
    """Complete the overview of a run that has ended, and mark its divergence; the caller holds a transaction."""
    _mark_divergence(connection, run_id)
    overview.complete(connection, run_id)


def _mark_divergence(connection: sqlite3.Connection, run_id: int) -> None:
    """Change the status of a finished run to `diverged` if its last value of a loss is not finite."""
    query = f"""
        UPDATE runs SET status = 'diverged', reason = {DIVERGENCE}
        WHERE id = ? AND status = 'finished' AND {DIVERGENCE} IS NOT NULL
    """
    connection.execute(query, (run_id,))


def record_event(connection: sqlite3.Connection, run_id: int, event: Event) -> None:
    """Record an event other than points; the caller holds a transaction."""
    # imported here: a script records points alone
    from labbench.records import Boundary, Failed, Finished, Log, Received, Started, Submitted

    match event:
        case Started():
            # a run that resumes keeps `started`; host and pid are those of the driver
            query = """
                UPDATE runs SET started = coalesce(started, ?), device = ?, way = ?, node = ?,
                    versions = json_patch(versions, ?) WHERE id = ?
            """
            hardware = json.dumps({name: storable_text(text) for name, text in event.hardware.items()})
            values = (event.time, event.device, event.way, storable_text(event.host), hardware, run_id)
            connection.execute(query, values)
        case Boundary():
            connection.execute("UPDATE runs SET boundary = ? WHERE id = ?", (event.step, run_id))
        case Submitted():
            query = "UPDATE runs SET executor = ?, cluster = ?, job_id = ? WHERE id = ?"
            connection.execute(query, (event.executor, storable_text(event.cluster), event.job_id, run_id))
        case Received():
            connection.execute("UPDATE runs SET job_position = ? WHERE id = ?", (event.position, run_id))
        case Log():
            if event.replaces_unfinished:
                delete_unfinished_output(connection, run_id, event.attempt, None)
            if event.text:
                query = "INSERT INTO logs (run_id, attempt, time, text) VALUES (?, ?, ?, ?)"
                connection.execute(query, (run_id, event.attempt, now(), storable_text(event.text)))
        case Finished():
            end_run(connection, run_id, event.status, event.reason, event.time)
            if event.kept_step is not None:
                connection.execute("UPDATE runs SET boundary = ? WHERE id = ?", (event.kept_step, run_id))
        case Failed():
            end_run(connection, run_id, "failed", None, event.time)
            query = "UPDATE runs SET error_kind = ?, error = ?, traceback = ? WHERE id = ?"
            connection.execute(
                query, (event.kind, storable_text(event.message), storable_text(event.traceback) or None, run_id)
            )


def delete_unfinished_output(connection: sqlite3.Connection, run_id: int, attempt: int, stream: str | None) -> None:
    """Delete the last text of a stream that does not end with a newline; the caller holds a transaction."""
    query = """
        DELETE FROM logs WHERE id = (
            SELECT id FROM logs WHERE run_id = ? AND attempt = ? AND stream IS ? AND substr(text, -1) <> char(10)
            ORDER BY id DESC LIMIT 1
        )
        """
    connection.execute(query, (run_id, attempt, stream))


def _merge_points(first: Points, second: Points) -> Points:
    return Points(
        first.run,
        first.attempt,
        first.metric,
        [*first.steps, *second.steps],
        [*first.times, *second.times],
        [*first.values, *second.values],
    )


def ensure_metric(connection: sqlite3.Connection, name: str) -> int:
    """Return the id of a metric, which is inserted if it does not exist, with the goal that the trainer declares."""
    name = storable_text(name)
    connection.execute("INSERT OR IGNORE INTO metrics (name, goal) VALUES (?, ?)", (name, trainer_goal(name)))
    row: tuple[int] = connection.execute("SELECT id FROM metrics WHERE name = ?", (name,)).fetchone()
    return row[0]
