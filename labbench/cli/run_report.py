"""What `labbench run` says at the end: how the grid came out, its best runs, and what to type next."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from labbench.cli.tables import print_table, run_columns
from labbench.files import database_command
from labbench.json_documents import run_document
from labbench.metrics import quality_metrics
from labbench.records import Goal, RunRecord
from labbench.runner.code_changes import CodeChange
from labbench.runner.run_grid import ExpandedGrid, Outcome
from labbench.store.reader import Reader
from labbench.text import clean, format_duration

MAX_BEST_RUNS = 5
"""How many of the best runs are shown."""


def print_report(asked: ExpandedGrid, outcome: Outcome, db: Path, *, with_table: bool) -> None:
    """Counts on stderr, the best runs on stdout, and the next command to type."""
    base = database_command(db)
    print_outcome(clean(asked.grid.name), outcome, base)
    if not with_table:
        return
    keys = {run.key for run in outcome.runs}
    with Reader(db) as reader:
        runs = [run for run in reader.runs() if run.key in keys]
        goals = reader.metrics()
    metric = next((name for name in (*asked.grid.metrics, *quality_metrics(goals)) if name in goals), None)
    if metric is not None:
        print_table(run_columns(sort_by_best(runs, metric, goals[metric])[:MAX_BEST_RUNS], goals, metrics=[metric]))
        click.echo(f"next: {base}  (the TUI), or {base} plot {metric} --group KEY", err=True)


def print_json(runs: Sequence[RunRecord], db: Path) -> None:
    """These runs, as they have become, as one JSON document."""
    keys = {run.key for run in runs}
    with Reader(db) as reader:
        click.echo(json.dumps([run_document(run) for run in reader.runs() if run.key in keys]))


def print_outcome(name: str, outcome: Outcome, base: str) -> None:
    """How many runs ended how, in words on stderr."""
    if outcome.trained:
        counts = ", ".join(f"{number} {status}" for status, number in outcome.ended.items())
        click.echo(f"{name}: {counts} in {format_duration(outcome.seconds)}", err=True)
        if outcome.ended.get("failed"):
            click.echo(f"why a run failed: {base} show RUN", err=True)
    elif not outcome.elsewhere and not outcome.interrupted:
        stand = Counter(run.status for run in outcome.runs)
        click.echo(f"{name}: nothing to do: {', '.join(f'{n} {status}' for status, n in stand.items())}", err=True)
        if stand["failed"]:
            click.echo("train the failed ones again: --retry-failed", err=True)
    if outcome.elsewhere:
        click.echo(f"{name}: {outcome.elsewhere} runs are being trained by another process", err=True)
    if outcome.interrupted:
        click.echo("interrupted: the same command goes on with what is missing", err=True)


def say_change(name: str, change: CodeChange) -> None:
    """Say on stderr which file has changed, how many runs train again for it, and how long they took before."""
    if not change.outdated:
        return
    first, *others = change.files or ["its code"]
    what = clean(first) + (f" and {len(others)} other file{'s' * (len(others) > 1)} have" if others else " has")
    count = len(change.outdated)
    train = f"{count} run{'s' * (count > 1)} train{'s' * (count == 1)} again"
    about = "" if change.seconds is None else f" (about {format_duration(change.seconds)} of computing)"
    click.echo(
        f"{name}: {what} changed: {train}{about}, and the recorded ones count as older code; --keep-code takes them "
        "as they are",
        err=True,
    )


def sort_by_best(runs: list[RunRecord], metric: str, goal: Goal) -> list[RunRecord]:
    """The runs that have a best value of the metric, best first."""
    bests = {run.key: run.summary[metric].best(goal)[0] for run in runs if metric in run.summary}
    sign = -1.0 if goal == "max" else 1.0
    ranked = [(sign * best, index, run) for index, run in enumerate(runs) if (best := bests.get(run.key)) is not None]
    return [run for *_, run in sorted(ranked, key=lambda row: row[:2])]
