"""Runs that begin from the final state of a shorter run instead of from the start.

The state is kept with `[runtime] keep = "resume"`. A run continues it if it differs from the shorter run in `epochs`
alone and nothing before the end of the shorter run depends on `epochs`: the result is then the same as from the start.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labbench.files import checkpoint_file, files_folder
from labbench.grid import new_runs
from labbench.grid.code import find_readers
from labbench.params.param import loop_config, with_defaults
from labbench.records import ALL_EPOCHS, NewRun, RunRecord
from labbench.runner.code_changes import CodeChange
from labbench.runner.expanded_grid import ExpandedGrid
from labbench.store.connection import is_new
from labbench.store.reader import Reader
from labbench.store.recording.continuation import Continuation
from labbench.text import format_count
from labbench.train.checkpoint_header import describe_variable, read_checkpoint_state

INDEPENDENT_SCHEDULES = ("constant", "step")
"""Learning-rate schedules that do not depend on `epochs`."""


@dataclass(frozen=True, slots=True)
class ContinuationPlan:
    """Beginnings of the missing runs of a grid that have a shorter run."""

    sources: Mapping[str, Continuation] = field(default_factory=dict)
    """States that runs begin from, by identity of the run."""
    obstacles: Mapping[str, int] = field(default_factory=dict)
    """Number of runs that begin from the start although a shorter run has ended, by reason."""

    def lines(self) -> list[str]:
        """Return lines for the user, such as `24 runs continue runs of 20 epochs`."""
        epochs = Counter(source.epoch for source in self.sources.values())
        lines = [
            f"{format_count(count, 'run')} continue{'s' * (count == 1)} from the end of "
            f"{'a run' if count == 1 else 'runs'} of {format_count(epoch, 'epoch')}"
            for epoch, count in sorted(epochs.items())
        ]
        return lines + [
            f"{format_count(count, 'run')} train{'s' * (count == 1)} from the start: {reason}"
            for reason, count in self.obstacles.items()
        ]


def plan_continuations(expanded: ExpandedGrid, db: Path, change: CodeChange) -> ContinuationPlan:
    """Return the states that the missing runs of a grid begin from.

    `change` is the effect of changed code on the runs in the database, which is only read.

    Raises:
        InputError: A file on which results depend cannot be read.
        StoreError: The database cannot be read.
    """
    if is_new(db) or "epochs" not in expanded.params:
        return ContinuationPlan()
    name, present, older = expanded.grid.name, change.sorting.present, frozenset(change.sorting.older)
    with Reader(db) as reader:
        identities = reader.identities(name).union(present.values())
        missing = [run for run in expanded.runs if run.identity not in identities]
        ended = reader.finished(name) if missing else []
    ended_runs = {present.get(run.id, run.identity): run for run in ended if run.id not in older}
    return _choose_sources(expanded, find_shorter_runs(expanded, missing, ended_runs, db), files_folder(db))


def find_shorter_runs(
    expanded: ExpandedGrid, missing: Sequence[NewRun], ended: Mapping[str, RunRecord], db: Path
) -> list[tuple[NewRun, RunRecord]]:
    """Return pairs of a missing run and a finished run with fewer epochs and no other difference, longest first.

    `ended` has the finished runs by identity.
    """
    default = expanded.params["epochs"].default
    pairs = []
    for epochs in sorted({run.config.get("epochs", default) for run in ended.values()}, reverse=True):
        longer = [run for run in missing if run.config.get("epochs", default) > epochs]
        configs = [{**run.config, "epochs": epochs} for run in longer]
        shorter = new_runs(expanded.grid, configs, expanded.params, files=files_folder(db), code=expanded.code)
        pairs += [
            (run, ended[twin.identity]) for run, twin in zip(longer, shorter, strict=True) if twin.identity in ended
        ]
    return pairs


def _choose_sources(expanded: ExpandedGrid, pairs: Sequence[tuple[NewRun, RunRecord]], files: Path) -> ContinuationPlan:
    """Return for each run the longest shorter run whose state it can continue."""
    keeps_states = expanded.grid.runtime.keep == "resume"
    task_obstacle = next(_task_obstacles(expanded), None) if pairs else None
    sources: dict[str, Continuation] = {}
    reasons: dict[str, str] = {}
    for run, shorter in pairs:
        if run.identity in sources:
            continue
        path = checkpoint_file(files, shorter.key, shorter.boundary)
        if not keeps_states and not path.is_file():
            continue
        reason = task_obstacle or _schedule_obstacle(expanded, run)
        beginning = reason or _read_state(expanded, shorter, path)
        if isinstance(beginning, Continuation):
            sources[run.identity] = beginning
        else:
            reasons.setdefault(run.identity, beginning)
    return ContinuationPlan(sources, Counter(reason for identity, reason in reasons.items() if identity not in sources))


def _task_obstacles(expanded: ExpandedGrid) -> Iterator[str]:
    """Yield the reasons for which no run of the grid can continue a shorter one."""
    if expanded.grid.runtime.keep == "best":
        yield '[runtime] keep = "best" needs the best weights of the shorter runs, which kept their last ones'
    if expanded.code.files:
        folder = Path(expanded.grid.task.rpartition(":")[0]).parent
        if (file := find_readers(folder, list(expanded.code.files), "epochs")) is not None:
            yield f"{file} uses `epochs`"


def _schedule_obstacle(expanded: ExpandedGrid, run: NewRun) -> str | None:
    schedule = loop_config(with_defaults(run.config, expanded.params), expanded.params)["schedule"]
    return None if schedule in INDEPENDENT_SCHEDULES else f"`schedule = {json.dumps(schedule)}` depends on `epochs`"


def _read_state(expanded: ExpandedGrid, shorter: RunRecord, path: Path) -> Continuation | str:
    """Return the state that a run kept, or the reason for which no run can continue it."""
    runtime = expanded.grid.runtime
    if shorter.reason != ALL_EPOCHS:
        return f"the shorter run ended before its last epoch ({shorter.reason})"
    if not path.is_file():
        return 'the shorter run kept no state: it was trained without [runtime] keep = "resume"'
    if runtime.engine not in ("auto", shorter.way):
        return f"[runtime] engine is {runtime.engine}, and the shorter run was trained by {shorter.way}"
    try:
        state = read_checkpoint_state(path)
        if state["lost"]:
            return f"{describe_variable(state['lost'][0])} of the shorter run could not be saved"
        if state["precision"] != runtime.precision:
            return f"[runtime] precision is {runtime.precision}, and the shorter run's was {state['precision']}"
        pending = len(state["recorder"]["losses"])
        return Continuation(shorter.key, state["epoch"], shorter.boundary, pending, shorter.way)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"the state of the shorter run cannot be read ({error})"
