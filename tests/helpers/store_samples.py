"""Runs and points for the tests of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from labbench.files import files_folder
from labbench.records import Finished, NewRun, Points, RunRecord, Submission
from labbench.store.writer import Writer


def new_run(number: int = 0, *, name: str = "", **config: Any) -> NewRun:
    """Return a run whose identity is its number."""
    return NewRun(name or f"run {number}", {"lr": 0.1, "seed": number, **config}, f"{number:064x}")


def queue(
    writer: Writer, runs: Sequence[NewRun] | int = 1, experiment: str = "grid", rerun: bool = False, **options: Any
) -> list[RunRecord]:
    new_runs = [new_run(number) for number in range(runs)] if isinstance(runs, int) else runs
    return writer.queue(Submission(experiment, **{"task": "digits", **options}), new_runs, rerun=rerun)


def start(writer: Writer, runs: Sequence[NewRun] | int = 1, **options: Any) -> list[RunRecord]:
    """Queue runs and claim them for this process."""
    return writer.claim([run.key for run in queue(writer, runs, **options)])


def points(run: RunRecord, metric: str, values: Mapping[int, float] | Sequence[float], *, attempt: int = 0) -> Points:
    """Return points with the given values, by step or from step 0 on, 10 ms per step."""
    series = dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
    times = [10 * step for step in series]
    return Points(run.key, attempt or run.attempt, metric, [*series], times, [*series.values()])


def files_beside(path: Path) -> list[str]:
    """Return the names of the database and of all files whose name starts with it."""
    return sorted(file.name for file in path.parent.glob(f"{path.name}*"))


def write_three_runs(path: Path) -> Path:
    """Create a database of three runs: one finished, with a long series and a file, one stopped, one queued."""
    long_series = np.random.default_rng(0).normal(size=30_000).tolist()
    with Writer(path) as writer:
        a, b, _ = queue(
            writer, [new_run(0, name="a"), new_run(1, name="b"), new_run(2, name="c")],
            metrics={"score": "max"}, sources={"grid": "text of the grid"},
        )  # fmt: skip
        writer.claim([a.key, b.key])
        writer.write(
            [points(a, "score", long_series), points(a, "loss", [float("nan"), 1.0]), points(b, "loss", [3.0])]
        )
        writer.write([Finished(a.key, 1, "finished", "all epochs"), Finished(b.key, 1, "stopped", "by a person")])
        writer.tag([a.key], add=["good"])
        writer.note(a.key, "look here")
        folder = files_folder(path) / a.key
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    return path


def execute(path: Path, statement: str) -> None:
    """Execute a statement that labbench itself would not."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def read_tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables}
