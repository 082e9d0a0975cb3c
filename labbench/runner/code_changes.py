"""What a change of code means to the runs that an experiment has: which are still good, and which train again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from labbench.errors import InputError
from labbench.grid import Code, Grid, identity
from labbench.grid.code import changed_files
from labbench.grid.identity import former_task_identity, task_identity, with_file_digests
from labbench.params.files import content_digest
from labbench.params.param import Params, own_keys, with_defaults
from labbench.records import NewRun, Status
from labbench.store.queries.code_versions import CodedRun, CodeSorting

_DONE: tuple[Status, ...] = ("finished", "diverged", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class CodeChange:
    """What becomes of the runs that were recorded with other code than a grid has now."""

    sorting: CodeSorting = field(default_factory=CodeSorting)
    files: Sequence[str] = ()
    """The files that have changed since the latest of `outdated` was queued, by name."""
    outdated: Sequence[CodedRun] = ()
    """The ended runs of older code whose set-ups are asked for: these train again."""
    present: Sequence[CodedRun] = ()
    """The runs that `sorting` counts as the present code's."""

    @property
    def seconds(self) -> float | None:
        """How long the outdated runs took to train, all together; None where one's time is not known."""
        times = [run.seconds for run in self.outdated if run.seconds is not None]
        return sum(times) if len(times) == len(self.outdated) else None


def sort_by_code(
    grid: Grid,
    asked: Sequence[NewRun],
    recorded: Sequence[CodedRun],
    *,
    code: Code,
    params: Params,
    files: Path,
    known: frozenset[str],
    keep: bool,
) -> CodeChange:
    """Sort an experiment's runs of other code than `code` for the grid that asks for some of them.

    The present code's are: runs of the first release whose task file is the same to the byte; runs that were queued and
    never began; and with `keep` those that are asked for. All others of the grid's task are of older code. `known` are
    the identities that the experiment has with this code, `files` the folder of the database's files.
    """
    recorded = [run for run in recorded if _is_same_task(run.task, grid.task)]
    wanted = {run.setup: run for run in asked if run.identity not in known}
    setup_of = _identities(grid, params, files)
    # the first release read the keys that are a task's own otherwise: none of its runs is as it would be now
    former = "" if own_keys(params) else former_task_identity(grid) if code.files else code.version
    present: dict[int, str] = {}
    older: dict[int, CodedRun] = {}
    for run in recorded:
        now = setup_of(run, task_identity(grid, code))
        if former and run.code_version is None and now is not None and run.identity == setup_of(run, former):
            present[run.id] = now
        else:
            older[run.id] = run
    taken = set(present.values())
    # the latest of those that ended, before those that did not
    for run in sorted(older.values(), key=lambda run: (run.status in _DONE, run.id), reverse=True):
        match = wanted.get(setup_of(run, "") or "")
        if match is not None and match.identity not in taken and (keep or not run.has_begun):
            present[run.id] = match.identity
            taken.add(match.identity)
            del older[run.id]
    again = {setup for setup, run in wanted.items() if run.identity not in taken}
    latest = {setup_of(run, ""): run for run in older.values() if run.status in _DONE}
    outdated = [run for setup, run in latest.items() if setup in again]
    return CodeChange(
        CodeSorting(code.version, present, tuple(older)),
        # the first release knew of one file alone
        _changed(outdated, code) or ([] if own_keys(params) else list(code.files)[:1]),
        outdated,
        [run for run in recorded if run.id in present],
    )


def _is_same_task(recorded: str, asked: str) -> bool:
    """Return True for one task; its file may have been moved, but not if the old one is still there."""
    if recorded == asked:
        return True
    (old_file, _, old_class), (file, _, name) = recorded.rpartition(":"), asked.rpartition(":")
    is_moved = Path(old_file).name == Path(file).name and not Path(old_file).exists()
    return bool(file) and old_class == name and is_moved


def _identities(grid: Grid, params: Params, files: Path) -> Callable[[CodedRun, str], str | None]:
    """Return the function that computes a recorded run's identity, if a given task had computed it."""
    once = cache(content_digest)

    @cache
    def content(run_id: int) -> dict[str, object] | None:
        try:
            return dict(with_file_digests(grid.task, with_defaults(runs[run_id].config, params), params, once, files))
        except InputError:  # a file that it was made from is gone
            return None

    runs: dict[int, CodedRun] = {}

    def identity_of(run: CodedRun, task: str) -> str | None:
        runs[run.id] = run
        config = content(run.id)
        return None if config is None else identity(task, config, params, run.stop)

    return identity_of


def _changed(outdated: Sequence[CodedRun], code: Code) -> list[str]:
    """The files that differ from those of the latest run, as far as it is known what these were."""
    latest = max(outdated, key=lambda run: run.id, default=None)
    return changed_files(latest.files, code.files) if latest is not None and latest.files else []
