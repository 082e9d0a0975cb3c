"""Checks of databases and folders after an attack; each returns what is wrong in one line, or None."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bench.trust.processes import Place
from labbench.errors import LabbenchError
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader

OTHERS = ("torchinductor_",)
"""Prefixes of temporary folders that libraries keep on purpose."""

Row = tuple[str, str, int, float | None]
"""Name of a run, metric, step and value; None is NaN."""


def first_fault(faults: Iterable[str | None]) -> str | None:
    """Return the first fault, None if there is none; later checks are not made."""
    return next((fault for fault in faults if fault is not None), None)


def database_fault(path: Path) -> str | None:
    """Check the file with SQLite, and summaries, rollups, references and values with labbench."""
    try:
        diagnosis = diagnose(path)
    except LabbenchError as error:
        return f"cannot be read: {error}"
    problems = {
        "damaged": diagnosis.damage, "wrong summaries": diagnosis.wrong, "orphans": diagnosis.orphans,
        "invalid values": diagnosis.invalid, "invalid keys": diagnosis.bad_keys,
        "without experiment": diagnosis.runs_without_experiment, "invalid points": diagnosis.bad_values,
        "invalid configs": diagnosis.bad_configs, "unknown statuses": diagnosis.bad_statuses,
    }  # fmt: skip
    return next((f"{name}: {problem!r:.150}" for name, problem in problems.items() if problem), None)


def read_points(path: Path) -> list[Row]:
    """Return the points of a database except measured times, by name of run, metric and step."""
    query = """
        SELECT runs.name, metrics.name, step, value FROM points
        JOIN runs ON runs.id = run_id JOIN metrics ON metrics.id = metric_id
        WHERE metrics.name NOT LIKE 'time/%' ORDER BY 1, 2, 3
    """
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def points_fault(path: Path, expected: list[Row], *, tolerance: float = 0.0) -> str | None:
    """Compare the points of a database with those expected, exactly or up to a relative or absolute `tolerance`.

    A stack of fewer runs, after an interruption, gives other values in the last digits, which training amplifies.
    """
    actual = {row[:3]: row[3] for row in read_points(path)}
    values = {row[:3]: row[3] for row in expected}
    missing, extra = values.keys() - actual.keys(), actual.keys() - values.keys()
    if missing or extra:
        return f"{len(missing)} points missing, {len(extra)} points too many, of {len(values)}"
    differing = [place for place, value in values.items() if not _is_close(value, actual[place], tolerance)]
    return f"{len(differing)} of {len(values)} values differ, such as {differing[0]}" if differing else None


def _is_close(value: float | None, other: float | None, tolerance: float) -> bool:
    if value is None or other is None:
        return value is other
    return value == other or math.isclose(value, other, rel_tol=tolerance, abs_tol=tolerance)


def statuses(path: Path) -> dict[str, str]:
    """Return the status of each run by name."""
    with Reader(path) as reader:
        return {run.name: run.status for run in reader.runs()}


def status_fault(path: Path, expected: str, *, but: Iterable[str] = ()) -> str | None:
    """Check that all runs have a status, except those named in `but`."""
    wrong = {name: status for name, status in statuses(path).items() if status != expected and name not in set(but)}
    return f"runs are not {expected}: {wrong!r:.150}" if wrong else None


def leftover_fault(place: Place, database: Path) -> str | None:
    """Look for processes, temporary files, and files beside the database that a command left behind."""
    if survivors := place.survivors():
        return f"processes left: {survivors!r:.200}"
    names = [path.name for path in database.parent.glob(f"{database.name}-*")]
    names += [path.name for path in database.parent.glob(f"{database.name}.spilled-*")]
    names += [str(path.relative_to(place.folder)) for path in place.folder.rglob(".labbench-*")]
    names += [
        str(path.relative_to(place.temporary))
        for path in place.temporary.rglob("*")
        if not path.relative_to(place.temporary).parts[0].startswith(OTHERS)
    ]
    return f"files left: {sorted(names)!r:.200}" if names else None
