"""`labbench run --dry-run`: the runs to train, their stacks and an estimate of the time."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from labbench.cli.output import echo
from labbench.cli.run_report import plan_with_notes, print_retry_hints
from labbench.executors import Executor
from labbench.files import database_command
from labbench.records import NewRun, RunRecord, Stack, Status
from labbench.runner.clusters import ExecutorName, cluster_capacity, shipped_files, slurm_script_header
from labbench.runner.code_changes import CodeChange
from labbench.runner.continuation import ContinuationPlan
from labbench.runner.estimate import Estimate, estimate_training
from labbench.runner.expanded_grid import ExpandedGrid
from labbench.runner.planner import describe_plan
from labbench.runner.progress import engine_lines, failure_cause
from labbench.runner.run_grid import (
    TrainingOptions,
    code_change,
    make_planner,
    make_search_plan,
    open_executor,
)
from labbench.runner.search.description import describe_plan as describe_search
from labbench.store.reader import Reader
from labbench.store.recording.continuation import Continuation
from labbench.text import clean, format_count, format_duration

NOT_RETRIED_STATUSES: tuple[Status, ...] = ("finished", "diverged", "running", "stopped")
"""Statuses of runs that are not trained again, even with `--retry-failed`."""


_LEFT_OUT_STATUSES: tuple[Status, ...] = ("failed", "stopped")
"""Statuses of runs that are trained again only if the user asks for it."""

MAX_NAMES = 20
"""Number of names of runs that are printed on a terminal."""


def print_preview(
    grids: Sequence[tuple[ExpandedGrid, Sequence[str]]],
    db: Path,
    options: TrainingOptions,
    *,
    as_json: bool,
) -> bool:
    """Print the runs that `labbench run` would train, and change nothing; return True if measured ones would fail.

    `grids` are pairs (grid, devices). Runs go to stdout, stacks and the estimated time to stderr.
    """
    changes = [code_change(expanded, db, keep=options.keep_code) for expanded, _ in grids]
    due = [
        expanded.runs if options.rerun else missing_runs(expanded, db, change, retry_failed=options.retry_failed)
        for (expanded, _), change in zip(grids, changes, strict=True)
    ]
    if as_json:
        documents = [{"name": run.name, "config": run.config, "identity": run.identity} for runs in due for run in runs]
        echo(json.dumps(documents))
        return False
    would_fail = False
    for (expanded, devices), runs, change in zip(grids, due, changes, strict=True):
        continuations = ContinuationPlan() if options.rerun else plan_with_notes(expanded, db, change)
        search = make_search_plan(expanded, options)
        if search is None:
            print_names([clean(run.name) for run in runs], MAX_NAMES if sys.stdout.isatty() else len(runs))
        else:
            echo("\n".join(describe_search(search)))
        stages = () if search is None else search.stages
        preview = Preview(expanded, runs, continuations, db, devices, options.workers, stages)
        prefix = f"{clean(expanded.grid.name)}: " if len(grids) > 1 else ""
        if options.executor == "local":
            would_fail |= print_estimate(preview, prefix=prefix)
        else:
            print_cluster_plan(preview, options.executor, prefix=prefix)
    return would_fail


def print_names(names: Sequence[str], limit: int) -> None:
    """Print the first names of runs, and on stderr the number of the others: the lines that follow matter more."""
    for name in names[:limit]:
        echo(name)
    if len(names) > limit:
        echo(f"... and {format_count(len(names) - limit, 'more run')} (in a pipe or with --json: all)", err=True)


@dataclass(frozen=True, slots=True)
class Preview:
    """Runs of one grid that would be trained."""

    expanded: ExpandedGrid
    due: Sequence[NewRun]
    continuations: ContinuationPlan
    db: Path
    devices: Sequence[str]
    workers: int | None
    """Value of `--workers`."""
    stages: Sequence[tuple[float, int]] = ()
    """Stages of a search among these runs: number of runs, and of epochs of each."""

    def open_executor(self) -> Executor:
        """Return the executor that would train the runs, without a time limit."""
        grid = self.expanded.grid
        grid = replace(grid, resources=replace(grid.resources, timeout=None))
        return open_executor(self.devices, self.workers, max(1, len(self.due)), grid)

    def estimate(self, stacks: Sequence[Stack], records: Sequence[RunRecord], executor: Executor) -> Estimate:
        """Estimate the time of the stacks of these records, one per due run, in the same order."""
        sources = self.continuations.sources
        done = {
            record.key: sources[run.identity].epoch
            for record, run in zip(records, self.due, strict=True)
            if run.identity in sources
        }
        return estimate_training(stacks, executor, epochs_done=done, stages=self.stages)


def print_estimate(preview: Preview, *, prefix: str) -> bool:
    """Print the number of runs to train, their stacks and the estimated time; return True if measured runs fail."""
    expanded, devices = preview.expanded, preview.devices
    records = preview_records(expanded, preview.due, preview.continuations.sources)
    with closing(preview.open_executor()) as executor:
        stacks = preview_stacks(expanded, records, preview.db, devices, workers=executor.capacity())
        runs = round(sum(count for count, _ in preview.stages)) or len(preview.due)
        plan = format_count(runs, "run") if expanded.grid.command else describe_plan(stacks)
        echo(f"{prefix}to train: {plan} (of {len(expanded.runs)} in the grid)", err=True)
        if expanded.removed:
            echo(f"{prefix}[[require]] removes {format_count(expanded.removed, 'configuration')}", err=True)
        _print_left_out(preview, prefix=prefix)
        if not stacks:
            return False
        if expanded.grid.command:
            echo("no estimate of the time, for which the script would have to be started", err=True)
            return False
        echo("measuring one epoch of up to 3 stacks", err=True)
        estimate = preview.estimate(stacks, records, executor)
        workers = format_count(executor.capacity(), f"{devices[0]} worker")
    for line in engine_lines(estimate.engine_notes):
        echo(f"of the sampled stacks, {line}", err=True)
    for cause, count in Counter(map(failure_cause, estimate.failures)).items():
        echo(f"{prefix}of the sampled stacks, {format_count(count, 'run')} would fail: {clean(cause)}", err=True)
    if estimate.seconds is None:
        echo("no estimate of the time", err=True)
    else:
        echo(
            f"about {format_duration(estimate.seconds)} on {workers} (estimated from one epoch of up to 3 stacks)",
            err=True,
        )
    return bool(estimate.failures)


def _print_left_out(preview: Preview, *, prefix: str) -> None:
    """Print the number of failed and stopped runs that are not trained again, and how to train them."""
    if not preview.db.exists():
        return
    grid, due = preview.expanded.grid, {run.identity for run in preview.due}
    rest = {run.identity for run in preview.expanded.runs} - due
    with Reader(preview.db) as reader:
        counts = {status: len(rest & reader.identities(grid.name, statuses=[status])) for status in _LEFT_OUT_STATUSES}
    if any(counts.values()):
        listed = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        echo(f"{prefix}left out: {listed}", err=True)
        print_retry_hints(clean(grid.name), counts, database_command(preview.db))


def print_cluster_plan(preview: Preview, executor: ExecutorName, *, prefix: str) -> None:
    """Print the number of runs to train on a cluster, their stacks, and the files that are sent to the nodes."""
    expanded = preview.expanded
    records = preview_records(expanded, preview.due, preview.continuations.sources)
    workers = cluster_capacity(expanded.grid.resources, executor)
    stacks = preview_stacks(expanded, records, preview.db, preview.devices, workers=workers)
    echo(f"{prefix}to train: {describe_plan(stacks)} (of {len(expanded.runs)} in the grid)", err=True)
    _print_left_out(preview, prefix=prefix)
    if executor == "ray":
        for path in shipped_files(expanded):
            echo(f"{prefix}sent to the nodes: {clean(str(path))}", err=True)
    elif stacks:
        print_batch_script(preview, len(stacks), prefix=prefix)


def print_batch_script(preview: Preview, n_jobs: int, *, prefix: str) -> None:
    """Print what the jobs of SLURM request and execute before they train."""
    lines = slurm_script_header(preview.expanded.grid.resources, preview.db, n_jobs)
    if lines is None:
        echo(
            f"{prefix}the batch script is written by submitit, which is not installed here: pip install submitit",
            err=True,
        )
        return
    echo(f"{prefix}batch script of the jobs:", err=True)
    for line in lines:
        echo(f"  {clean(line)}", err=True)


def preview_stacks(
    expanded: ExpandedGrid, runs: Sequence[RunRecord], db: Path, devices: Sequence[str], *, workers: int
) -> list[Stack]:
    """Plan stacks of the records that `preview_records` returned, without access to the database."""
    return make_planner(expanded, db, devices, workers)(runs)


def preview_records(
    expanded: ExpandedGrid, runs: Sequence[NewRun], sources: Mapping[str, Continuation]
) -> list[RunRecord]:
    """Return records of runs that are not in a database; `sources` comes from a `ContinuationPlan`."""
    records = []
    for index, run in enumerate(runs):
        record = RunRecord(index, f"preview-{index}", run.name, expanded.grid.name, "queued", run.config)
        if (source := sources.get(run.identity)) is not None:
            record = replace(record, boundary=source.step, way=source.engine)
        records.append(record)
    return records


def missing_runs(expanded: ExpandedGrid, db: Path, change: CodeChange, *, retry_failed: bool) -> list[NewRun]:
    """Return the runs of the grid that `labbench run` would train.

    Raises:
        StoreError: The database cannot be read.
    """
    if not db.exists():
        return expanded.runs
    statuses = NOT_RETRIED_STATUSES if retry_failed else (*NOT_RETRIED_STATUSES, "failed")
    with Reader(db) as reader:
        done = reader.identities(expanded.grid.name, statuses=statuses)
    done |= {change.sorting.present[run.id] for run in change.present if run.status in statuses}
    return [run for run in expanded.runs if run.identity not in done]
