"""Revisions of runs: a run's number increases with each transaction that changes it, so that mirrors find changes.

Triggers of each writing connection note the changed runs in a temporary table, so that no statement can be forgotten.
Points have no trigger: every write of points also writes their summary. New runs have a revision from the start.
"""

from __future__ import annotations

import sqlite3

NEXT_REVISION = """(SELECT max(
    1 + coalesce((SELECT max(revision) FROM runs), 0),
    1 + coalesce((SELECT max(revision) FROM removed_runs), 0),
    CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
))"""
"""SQL of the next revision: the Unix time in milliseconds, so that a database that takes the place of another one has
other revisions; and always more than the last one."""

_OF_RUN = ("summary", "tags", "logs", "artifacts", "run_sources")


def _trigger_sql() -> str:
    """Return SQL that creates the temporary table and the triggers."""
    events = [
        (f"{event} ON main.{table}", f"SELECT {row}.run_id AS changed")
        for table in _OF_RUN
        for event, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old"))
    ]
    events += [
        ("UPDATE ON main.runs WHEN new.revision IS old.revision", "SELECT new.id AS changed"),
        ("UPDATE ON main.experiments", "SELECT id AS changed FROM runs WHERE experiment_id = new.id"),
    ]
    # no OR IGNORE: the conflict clause of the statement that fires a trigger would replace it
    is_new = "NOT EXISTS (SELECT 1 FROM changed_runs WHERE id = changed)"
    triggers = [
        f"CREATE TEMP TRIGGER changed_runs_{number} AFTER {event} "
        f"BEGIN INSERT INTO changed_runs SELECT changed FROM ({rows}) WHERE {is_new}; END;"
        for number, (event, rows) in enumerate(events)
    ]
    return f"""
        CREATE TEMP TABLE changed_runs (id INTEGER PRIMARY KEY);
        {"".join(triggers)}
        CREATE TEMP TRIGGER removed_runs AFTER DELETE ON main.runs
        BEGIN
            INSERT INTO removed_runs (revision, key)
            VALUES (max({NEXT_REVISION}, 1 + coalesce(old.revision, 0)), old.key);
        END;
    """


_TRIGGERS = _trigger_sql()


def watch_changes(connection: sqlite3.Connection) -> None:
    """Note the runs that a connection changes from now on."""
    connection.executescript(_TRIGGERS)


def raise_revisions(connection: sqlite3.Connection) -> None:
    """Raise the revision of the runs that the transaction has changed; call it before every commit."""
    if connection.execute("SELECT 1 FROM temp.changed_runs").fetchone() is None:
        return
    [revision] = connection.execute(f"SELECT {NEXT_REVISION}").fetchone()
    changed = "id IN (SELECT id FROM temp.changed_runs)"
    connection.execute(f"UPDATE main.runs SET revision = ? WHERE {changed}", (revision,))
    connection.execute("DELETE FROM temp.changed_runs")


def mark_rewritten(connection: sqlite3.Connection, run_id: int, metric_id: int | None = None) -> None:
    """Record that points of a series, or of all series of a run, were changed otherwise than by appending.

    Also called for the first points of a series. The caller holds a transaction.
    """
    series = (
        f"SELECT run_id, metric_id, {NEXT_REVISION} FROM summary WHERE run_id = ?"
        if metric_id is None
        else f"VALUES (?, ?, {NEXT_REVISION})"
    )
    parameters = (run_id,) if metric_id is None else (run_id, metric_id)
    connection.execute(f"INSERT OR REPLACE INTO series_revisions (run_id, metric_id, revision) {series}", parameters)
