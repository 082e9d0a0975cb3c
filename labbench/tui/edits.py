"""Edits of runs: small transactions, each with a description and, if possible, a revert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from labbench import text
from labbench.records import RunRecord

if TYPE_CHECKING:
    from labbench.store.recording.queue import Action
    from labbench.store.writer import Writer

DatabaseChange: TypeAlias = "Callable[[Writer], None]"


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to the database."""

    description: str
    """Message after the edit: `+best: 3 runs`."""
    change: DatabaseChange
    revert: DatabaseChange | None = None
    """The change that undoes it; None if it cannot be undone."""


def apply_change(path: Path, change: DatabaseChange) -> None:
    """Apply a change to the database. Raises InputError and StoreError as `Writer` does."""
    from labbench.store.writer import Writer  # most sessions write nothing

    with Writer(path) as writer:
        change(writer)


def name_runs(runs: Sequence[RunRecord]) -> str:
    """Return the name of a single run, or the number of runs."""
    return text.clean(runs[0].name) or runs[0].key if len(runs) == 1 else f"{len(runs)} runs"


def tag(runs: Sequence[RunRecord], words: str) -> Edit | None:
    """Add tags to runs and remove those with a leading `-`; return None if `words` names no tag."""
    tags = words.replace(",", " ").split()
    add = [word.lstrip("+") for word in tags if not word.startswith("-") and word.lstrip("+")]
    remove = [word[1:] for word in tags if word.startswith("-") and word[1:]]
    if not add and not remove:
        return None
    keys, before = [run.key for run in runs], {run.key: set(run.tags) for run in runs}

    def revert(writer: Writer) -> None:
        for key, tags in before.items():
            writer.tag([key], add=tags & set(remove), remove=set(add) - tags)

    changes = " ".join([*(f"+{word}" for word in add), *(f"−{word}" for word in remove)])
    return Edit(f"{text.clean(changes)}: {name_runs(runs)}", lambda writer: writer.tag(keys, add, remove), revert)


def note(runs: Sequence[RunRecord], words: str) -> Edit:
    """Set the note of runs; an empty note removes it."""
    before = {run.key: run.note or "" for run in runs}

    def change(writer: Writer) -> None:
        for key in before:
            writer.note(key, words)

    def revert(writer: Writer) -> None:
        for key, old in before.items():
            writer.note(key, old)

    return Edit(f"{'note set' if words else 'note removed'}: {name_runs(runs)}", change, revert)


def rename(run: RunRecord, name: str) -> Edit:
    """Rename a run."""
    return Edit(
        f"renamed {name_runs([run])} to {text.clean(name)}",
        lambda writer: writer.rename(run.key, name),
        lambda writer: writer.rename(run.key, run.name),
    )


def archive(runs: Sequence[RunRecord]) -> Edit:
    """Archive (hide) runs, or unarchive them if all of them are archived."""
    hide = not all(run.archived for run in runs)
    keys = [run.key for run in runs if run.archived != hide]
    return Edit(
        f"{'archived' if hide else 'unarchived'}: {name_runs(runs)}",
        lambda writer: writer.archive(keys, hide),
        lambda writer: writer.archive(keys, not hide),
    )


def remove(runs: Sequence[RunRecord]) -> Edit:
    """Delete runs permanently."""
    return Edit(f"deleted {name_runs(runs)}", lambda writer: writer.remove([run.key for run in runs]))


def stoppable_runs(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs that a request to stop applies to."""
    return [run for run in runs if run.status in ("running", "queued", "lost")]


def stop(runs: Sequence[RunRecord]) -> Edit:
    """Request to stop runs."""
    return _request(runs, "stop", "stop requested")


def retry(runs: Sequence[RunRecord]) -> Edit | None:
    """Request to retry runs; return None if none of them has failed, diverged, been stopped, pruned or lost."""
    matching = [run for run in runs if run.status in ("failed", "diverged", "stopped", "pruned", "lost")]
    return _request(matching, "retry", "queued again (running its grid retries it)") if matching else None


def _request(runs: Sequence[RunRecord], action: Action, done: str) -> Edit:
    def change(writer: Writer) -> None:
        for run in runs:
            writer.request(run.key, action)

    return Edit(f"{done}: {name_runs(runs)}", change)
