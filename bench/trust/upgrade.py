"""Databases of every schema that labbench had, read as they are and upgraded by a first writer.

The oldest database of the tests is brought to each later schema by its migrations, so that none is missing; those that
earlier releases wrote are read, too.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from bench.trust.checks import Row, database_fault, first_fault, points_fault, read_points
from bench.trust.processes import Place
from bench.trust.results import Outcome
from labbench.store import schema

DATABASES = Path(__file__).parents[2] / "tests" / "databases"
READERS = (
    "ls",
    "ls --json",
    "export",
    "export --summary",
    "why val/loss",
    "plot val/loss",
    "doctor",
    "show KEY",
    "compare KEY KEY",
)
WRITERS = ("tag KEY --add seen", "note KEY x", "vacuum", "doctor --fix", "import labbench OTHER", "define val/loss min")

N_TRIALS = len(schema.MIGRATIONS) + len(list(DATABASES.glob("*.db")))


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial: one schema, read and written by every command."""
    fixtures = sorted(DATABASES.glob("*.db"))
    names = [*schema.MIGRATIONS]

    def run_trial(_: int, number: int) -> Iterator[Outcome]:
        place = Place(folder / "work").make()
        sample = place.folder / "sample.db"
        if number < len(names):
            name = names[number]
            shutil.copy(DATABASES / "initial.db", sample)
            migrate(sample, names[1 : number + 1])
        else:
            name = f"file {fixtures[number - len(names)].stem}"
            shutil.copy(fixtures[number - len(names)], sample)
        yield from _outcomes(place, sample, name)
        shutil.rmtree(place.folder)

    return run_trial


def migrate(database: Path, names: list[str]) -> None:
    """Apply migrations to a database of the initial schema."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for name in names:
            for statement in schema.statements(schema._SCRIPTS[name]):
                connection.execute(statement)
            query = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, '')"
            connection.execute(query, (schema.MIGRATION_SET, name))


def _outcomes(place: Place, sample: Path, name: str) -> Iterator[Outcome]:
    with closing(sqlite3.connect(sample)) as connection:
        [key] = connection.execute("SELECT key FROM runs ORDER BY id").fetchone()
    points, content = read_points(sample), sample.read_bytes()
    for command in (*READERS, *WRITERS):
        shutil.copy(sample, place.folder / "runs.db")
        words = [{"KEY": key, "OTHER": str(sample)}.get(word, word) for word in command.split()]
        fault = _fault_of_command(place, words, points)
        is_reader = command in READERS
        if fault is None and is_reader and (place.folder / "runs.db").read_bytes() != content:
            fault = "a reader changed the database"
        yield Outcome(f"schema {name}: {'read' if is_reader else 'written'}", fault and f"{command}: {fault}")
        (place.folder / "runs.db").unlink()


def _fault_of_command(place: Place, words: list[str], points: list[Row]) -> str | None:
    ended = place.labbench(*words)
    database = place.folder / "runs.db"
    return first_fault(
        check()
        for check in (
            lambda: ended.fault((0, 1) if words == ["doctor"] else (0,)),  # 1: the schema is older
            lambda: points_fault(database, points),
            lambda: database_fault(database),
        )
    )
