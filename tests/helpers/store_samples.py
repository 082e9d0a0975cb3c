"""What the tests of the store share: runs to queue, and a database with some in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labbench.records import NewRun, Points, RunRecord, Submission
from labbench.store.writer import Writer


def new_run(number: int = 0, *, name: str = "", **config: Any) -> NewRun:
    """A run whose identity is told by its number."""
    return NewRun(name or f"run {number}", {"lr": 0.1, "seed": number, **config}, f"{number:064x}")


def queue(
    writer: Writer, runs: Sequence[NewRun] | int = 1, experiment: str = "grid", rerun: bool = False, **options: Any
) -> list[RunRecord]:
    asked = [new_run(number) for number in range(runs)] if isinstance(runs, int) else runs
    return writer.queue(Submission(experiment, **{"task": "digits", **options}), asked, rerun=rerun)


def start(writer: Writer, runs: Sequence[NewRun] | int = 1, **options: Any) -> list[RunRecord]:
    """Runs that this process has queued and claimed."""
    return writer.claim([run.key for run in queue(writer, runs, **options)])


def points(run: RunRecord, metric: str, values: Mapping[int, float] | Sequence[float], *, attempt: int = 0) -> Points:
    """Values by step, or from step 0 on; point after point takes 10 ms."""
    series = dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
    times = [10 * step for step in series]
    return Points(run.key, attempt or run.attempt, metric, [*series], times, [*series.values()])


def files_beside(path: Path) -> list[str]:
    """The names of the database and of everything that begins with its name."""
    return sorted(file.name for file in path.parent.glob(f"{path.name}*"))
