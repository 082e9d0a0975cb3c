"""Changes of a database, read in short transactions for a mirror on another machine."""

from __future__ import annotations

import math
import sqlite3
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labbench.records import require_key
from labbench.store import schema
from labbench.store.fresh_connection import FreshConnection
from labbench.store.queries.run_sql import FROM_RUNS, IS_LOCAL, REASON, STATUS
from labbench.store.row_checks import OPTIONAL_TEXT, RowCheck
from labbench.system.clock import now

RUN_COLUMNS = (
    "name", "experiment", "identity", "task", "config", "stop", "status", "reason", "attempt", "attempt_ids",
    "boundary", "created", "started", "finished", "heartbeat", "host", "device", "way", "error_kind", "error",
    "traceback", "git_commit", "git_dirty", "versions", "note", "archived", "code_version", "older_code", "external_id",
    "continued_from", "continued_step",
)  # fmt: skip
"""Columns of a run that a mirror has; none of them names a process."""

check_runs = RowCheck("runs", RUN_COLUMNS, {"stop": OPTIONAL_TEXT, "attempt_ids": OPTIONAL_TEXT})

_EXPRESSIONS = {"experiment": "experiments.name", "status": STATUS, "reason": REASON}

POINTS_PER_READ = 20_000
_TEXTS_PER_READ = 500

_SERIES = "run_id = (SELECT id FROM runs WHERE key = ?) AND metric_id = (SELECT id FROM metrics WHERE name = ?)"

_REVISION = f"coalesce((SELECT revision FROM series_revisions WHERE {_SERIES}), 0)"

_check_points = RowCheck("points", ("step", "time_ms", "value"))
_check_texts = RowCheck("logs", ("stream", "text"))
_check_tags = RowCheck("tags", ("tag",))


@dataclass(frozen=True, slots=True)
class SeriesState:
    """State of a series, equal in a database and its mirror if the mirror has all points."""

    n: int
    last_step: int
    revision: int
    """Revision of the last change other than appended points, in the database."""


@dataclass(frozen=True, slots=True)
class RunState:
    """Run without its points and output."""

    key: str
    revision: int
    columns: Mapping[str, Any]
    """Values by the names in `RUN_COLUMNS`."""
    tags: Sequence[str]
    series: Mapping[str, SeriesState]
    """State by metric."""
    goals: Mapping[str, str]
    """Declared goals of its metrics."""
    texts: tuple[int, int]
    """Number and last id of the printed texts."""


class MirroredText(NamedTuple):
    """Printed text of a run."""

    id: int
    """Id in the database that it was printed to."""
    attempt: int
    time: float
    """Unix time in seconds."""
    stream: str | None
    text: str


@dataclass(frozen=True, slots=True)
class MirroredPoints:
    """Points of a series in the order of the steps, shape (N,) each."""

    steps: array[int]
    times: array[int]
    """Milliseconds since the start of the run."""
    values: array[float]


