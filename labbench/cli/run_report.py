"""Report at the end of `labbench run`."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from labbench.cli.best_runs import print_best_runs, untrained_note
from labbench.cli.output import echo
from labbench.files import checkpoint_files, database_command, files_folder
from labbench.filters.completion import quote_word
from labbench.json_documents import run_document
from labbench.metrics import quality_metrics
from labbench.records import RunRecord, Status
from labbench.runner.code_changes import CodeChange
from labbench.runner.continuation import ContinuationPlan, plan_continuations
from labbench.runner.expanded_grid import ExpandedGrid
from labbench.runner.run_grid import Outcome, find_former_name
from labbench.runner.search.description import describe_result
from labbench.store.reader import Reader
from labbench.text import clean, format_count, format_duration


def print_report(expanded: ExpandedGrid, outcome: Outcome, db: Path, *, with_table: bool) -> None:
    """Print counts on stderr, the best runs on stdout, and the next command on stderr."""
    with Reader(db) as reader:
        runs, goals = _present_runs(reader, outcome.runs), reader.metrics()
    print_outcome(clean(expanded.grid.name), outcome, database_command(db), runs)
    if outcome.trained and (note := untrained_note(runs)) is not None:
        echo(f"{clean(expanded.grid.name)}: {note}", err=True)
    print_kept_states(expanded, outcome.runs, db)
    for line in [] if outcome.search is None else describe_result(outcome.search, db):
        echo(f"{clean(expanded.grid.name)}: {line}", err=True)
    print_left_in_queue(expanded, db)
    print_unlogged_metric(expanded, outcome, db)
    if not with_table:
        return
    logged = {name for run in runs for name in run.summary}
    declared = [expanded.grid.search.metric] if outcome.search is not None and expanded.grid.search else []
    declared += expanded.grid.metrics
    ranking = [name for name in (*declared, *quality_metrics(logged)) if name in logged]
    metric = next((name for name in ranking if goals[name] != "none"), None)
    if metric is not None:
        print_best_runs(runs, metric, goals, expanded.grid.axis_keys, db)


def print_json(runs: Sequence[RunRecord], db: Path) -> None:
    """Print the current records of these runs as one JSON document."""
    with Reader(db) as reader:
        echo(json.dumps([run_document(run) for run in _present_runs(reader, runs)]))


def _present_runs(reader: Reader, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the current records of the runs, without archived runs."""
    return [run for run in reader.by_keys([run.key for run in runs]) if not run.archived]


def print_outcome(name: str, outcome: Outcome, program: str, runs: Sequence[RunRecord] = ()) -> None:
    """Print on stderr the number of runs by status, and hints on unfinished ones.

    `program` is the command that the hints begin with: labbench, with --db where it is needed. `runs` are the current
    records of the grid's runs.
    """
    if outcome.trained:
        counts = ", ".join(f"{number} {status}" for status, number in outcome.ended.items())
        echo(f"{name}: {counts} in {format_duration(outcome.seconds)}", err=True)
        if outcome.ended.get("failed"):
            failed = [run.key for run in runs if run.status == "failed" and run.key not in outcome.elsewhere]
            echo(f"to see why a run failed: {program} show {failed[0] if failed else 'RUN'}", err=True)
        if outcome.ended.get("diverged"):
            echo(f"to list the diverged runs: {program} ls {_filter_word(name, 'diverged')}", err=True)
    elif not outcome.elsewhere and not outcome.without_driver and not outcome.interrupted:
        by_status = Counter(run.status for run in outcome.runs)
        counts = ", ".join(f"{number} {status}" for status, number in by_status.items())
        echo(f"{name}: nothing to do: {counts}", err=True)
        print_retry_hints(name, by_status, program)
        if by_status["diverged"]:
            echo(f"to list the diverged runs: {program} ls {_filter_word(name, 'diverged')}", err=True)
    if outcome.without_driver:
        verb = "is" if outcome.without_driver == 1 else "are"
        echo(
            f"{name}: {format_count(outcome.without_driver, 'run')} {verb} training in jobs without a driver; "
            "to attach to them: --executor slurm",
            err=True,
        )
    others = Counter(run.status for run in runs if run.key in outcome.elsewhere)
    if others["running"]:
        verb = "is" if others["running"] == 1 else "are"
        echo(f"{name}: {format_count(others['running'], 'run')} {verb} training in another process", err=True)
    if trained := sum(others[status] for status in ("finished", "diverged", "failed", "pruned")):
        verb = "was" if trained == 1 else "were"
        echo(f"{name}: {format_count(trained, 'run')} {verb} trained by another process", err=True)
    if outcome.interrupted:
        echo("interrupted: the same command resumes the unfinished runs", err=True)


