"""Queueing of the runs of a grid: what they have in common, and the texts that document their code."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from labbench.grid import Code, Grid
from labbench.metrics import Goal
from labbench.records import GRID_COMMAND, RunRecord, Submission
from labbench.runner.code_changes import CodeChange
from labbench.runner.continuation import ContinuationPlan
from labbench.runner.expanded_grid import ExpandedGrid
from labbench.store.writer import Writer
from labbench.system.provenance import Provenance


def queue_runs(
    writer: Writer,
    expanded: ExpandedGrid,
    change: CodeChange,
    source: Provenance,
    continuations: ContinuationPlan,
    *,
    rerun: bool,
) -> list[RunRecord]:
    """Queue the missing runs of a grid; return the records of all its runs, with the configs of the grid."""
    writer.sort_by_code(expanded.grid.name, replace(change.sorting, code_version=expanded.code.version))
    submission = make_submission(expanded, source)
    queued = writer.queue(submission, expanded.runs, rerun=rerun, continuations=continuations.sources)
    # train the configs of the grid, whatever the database holds for existing runs
    return [replace(run, config=new.config) for run, new in zip(queued, expanded.runs, strict=True)]


def make_submission(expanded: ExpandedGrid, source: Provenance) -> Submission:
    """Return the properties that all runs of the grid have in common."""
    grid = expanded.grid
    searched: dict[str, Goal] = {} if grid.search is None else {grid.search.metric: grid.search.goal}
    return Submission(
        grid.name,
        grid.task,
        metrics={**grid.metrics, **searched},
        stop=grid.stop,
        sources=source_texts(grid, source, expanded.code),
        code_version=expanded.code.version,
    )


def source_texts(grid: Grid, source: Provenance, code: Code) -> dict[str, str]:
    """Return the texts that document the code of a result, by kind: grid, command, diff, code, task."""
    texts = {"grid": grid.source.text, "command": _command(grid), "diff": source.git_diff, "code": code.text}
    file, _, _ = grid.task.rpartition(":")
    if file:
        texts["task"] = Path(file).read_text(errors="replace")
    return {name: text for name, text in texts.items() if text}


def _command(grid: Grid) -> str:
    """Return the command line that trains the grid, with the absolute path of its file."""
    overrides = [f"--set {shlex.quote(override)}" for override in grid.source.overrides]
    return GRID_COMMAND + " ".join([shlex.quote(str(Path(grid.source.file).absolute())), *overrides])
