"""Mirror: copies of the runs of another database, which are updated by what has changed there.

What arrives comes from another machine, so every value is checked before it is written. Tags, notes and names that were
edited here stay.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from labbench.errors import StoreError
from labbench.store.queries.run_sql import storable_text
from labbench.store.recording.events import ensure_metric
from labbench.store.recording.queue import SqlValue, add_tags, ensure_experiment, insert_run
from labbench.store.row_checks import read_json_object
from labbench.store.series import overview
from labbench.store.series.points import add_points
from labbench.store.sharing.changes import RUN_COLUMNS, MirroredPoints, MirroredText, RunState, SeriesState, check_runs
from labbench.store.writer import Writer

_INCOMPLETE = -1
"""Revision of a run that is not completely mirrored, and of a series that is to be sent as a whole."""


@dataclass(frozen=True, slots=True)
class HeldRun:
    """Run as a mirror holds it."""

    id: int
    series: Mapping[str, SeriesState]
    """State by metric, with the revisions of the source."""
    text_id: int
    """Id in the source of the last printed text that is mirrored for good."""
    text_count: int
    """Number of printed texts that are mirrored for good."""
    text_time: float


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """Points of a series of a run."""

    run_id: int
    metric: str
    revision: int
    """Revision of the series in the source."""
    points: MirroredPoints
    is_first: bool
    """True if the points take the place of all that the mirror holds."""


@dataclass(frozen=True, slots=True)
class _Edits:
    """Values of a run that people edit."""

    name: str
    note: str | None
    archived: int
    tags: tuple[str, ...]


class MirrorWriter(Writer):
    """Writer of the runs that are mirrored from one source; every method is one transaction."""

    def held_revisions(self, source: str) -> dict[str, int]:
        """Return the revision in the source of each mirrored run, by its key there."""
        query = """
            SELECT remote_key, remote_revision FROM mirrored_runs JOIN runs ON runs.id = run_id WHERE runs.source = ?
        """
        with self._transaction() as connection:
            return dict(connection.execute(query, (source,)).fetchall())

    def update_runs(self, source: str, states: Iterable[RunState]) -> dict[str, HeldRun]:
        """Insert or update runs, without their points and output, and return them by their keys in the source."""
        with self._transaction() as connection:
            return {state.key: _update_run(connection, source, state) for state in states}

    def add(self, parts: Iterable[SeriesPart]) -> None:
        """Add points."""
        with self._transaction() as connection:
            for part in parts:
                metric_id = ensure_metric(connection, part.metric)
                series = part.run_id, metric_id
                if part.is_first:
                    _delete_series(connection, *series)
                points = part.points
                add_points(connection, *series, points.steps, points.times, points.values)
                query = "INSERT OR REPLACE INTO mirrored_series (run_id, metric_id, remote_revision) VALUES (?, ?, ?)"
                connection.execute(query, (*series, part.revision))

    def set_texts(self, run: HeldRun, texts: Sequence[MirroredText], attempt: int, *, append: bool) -> None:
        """Add printed texts behind those that are mirrored for good, or, without `append`, in place of all texts.

        `attempt` is the last attempt of the run: in an earlier one, no text changes any more.
        """
        count, last_id, last_time = (run.text_count, run.text_id, run.text_time) if append else (0, 0, 0.0)
        with self._transaction() as connection:
            stay = "SELECT id FROM logs WHERE run_id = ? ORDER BY id LIMIT ?"
            connection.execute(f"DELETE FROM logs WHERE run_id = ? AND id NOT IN ({stay})", (run.id, run.id, count))
            rows = [(run.id, text.attempt, text.time, text.stream, storable_text(text.text)) for text in texts]
            query = "INSERT INTO logs (run_id, attempt, time, stream, text) VALUES (?, ?, ?, ?, ?)"
            connection.executemany(query, rows)
            for text in texts:
                if text.attempt >= attempt and not text.text.endswith("\n"):
                    break  # lines that may still change
                count, last_id, last_time = count + 1, text.id, text.time
            query = "UPDATE mirrored_runs SET log_id = ?, log_count = ?, log_time = ? WHERE run_id = ?"
            connection.execute(query, (last_id, count, last_time, run.id))

    def complete(self, revisions: Mapping[int, int]) -> None:
        """Record the mirrored revision of each run, by id, as numbered in the source."""
        with self._transaction() as connection:
            for run_id, revision in revisions.items():
                query = "UPDATE mirrored_runs SET remote_revision = ? WHERE run_id = ?"
                connection.execute(query, (revision, run_id))
                overview.complete(connection, run_id)

    def remove_mirrored(self, source: str, keys: Iterable[str]) -> int:
        """Delete the runs with these keys in the source, and return their number."""
        query = "SELECT key FROM mirrored_runs JOIN runs ON runs.id = run_id WHERE runs.source = ? AND remote_key = ?"
        with self._transaction() as connection:
            local = [key for remote in keys for (key,) in connection.execute(query, (source, remote))]
        if local:
            self.remove(local)
        return len(local)


def _update_run(connection: sqlite3.Connection, source: str, state: RunState) -> HeldRun:
    """Insert or update the row and the tags of a run, and delete the series that it has no more."""
    columns = _checked_columns(state)
    edits = _Edits(
        state.columns["name"], state.columns["note"], state.columns["archived"], tuple(map(storable_text, state.tags))
    )
    row = connection.execute(
        "SELECT run_id, edits, attempt FROM mirrored_runs JOIN runs ON runs.id = run_id "
        "WHERE runs.source = ? AND remote_key = ?",
        (source, state.key),
    ).fetchone()
    if row is None:
        experiment_id = ensure_experiment(connection, str(columns.pop("experiment")))
        own: dict[str, SqlValue] = {
            "key": state.key,
            "experiment_id": experiment_id,
            "source": source,
            "origin": "mirror",
        }
        run_id, _ = insert_run(connection, {**columns, **own})
        add_tags(connection, [run_id], edits.tags)
        query = "INSERT INTO mirrored_runs VALUES (?, ?, ?, ?, 0, 0, 0)"
        connection.execute(query, (run_id, state.key, _INCOMPLETE, json.dumps(asdict(edits))))
    else:
        run_id, mirrored, attempt = row
        _update_row(connection, run_id, columns, edits, _Edits(**json.loads(mirrored)))
        if attempt != columns["attempt"]:
            query = "UPDATE mirrored_series SET remote_revision = ? WHERE run_id = ?"
            connection.execute(query, (_INCOMPLETE, run_id))
        query = "UPDATE mirrored_runs SET remote_revision = ?, edits = ? WHERE run_id = ?"
        connection.execute(query, (_INCOMPLETE, json.dumps(asdict(edits)), run_id))
    for metric, goal in state.goals.items():
        query = "UPDATE metrics SET goal = coalesce(goal, ?) WHERE id = ?"
        connection.execute(query, (goal, ensure_metric(connection, metric)))
    return _held_run(connection, run_id, state)


def _checked_columns(state: RunState) -> dict[str, SqlValue]:
    """Return the columns of a run. Raises StoreError for a value that labbench does not write."""
    columns = dict(state.columns)
    check_runs([tuple(columns[name] for name in RUN_COLUMNS)])
    read_json_object(columns["config"], "runs", "config")
    read_json_object(columns["versions"], "runs", "versions")
    if columns["stop"] is not None:
        read_json_object(columns["stop"], "runs", "stop")
    for name, value in columns.items():
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise StoreError(f"the column {name} of the table runs has the value {str(value)[:60]}, which is too large")
    return columns


def _update_row(
    connection: sqlite3.Connection, run_id: int, columns: dict[str, SqlValue], edits: _Edits, mirrored: _Edits
) -> None:
    """Update the row and the tags of a run; what was edited here since the last time stays as it is."""
    columns = {name: storable_text(value) if isinstance(value, str) else value for name, value in columns.items()}
    columns["experiment_id"] = ensure_experiment(connection, str(columns.pop("experiment")))
    here = connection.execute("SELECT name, note, archived FROM runs WHERE id = ?", (run_id,)).fetchone()
    for name, value in zip(("name", "note", "archived"), here, strict=True):
        if value != getattr(mirrored, name):
            del columns[name]
    names = ", ".join(f"{name} = ?" for name in columns)
    connection.execute(f"UPDATE runs SET {names} WHERE id = ?", (*columns.values(), run_id))
    add_tags(connection, [run_id], set(edits.tags) - set(mirrored.tags))
    removed = [(run_id, tag) for tag in set(mirrored.tags) - set(edits.tags)]
    connection.executemany("DELETE FROM tags WHERE run_id = ? AND tag = ?", removed)


def _held_run(connection: sqlite3.Connection, run_id: int, state: RunState) -> HeldRun:
    """Return what the mirror holds of a run, after the deletion of the series that it has no more."""
    query = """
        SELECT metrics.name, metric_id, n, last_step, coalesce(mirrored_series.remote_revision, ?)
        FROM summary JOIN metrics ON metrics.id = metric_id LEFT JOIN mirrored_series USING (run_id, metric_id)
        WHERE run_id = ?
    """
    series = {}
    for metric, metric_id, *numbers in connection.execute(query, (_INCOMPLETE, run_id)).fetchall():
        if metric in state.series:
            series[metric] = SeriesState(*numbers)
        else:
            _delete_series(connection, run_id, metric_id)
    query = "SELECT log_id, log_count, log_time FROM mirrored_runs WHERE run_id = ?"
    return HeldRun(run_id, series, *connection.execute(query, (run_id,)).fetchone())


def _delete_series(connection: sqlite3.Connection, run_id: int, metric_id: int) -> None:
    for table in ("points", "summary", "rollup", "overview", "mirrored_series"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND metric_id = ?", (run_id, metric_id))
