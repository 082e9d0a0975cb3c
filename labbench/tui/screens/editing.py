"""A screen with runs that can be edited: tag, note, rename, archive, delete, stop, retry, each asked for by a key.

An edit is about the highlighted run; where that one is marked, about all marked runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias, TypeVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message

from labbench import text
from labbench.records import RunRecord
from labbench.store.writer import Action
from labbench.tui import clipboard, edits, queries
from labbench.tui.edits import name_runs
from labbench.tui.screens.base import DataScreen
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.prompt import Prompt

Result = TypeVar("Result")
RunsCallback: TypeAlias = Callable[[Sequence[RunRecord]], None]
_MAX_NAMED_RUNS = 6


class EditScreen(DataScreen[Result]):
    """A look at runs that can be changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "tag", "tag", show=False, tooltip="Tag runs, or take tags off"),
        Binding("N", "note", "note", show=False, tooltip="Write a note beside a run"),
        Binding("R", "rename", "rename", show=False, tooltip="Rename a run"),
        Binding("A", "archive", "archive", show=False, tooltip="Archive runs (hide them), or bring them back"),
        Binding("D", "delete", "delete", show=False, tooltip="Delete runs for good (asks first)"),
        Binding("r", "request('retry')", "retry", show=False, tooltip="Retry: put failed, stopped runs in the queue"),
        Binding("K", "request('stop')", "stop", show=False, tooltip="Stop (kill) runs that are training or queued"),
        Binding("Y", "copy", "copy", show=False, tooltip="Copy to the clipboard: cell, key, command, view as CSV"),
    ]

    class SelectionLoaded(Message):
        """The runs that somebody wants to change were read."""

        def __init__(self, runs: Sequence[RunRecord], then: RunsCallback) -> None:
            self.runs, self.then = runs, then
            super().__init__()

    def selected_keys(self) -> Sequence[str]:
        """The keys of the runs that an edit is about at the moment."""
        raise NotImplementedError

    def copy_choices(self, run: RunRecord) -> list[tuple[str, str]]:
        """What of a run can be copied: (the text, what it is called)."""
        command = clipboard.training_command(run, self.session.path)
        return [(run.key, "key"), (run.name, "name"), (command, "command that trains it")]

    def load_selection(self, keys: Sequence[str], then: RunsCallback) -> None:
        """Read these runs and go on with them."""
        if keys:
            self._read_selection(list(keys), then)

    @work(thread=True, group="edit")
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
        hint = "words put tags on, -words take them off" + (f"   there: {' '.join(present)}" if present else "")

        def take(words: str | None) -> None:
            if words:
                self.edit(edits.tag(runs, words), otherwise="no tag was named")

        self.app.push_screen(Prompt(f"tag {name_runs(runs)}", hint=text.clean(hint)), take)

    def action_note(self) -> None:
        self.load_selection(self.selected_keys(), self._ask_note)

    def _ask_note(self, runs: Sequence[RunRecord]) -> None:
        def take(words: str | None) -> None:
            if words is not None and words != shown:
                self.edit(edits.note(runs, words))

        shown = text.clean(runs[0].note or "") if len(runs) == 1 else ""
        hint = "an empty line takes the note away"
        self.app.push_screen(Prompt(f"note: {name_runs(runs)}", value=shown, hint=hint), take)

    def action_rename(self) -> None:
        self.load_selection(self.selected_keys()[:1], self._ask_name)

    def _ask_name(self, runs: Sequence[RunRecord]) -> None:
        [run] = runs

        def take(name: str | None) -> None:
            if name and name != shown:
                self.edit(edits.rename(run, name))

        shown = text.clean(run.name)
        self.app.push_screen(Prompt(f"rename {name_runs(runs)}", value=shown), take)

    def action_archive(self) -> None:
        self.load_selection(self.selected_keys(), lambda runs: self.edit(edits.archive(runs)))

    def action_delete(self) -> None:
        self.load_selection(self.selected_keys(), self._ask_delete)

    def _ask_delete(self, runs: Sequence[RunRecord]) -> None:
        if any(run.status == "running" for run in runs):
            self.notify("a run that is training cannot be deleted: K stops it", severity="warning", markup=False)
            return
        names = ", ".join(text.clean(run.name) or run.key for run in runs[:_MAX_NAMED_RUNS]) + ", …" * (
            len(runs) > _MAX_NAMED_RUNS
        )
        choices = [("", "no, leave everything as it is"), ("yes", f"yes, delete for good: {names}")]

        def take(answer: str | None) -> None:
            if answer:
                self.edit(edits.remove(runs))

        self.app.push_screen(Picker(f"delete {name_runs(runs)}, their numbers and files?", choices), take)

    def action_request(self, action: str) -> None:
        wanted: Action = "stop" if action == "stop" else "retry"
        none = "nothing here is training or queued" if action == "stop" else "nothing here has failed or was stopped"
        self.load_selection(self.selected_keys(), lambda runs: self.edit(edits.request(runs, wanted), otherwise=none))

    def action_copy(self) -> None:
        self.load_selection(self.selected_keys()[:1], self._ask_copy)

    def _ask_copy(self, runs: Sequence[RunRecord]) -> None:
        copies = self.copy_choices(runs[0])
        choices = [(str(index), f"{name}   {text.clean(value)}"[:200]) for index, (value, name) in enumerate(copies)]
        choices.append(("csv", "view as CSV"))

        def take(index: str | None) -> None:
            if index == "csv":
                self.read_view(lambda rows: self.copy(clipboard.format_csv(rows), "view as CSV"))
            elif index is not None:
                value, name = copies[int(index)]
                self.copy(value, name)

        self.app.push_screen(Picker("copy", choices), take)

    def copy(self, value: str, name: str) -> None:
        """Put a text on the clipboard of the person's terminal."""
        self.app.copy_to_clipboard(value.encode(errors="backslashreplace").decode())  # half a character cannot be sent
        self.notify(f"copied: {name}", markup=False, timeout=2)
