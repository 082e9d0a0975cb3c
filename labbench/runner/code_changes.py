"""Effect of changed code on the runs of an experiment: the runs that stay valid, and those that train again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

from labbench.errors import InputError
from labbench.grid import Code, Grid, identity
from labbench.grid.code import changed_files
from labbench.grid.file_paths import with_absolute_paths
from labbench.grid.identity import former_task_identity, task_identity, with_file_digests
from labbench.params.param import Params, own_keys, with_defaults
from labbench.params.paths import content_digest
from labbench.records import NewRun, Status
from labbench.store.queries.code_versions import CodedRun, CodeSorting

SetupFunction: TypeAlias = Callable[[CodedRun, str], str | None]
"""Returns a run's identity with a given task; None if a file that its config names is gone."""

_DONE: tuple[Status, ...] = ("finished", "diverged", "stopped", "pruned", "failed")


@dataclass(frozen=True, slots=True)
class CodeChange:
    """Runs of a grid that were recorded with code other than its current code."""

    sorting: CodeSorting = field(default_factory=CodeSorting)
    files: Sequence[str] = ()
    """Names of the files that changed since the newest run of `outdated` was queued."""
    outdated: Sequence[CodedRun] = ()
    """Ended runs of older code whose setups are in the grid; these setups train again."""
    present: Sequence[CodedRun] = ()
    """Runs that `sorting` assigns to the current code."""

    @property
    def seconds(self) -> float | None:
        """Total training time of the outdated runs in seconds.

        None if the time of one run is unknown.
        """
        times = [run.seconds for run in self.outdated if run.seconds is not None]
        return sum(times) if len(times) == len(self.outdated) else None


@dataclass(frozen=True, slots=True)
class RecordedRuns:
    """Runs of an experiment in a database."""

    other_code: Sequence[CodedRun]
    """Runs with code other than the grid's current code."""
    identities: frozenset[str]
    """Identities of the experiment's runs of the current code."""
    files: Path
    """Folder of the database's files."""


def sort_by_code(
    grid: Grid,
    new_runs: Sequence[NewRun],
    recorded: RecordedRuns,
    *,
    code: Code,
    params: Params,
    keep: bool,
) -> CodeChange:
    """Sort the runs of an experiment that were recorded with code other than `code`.

    The following runs are assigned to the current code: runs of the first release whose task file has the same bytes,
    requested runs that were queued but never started and, with `keep`, all requested runs. All other runs of the grid's
    task are runs of older code.

    Args:
        grid: Grid file of the experiment.
        new_runs: Runs requested by the grid.
        recorded: Runs of the experiment.
        code: Current code of the grid.
        params: All parameters of the task and the training loop.
        keep: Keep requested runs of older code instead of training them again.
    """
    other_code = [run for run in recorded.other_code if _is_same_task(run.task, grid.task)]
    requested = {run.setup: run for run in new_runs if run.identity not in recorded.identities}
    setup_of = _identities(grid, params, recorded.files)
    # in the first release, the training loop used a task's own keys, so such runs would have other results now
    former = "" if own_keys(params) else former_task_identity(grid) if code.files else code.version
    present = _unchanged_runs(other_code, setup_of, now=task_identity(grid, code), former=former)
    candidates = [run for run in other_code if run.id not in present and (keep or not run.has_begun)]
    present |= _assign_to_requested(candidates, setup_of, requested, set(present.values()))
    older = [run for run in other_code if run.id not in present]
    outdated = _find_outdated(older, setup_of, requested, set(present.values()))
    return CodeChange(
        CodeSorting(code.version, present, tuple(run.id for run in older)),
        # the first release recorded one file only
        _changed(outdated, code) or ([] if own_keys(params) else list(code.files)[:1]),
        outdated,
        [run for run in other_code if run.id in present],
    )


def _unchanged_runs(runs: Sequence[CodedRun], setup_of: SetupFunction, *, now: str, former: str) -> dict[int, str]:
    """Return the runs of the first release whose task file has the same bytes, by id, with their identities `now`."""
    unchanged = {}
    for run in runs:
        setup = setup_of(run, now)
        if former and run.code_version is None and setup is not None and run.identity == setup_of(run, former):
            unchanged[run.id] = setup
    return unchanged


def _assign_to_requested(
    runs: Sequence[CodedRun], setup_of: SetupFunction, requested: Mapping[str, NewRun], assigned: Collection[str]
) -> dict[int, str]:
    """Return the runs that become requested runs, by id, with their identities, except identities `assigned` before."""
    matches, identities = {}, set(assigned)
    # ended runs before others, later runs before earlier ones
    for run in sorted(runs, key=lambda run: (run.status in _DONE, run.id), reverse=True):
        match = requested.get(setup_of(run, "") or "")
        if match is not None and match.identity not in identities:
            matches[run.id] = match.identity
            identities.add(match.identity)
    return matches


def _find_outdated(
    older: Sequence[CodedRun], setup_of: SetupFunction, requested: Mapping[str, NewRun], assigned: Collection[str]
) -> list[CodedRun]:
    """Return the latest ended run of older code for each requested run whose identity is not assigned."""
    to_train = {setup for setup, run in requested.items() if run.identity not in assigned}
    latest = {setup_of(run, ""): run for run in older if run.status in _DONE}
    return [run for setup, run in latest.items() if setup in to_train]


def _is_same_task(recorded: str, present: str) -> bool:
    """Return True if both names refer to the same task.

    The file may have been moved, if the old path no longer exists.
    """
    if recorded == present:
        return True
    (old_file, _, old_class), (file, _, name) = recorded.rpartition(":"), present.rpartition(":")
    is_moved = Path(old_file).name == Path(file).name and not Path(old_file).exists()
    return bool(file) and old_class == name and is_moved


def _identities(grid: Grid, params: Params, files: Path) -> SetupFunction:
    """Return a function that computes a run's identity with a given task."""
    digest = cache(content_digest)

    @cache
    def content(run_id: int) -> dict[str, object] | None:
        try:
            config = with_absolute_paths(grid, with_defaults(runs[run_id].config, params), params)
            return dict(with_file_digests(grid.task, config, params, digest, files))
        except InputError:  # a file that the config names is gone
            return None

    runs: dict[int, CodedRun] = {}

    def identity_of(run: CodedRun, task: str) -> str | None:
        runs[run.id] = run
        config = content(run.id)
        return None if config is None else identity(task, config, params, run.stop)

    return identity_of


def _changed(outdated: Sequence[CodedRun], code: Code) -> list[str]:
    """Return the names of the files that changed since the newest run, if they were recorded."""
    latest = max(outdated, key=lambda run: run.id, default=None)
    return changed_files(latest.files, code.files) if latest is not None and latest.files else []