def print_retry_hints(name: str, counts: Mapping[Status, int], program: str) -> None:
    """Print on stderr how to train the failed and the stopped runs of an experiment again."""
    if counts.get("failed"):
        echo("to train the failed runs again: --retry-failed", err=True)
    if counts.get("stopped"):
        command = f"{program} retry --filter {_filter_word(name, 'stopped')}"
        echo(f"to train the stopped runs again: {command}, then this command", err=True)


def _filter_word(experiment: str, status: Status) -> str:
    """Return the filter for the runs of an experiment with a status, quoted for the shell."""
    return shlex.quote(f"experiment={quote_word(experiment)} status={status}")


def plan_with_notes(expanded: ExpandedGrid, db: Path, change: CodeChange) -> ContinuationPlan:
    """Plan the continuations of shorter runs, and print notes on earlier runs on stderr."""
    continuations, name = plan_continuations(expanded, db, change), clean(expanded.grid.name)
    print_former_name(expanded.grid.name, find_former_name(expanded, db), database_command(db))
    print_code_change(name, change)
    print_continuations(name, continuations)
    return continuations


def print_former_name(name: str, former: str | None, program: str) -> None:
    """Print on stderr the experiment that has the runs of a grid under another name."""
    if former is not None:
        command = f"{program} rename {shlex.quote(former)} {shlex.quote(name)}"
        echo(f"{name}: the experiment {former} has the same runs; to keep them instead of training again: {command}",
             err=True)  # fmt: skip


def print_code_change(name: str, change: CodeChange) -> None:
    """Print on stderr the changed file, and the runs to train again."""
    if not change.outdated:
        return
    first, *others = change.files or ["its code"]
    changed = clean(first) + (f" and {format_count(len(others), 'other file')} have" if others else " has")
    count = len(change.outdated)
    retrained = f"{format_count(count, 'run')} train{'s' if count == 1 else ''} again"
    about = "" if change.seconds is None else f" (about {format_duration(change.seconds)} of computing)"
    echo(
        f"{name}: {changed} changed: {retrained}{about}, and the recorded ones count as older code; --keep-code takes "
        "them as they are",
        err=True,
    )


def print_continuations(name: str, plan: ContinuationPlan) -> None:
    """Print on stderr how many runs continue shorter ones, and why others do not."""
    for line in plan.lines():
        echo(f"{name}: {clean(line)}", err=True)


def print_kept_states(expanded: ExpandedGrid, runs: Sequence[RunRecord], db: Path) -> None:
    """Print on stderr the number and size of the states that the runs of a grid have kept."""
    if expanded.grid.runtime.keep != "resume":
        return
    states = [path for run in runs for path in checkpoint_files(files_folder(db), run.key)]
    if states:
        megabytes = sum(path.stat().st_size for path in states) / 1e6
        echo(
            f"{clean(expanded.grid.name)}: {format_count(len(states), 'state')} of {megabytes:.1f} MB are kept for "
            f"longer runs; to delete all states: {database_command(db)} vacuum --states",
            err=True,
        )


def print_left_in_queue(expanded: ExpandedGrid, db: Path) -> None:
    """Print on stderr how many queued runs an earlier version of the grid has left, and how to delete them."""
    name = expanded.grid.name
    if expanded.grid.search is not None or not expanded.is_whole:
        return
    with Reader(db) as reader:
        if reader.identities(name, statuses=["queued"]) & {run.identity for run in expanded.runs}:
            return  # no filter separates them from the runs that the next start trains
        count = reader.count(f"experiment={quote_word(name)} status=queued")
    if count:
        verb = "is" if count == 1 else "are"
        echo(
            f"{clean(name)}: {format_count(count, 'queued run')} {verb} not in this grid file any more; to delete "
            f"{'it' if count == 1 else 'them'}: {database_command(db)} rm --filter {_filter_word(name, 'queued')}",
            err=True,
        )


def print_unlogged_metric(expanded: ExpandedGrid, outcome: Outcome, db: Path) -> None:
    """Print on stderr that no script has logged the metric of `[stop]`, if that is so."""
    grid = expanded.grid
    if not outcome.trained or not grid.command or grid.stop is None:
        return
    with Reader(db) as reader:
        runs = reader.by_keys([run.key for run in outcome.runs])
    if not any(grid.stop.metric in run.summary for run in runs):
        metric = clean(grid.stop.metric)
        echo(f"{clean(grid.name)}: no run has logged {metric}, the metric of [stop]: none was stopped early", err=True)
