"""Runs and points for the tests of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labbench.records import NewRun, Points, RunRecord, Submission
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
