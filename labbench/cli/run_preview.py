"""`labbench run --dry-run`: what would be trained, how it groups, and about how long it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from labbench.cli.run_report import say_change
from labbench.executors.cpu_count import usable_cpu_count
from labbench.records import NewRun, Status
from labbench.runner.code_changes import CodeChange
from labbench.runner.estimate import estimate_seconds
from labbench.runner.planner import describe_plan
from labbench.runner.run_grid import ExpandedGrid, code_change, preview_stacks
from labbench.store.reader import Reader
from labbench.text import clean, format_duration

NOT_RETRIED_STATUSES: tuple[Status, ...] = ("finished", "diverged", "running", "stopped")
"""What is not trained again, even where failed runs are."""


def print_preview(
    grids: Sequence[tuple[ExpandedGrid, Sequence[str]]],
    db: Path,
    *,
    workers: int | None,
    rerun: bool,
    retry_failed: bool,
    keep_code: bool,
    as_json: bool,
) -> None:
    """The runs of each grid on its devices on stdout, their count, grouping and time on stderr; nothing is changed."""
    changes = [code_change(asked, db, keep=keep_code) for asked, _ in grids]
    due = [
        asked.runs if rerun else missing_runs(asked, db, change, retry_failed=retry_failed)
        for (asked, _), change in zip(grids, changes, strict=True)
    ]
    if as_json:
        runs = [run for some in due for run in some]
        click.echo(json.dumps([{"name": run.name, "config": run.config, "identity": run.identity} for run in runs]))
        return
    for (asked, devices), some, change in zip(grids, due, changes, strict=True):
        if not rerun:
            say_change(clean(asked.grid.name), change)
        for run in some:
            click.echo(clean(run.name))
        print_estimate(asked, some, db, devices, workers=workers, name=f"{clean(asked.grid.name)}: " * (len(grids) > 1))


def print_estimate(
    asked: ExpandedGrid, due: Sequence[NewRun], db: Path, devices: Sequence[str], *, workers: int | None, name: str
) -> None:
    """How many runs there are to train, how they group, and about how long it takes."""
    width = max(1, workers if workers is not None else usable_cpu_count() if devices == ["cpu"] else len(devices))
    stacks = preview_stacks(asked, due, db, devices, workers=width)
    click.echo(f"{name}to train, of {len(asked.runs)}: {describe_plan(stacks)}", err=True)
    if due:
        seconds = estimate_seconds(stacks, devices[0], workers=width)
        about = "no estimate of the time" if seconds is None else f"about {format_duration(seconds)}"
        click.echo(f"{about} on {width} x {devices[0]} (reckoned from an epoch of up to 3 stacks)", err=True)


def missing_runs(asked: ExpandedGrid, db: Path, change: CodeChange, *, retry_failed: bool) -> list[NewRun]:
    """The runs of the grid that `labbench run` would train."""
    if not db.exists():
        return asked.runs
    statuses = NOT_RETRIED_STATUSES if retry_failed else (*NOT_RETRIED_STATUSES, "failed")
    with Reader(db) as reader:
        done = reader.identities(asked.grid.name, statuses=statuses)
    done |= {change.sorting.present[run.id] for run in change.present if run.status in statuses}
    return [run for run in asked.runs if run.identity not in done]
