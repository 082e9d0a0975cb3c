"""Base screen with keys that edit runs: tag, note, rename, archive, delete, stop, retry, copy.

An edit applies to the highlighted run or, if that run is marked, to all marked runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias, TypeVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message

from labbench import text
from labbench.records import RunRecord
from labbench.training_command import training_command
from labbench.tui import clipboard, edits, queries, run_values
from labbench.tui.edits import name_runs
from labbench.tui.screens.base import DataScreen
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.prompt import Confirmation, Prompt

Result = TypeVar("Result")
RunsCallback: TypeAlias = Callable[[Sequence[RunRecord]], None]
_MAX_NAMED_RUNS = 6


class EditScreen(DataScreen[Result]):
    """Screen of runs that can be edited."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "tag", "tag", show=False, tooltip="Tag runs, or remove tags"),
        Binding("N", "note", "note", show=False, tooltip="Write a note on a run"),
        Binding("R", "rename", "rename", show=False, tooltip="Rename a run"),
        Binding("A", "archive", "archive", show=False, tooltip="Archive (hide) runs, or unarchive them"),
        Binding("D", "delete", "delete", show=False, tooltip="Delete runs permanently (asks first)"),
        Binding("r", "retry", "retry", show=False, tooltip="Retry failed, diverged, stopped, pruned or lost runs"),
        Binding("K", "stop", "stop", show=False, tooltip="Stop (kill) running or queued runs (asks first)"),
        Binding("Y", "copy", "copy", show=False, tooltip="Copy cell, key, command or the view as CSV"),
    ]

    class SelectionLoaded(Message):
        """The runs of an edit were read."""

        def __init__(self, runs: Sequence[RunRecord], then: RunsCallback) -> None:
            self.runs, self.then = runs, then
            super().__init__()

    class CopyRequested(Message):
        """The highlighted run was read, to copy a part of it or the command recorded with it."""

        def __init__(self, run: RunRecord, command: str) -> None:
            self.run, self.command = run, command
            super().__init__()

    def selected_keys(self) -> Sequence[str]:
        """Return the keys of the runs that an edit applies to."""
        raise NotImplementedError

    def copy_choices(self, run: RunRecord, recorded_command: str) -> list[tuple[str, str]]:
        """Return the texts that can be copied from a run, as (text, description)."""
        command = training_command(run, self.session.path, recorded_command)
        return [(run.key, "key"), (run.name, "name"), (command, "training command")]

    def load_selection(self, keys: Sequence[str], then: RunsCallback) -> None:
        """Read these runs and pass them to `then`."""
        if keys:
            self._read_selection(list(keys), then)

    @work(thread=True, group="selection")
    def _read_selection(self, keys: list[str], then: RunsCallback) -> None:
        self.post_result(lambda: self.SelectionLoaded(queries.read_records(self.session.path, keys), then))

    @on(SelectionLoaded)
    def _use_selection(self, event: SelectionLoaded) -> None:
        if event.runs:
            event.then(event.runs)

    def action_tag(self) -> None:
        self.load_selection(self.selected_keys(), self._ask_tags)

    def _ask_tags(self, runs: Sequence[RunRecord]) -> None:
        present = sorted({tag for run in runs for tag in run.tags})
        hint = "word adds a tag, -word removes it" + (f"   tags now: {' '.join(present)}" if present else "")

        def apply(words: str | None) -> None:
            if words:
                self.edit(edits.tag(runs, words), otherwise="no tag was entered")

        self.app.push_screen(Prompt(f"tag {name_runs(runs)}", hint=text.clean(hint)), apply)

    def action_note(self) -> None:
        self.load_selection(self.selected_keys(), self._ask_note)

    def _ask_note(self, runs: Sequence[RunRecord]) -> None:
        def apply(words: str | None) -> None:
            if words is not None and words != note:
                self.edit(edits.note(runs, words))

        note = text.clean(runs[0].note or "") if len(runs) == 1 else ""
        hint = "leave empty to remove the note"
        self.app.push_screen(Prompt(f"note: {name_runs(runs)}", value=note, hint=hint), apply)

    def action_rename(self) -> None:
        self.load_selection(self.selected_keys()[:1], self._ask_name)

    def _ask_name(self, runs: Sequence[RunRecord]) -> None:
        [run] = runs

        def apply(name: str | None) -> None:
            if name and name != present:
                self.edit(edits.rename(run, name))

        present = text.clean(run.name)
        self.app.push_screen(Prompt(f"rename {name_runs(runs)}", value=present), apply)

    def action_archive(self) -> None:
        self.load_selection(self.selected_keys(), lambda runs: self.edit(edits.archive(runs)))

    def action_delete(self) -> None:
        self.load_selection(self.selected_keys(), self._ask_delete)

    def _ask_delete(self, runs: Sequence[RunRecord]) -> None:
        if any(run.status == "running" and run.source is None for run in runs):
            self.notify("a running run cannot be deleted: press K to stop it first", severity="warning", markup=False)
            return
        question = f"delete {name_runs(runs)}, their numbers and files?"
        dialog = Confirmation(question, details=_list_names(runs), yes="delete permanently", no="keep")
        self.app.push_screen(dialog, lambda yes: self.edit(edits.remove(runs)) if yes else None)

    def action_retry(self) -> None:
        none = "no selected run is failed, diverged, stopped, pruned or lost"
        self.load_selection(self.selected_keys(), lambda runs: self.edit(edits.retry(runs), otherwise=none))

    def action_stop(self) -> None:
        self.load_selection(self.selected_keys(), self._ask_stop)

    def _ask_stop(self, runs: Sequence[RunRecord]) -> None:
        stoppable = edits.stoppable_runs(runs)
        if not stoppable:
            self.notify("no selected run is running or queued", markup=False)
            return
        question = f"stop {name_runs(stoppable)}?"
        dialog = Confirmation(question, details=_list_names(stoppable), yes="stop", no="continue")
        self.app.push_screen(dialog, lambda yes: self.edit(edits.stop(stoppable)) if yes else None)

    def action_copy(self) -> None:
        if keys := self.selected_keys():
            self._read_copied_run(keys[0])

    @work(thread=True, group="selection")
    def _read_copied_run(self, key: str) -> None:
        self.post_result(lambda: self.CopyRequested(*run_values.read_run_with_command(self.session.path, key)))

    @on(CopyRequested)
    def _ask_copy(self, event: CopyRequested) -> None:
        copies = self.copy_choices(event.run, event.command)
        choices = [(str(index), f"{name}   {text.clean(value)}"[:200]) for index, (value, name) in enumerate(copies)]
        choices.append(("csv", "view as CSV"))

        def apply(index: str | None) -> None:
            if index == "csv":
                self.read_rows(self.view(), lambda rows: self.copy(clipboard.format_csv(rows), "view as CSV"))
            elif index is not None:
                value, name = copies[int(index)]
                self.copy(value, name)

        self.app.push_screen(Picker("copy", choices), apply)

    def copy(self, value: str, name: str) -> None:
        """Copy text to the clipboard of the user's terminal."""
        self.app.copy_to_clipboard(value.encode(errors="backslashreplace").decode())  # a lone surrogate cannot be sent
        self.notify(f"copied: {name}", markup=False, timeout=2)


def _list_names(runs: Sequence[RunRecord]) -> str:
    """Return the names of the first runs."""
    names = [text.clean(run.name) or run.key for run in runs[:_MAX_NAMED_RUNS]]
    return ", ".join([*names, *(["…"] if len(runs) > _MAX_NAMED_RUNS else [])])
