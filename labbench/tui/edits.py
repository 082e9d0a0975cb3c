"""Changes that a person makes to runs: small transactions, each with its words and, where there is one, a way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from labbench import text
from labbench.records import RunRecord
from labbench.store.writer import Action, Writer

DatabaseChange: TypeAlias = Callable[[Writer], None]


@dataclass(frozen=True, slots=True)
class Edit:
    """Something to write."""

    description: str
    """What was done, for a person: `tagged 3 runs`."""
    change: DatabaseChange
    revert: DatabaseChange | None = None
    """What undoes it; None where nothing can."""


def apply_change(path: Path, change: DatabaseChange) -> None:
    """Make a change to the database. Raises InputError and StoreError as a writer does."""
    with Writer(path) as writer:
        change(writer)


def name_runs(runs: Sequence[RunRecord]) -> str:
    """The runs in words: the one's name, or how many they are."""
    return text.clean(runs[0].name) or runs[0].key if len(runs) == 1 else f"{len(runs)} runs"


def tag(runs: Sequence[RunRecord], words: str) -> Edit | None:
    """Put tags on runs and, for words with a `-` in front, take them off; None where nothing would change."""
    asked = words.replace(",", " ").split()
    add = [word.lstrip("+") for word in asked if not word.startswith("-") and word.lstrip("+")]
    remove = [word[1:] for word in asked if word.startswith("-") and word[1:]]
    if not add and not remove:
        return None
    keys, before = [run.key for run in runs], {run.key: set(run.tags) for run in runs}

    def back(writer: Writer) -> None:
        for key, tags in before.items():
            writer.tag([key], add=tags & set(remove), remove=set(add) - tags)

    said = [*(f"+{word}" for word in add), *(f"−{word}" for word in remove)]
    return Edit(f"{text.clean(' '.join(said))}: {name_runs(runs)}", lambda writer: writer.tag(keys, add, remove), back)


def note(runs: Sequence[RunRecord], words: str) -> Edit:
    """Set the note of runs; an empty one takes it away."""
    before = {run.key: run.note or "" for run in runs}

    def change(writer: Writer) -> None:
        for key in before:
            writer.note(key, words)

    def back(writer: Writer) -> None:
        for key, old in before.items():
            writer.note(key, old)

    return Edit(f"{'noted' if words else 'note taken away'}: {name_runs(runs)}", change, back)


def rename(run: RunRecord, name: str) -> Edit:
    """Give a run another name."""
    return Edit(
        f"renamed {name_runs([run])} to {text.clean(name)}",
        lambda writer: writer.rename(run.key, name),
        lambda writer: writer.rename(run.key, run.name),
    )


def archive(runs: Sequence[RunRecord]) -> Edit:
    """Hide runs, or show them again where all of them are hidden."""
    hide = not all(run.archived for run in runs)
    keys = [run.key for run in runs if run.archived != hide]
    return Edit(
        f"{'archived' if hide else 'taken out of the archive'}: {name_runs(runs)}",
        lambda writer: writer.archive(keys, hide),
        lambda writer: writer.archive(keys, not hide),
    )


def remove(runs: Sequence[RunRecord]) -> Edit:
    """Delete runs for good."""
    return Edit(f"deleted {name_runs(runs)}", lambda writer: writer.remove([run.key for run in runs]))


def request(runs: Sequence[RunRecord], action: Action) -> Edit | None:
    """Ask for runs to be stopped or trained again; None where none of them can be."""
    can = ("running", "queued", "lost") if action == "stop" else ("failed", "diverged", "stopped", "lost")
    concerned = [run for run in runs if run.status in can]
    if not concerned:
        return None

    def change(writer: Writer) -> None:
        for run in concerned:
            writer.request(run.key, action)

    said = "asked to stop" if action == "stop" else "back in the queue (its grid trains it when it runs)"
    return Edit(f"{said}: {name_runs(concerned)}", change)