class Changes:
    """Reader of the runs that were recorded in a database; runs that it mirrors itself are left out.

    Every method raises StoreError if the database cannot be read.
    """

    def __init__(self, path: Path, *, all_runs: bool = False) -> None:
        """Open a database. With `all_runs`, runs that it mirrors are not left out. Raises InputError if that fails."""
        self._condition = "1" if all_runs else IS_LOCAL
        self._connection = FreshConnection(path)
        self._version: int | None = None
        self._time_of_version = 0
        """Unix time in milliseconds, in place of the revisions that an older database lacks."""
        self._statuses: dict[str, str] = {}
        """Statuses of the running runs, by key."""

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def revisions(self) -> dict[str, int]:
        """Return the revision of each run by its key."""
        self._set_version(self._connection.version())
        return self._connection.read(lambda connection: self._select(connection, "1"))

    def since(self, revision: int) -> tuple[dict[str, int], list[str]] | None:
        """Return the revisions of the runs that were changed after a revision, and the keys of removed runs.

        Returns None if another file has taken the place of the database, or it has the tables of an older version: then
        `revisions` has to be compared.
        """
        version = self._connection.version()
        if version == self._version:
            return {}, []
        is_same_file = self._version is not None and version >> 64 == self._version >> 64
        self._set_version(version)

        def read(connection: sqlite3.Connection) -> tuple[dict[str, int], list[str]] | None:
            if not is_same_file or schema.read_state(connection) == "older":
                return None
            # a run may be lost without a change of the database
            changed = self._select(connection, f"revision > {revision:d} OR status = 'running'", since=revision)
            removed = "SELECT key FROM removed_runs WHERE revision > ? AND key NOT IN (SELECT key FROM runs)"
            return changed, [require_key(key) for (key,) in connection.execute(removed, (revision,))]

        return self._connection.read(read)

    def _set_version(self, version: int) -> None:
        if version != self._version:
            self._version, self._time_of_version = version, round(1000 * now())

    def _select(self, connection: sqlite3.Connection, condition: str, since: int = -1) -> dict[str, int]:
        """Return the revisions of runs; of unchanged running runs only those that are newly lost."""
        # without revisions, every commit may have changed every run
        revision = "revision" if schema.read_state(connection) != "older" else str(self._time_of_version)
        query = f"SELECT key, {revision}, {STATUS} {FROM_RUNS} WHERE {self._condition} AND ({condition})"
        revisions = {}
        for key, number, status in connection.execute(query):
            if number > since or self._statuses.get(key, status) != status:
                revisions[require_key(key)] = int(number)
            self._statuses[key] = status
        return revisions

    def run(self, key: str) -> RunState | None:
        """Return a run; None if it was removed."""
        return self._connection.read(lambda connection: self._read_run(connection, key))

    def _read_run(self, connection: sqlite3.Connection, key: str) -> RunState | None:
        names = ", ".join(_EXPRESSIONS.get(name, f"runs.{name}") for name in RUN_COLUMNS)
        row = connection.execute(
            f"SELECT runs.id, revision {FROM_RUNS} WHERE key = ? AND {self._condition}", (key,)
        ).fetchone()
        if row is None:
            return None
        run_id, revision = row
        [columns] = check_runs(connection.execute(f"SELECT {names} {FROM_RUNS} WHERE runs.id = ?", (run_id,)))
        tags = _check_tags(connection.execute("SELECT tag FROM tags WHERE run_id = ? ORDER BY tag", (run_id,)))
        query = """
            SELECT metrics.name, metrics.goal, n, last_step, coalesce(series_revisions.revision, 0)
            FROM summary JOIN metrics ON metrics.id = metric_id LEFT JOIN series_revisions USING (run_id, metric_id)
            WHERE run_id = ?
        """
        series = connection.execute(query, (run_id,)).fetchall()
        texts = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM logs WHERE run_id = ?", (run_id,))
        is_older = schema.read_state(connection) == "older"
        return RunState(
            key,
            self._time_of_version if is_older else revision,
            dict(zip(RUN_COLUMNS, columns, strict=True)),
            [tag for (tag,) in tags],
            {metric: SeriesState(*state) for metric, _, *state in series},
            {metric: goal for metric, goal, *_ in series if goal is not None},
            texts.fetchone(),
        )

    def extends(self, key: str, metric: str, held: SeriesState | None) -> bool:
        """Return True if the points of a series start with those that a mirror holds."""
        if held is None:
            return False
        query = f"""
            SELECT n - (SELECT count(*) FROM points WHERE {_SERIES} AND step > ?) FROM summary
            WHERE {_SERIES} AND last_step >= ? AND {_REVISION} = ?
        """
        series = key, metric
        parameters = (*series, held.last_step, *series, held.last_step, *series, held.revision)
        row = self._connection.read(lambda connection: connection.execute(query, parameters).fetchone())
        return row is not None and bool(row[0] == held.n)

    def points(self, key: str, metric: str, after: int | None, revision: int) -> MirroredPoints | None:
        """Return up to `POINTS_PER_READ` points of a series after a step; None if it has another revision."""
        query = f"""
            SELECT step, time_ms, value FROM points WHERE {_SERIES} AND step > ? ORDER BY step LIMIT {POINTS_PER_READ}
        """
        first = -(2**63) if after is None else after  # no point has this step

        def read(connection: sqlite3.Connection) -> MirroredPoints | None:
            if connection.execute(f"SELECT {_REVISION}", (key, metric)).fetchone() != (revision,):
                return None
            rows = _check_points(connection.execute(query, (key, metric, first)))
            return MirroredPoints(
                array("q", [step for step, _, _ in rows]),
                array("q", [time for _, time, _ in rows]),
                array("d", [math.nan if value is None else value for _, _, value in rows]),
            )

        return self._connection.read(read)

    def has_texts(self, key: str, last_id: int, count: int, time: float) -> bool:
        """Return True if the printed texts up to an id are those that a mirror holds."""
        query = """
            SELECT count(*), (SELECT time FROM logs WHERE id = ?) FROM logs
            WHERE run_id = (SELECT id FROM runs WHERE key = ?) AND id <= ?
        """
        parameters = (last_id, key, last_id)
        row = self._connection.read(lambda connection: connection.execute(query, parameters).fetchone())
        return bool(row == (count, time))

    def texts(self, key: str, after: int) -> list[MirroredText]:
        """Return up to 500 printed texts after an id."""
        query = f"""
            SELECT id, attempt, time, stream, text FROM logs
            WHERE run_id = (SELECT id FROM runs WHERE key = ?) AND id > ? ORDER BY id LIMIT {_TEXTS_PER_READ}
        """
        rows = self._connection.read(lambda connection: connection.execute(query, (key, after)).fetchall())
        _check_texts([row[3:] for row in rows])
        return [MirroredText(*row) for row in rows]
