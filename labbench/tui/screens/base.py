"""Base of all screens: top bar, error line, key bar, and reading the database in a thread worker.

A screen implements `prepare_read` and `show`. A key, or a change of the database, starts a thread worker that reads;
its result returns as a message. The first load and live refreshes take the same path.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.worker import Worker, get_current_worker

from labbench import text
from labbench.errors import InputError, LabbenchError, StoreError, as_labbench_error
from labbench.files import database_command
from labbench.tui import edits, queries
from labbench.tui.clipboard import TableRows
from labbench.tui.edits import Edit
from labbench.tui.queries import DatabaseProgress, Query
from labbench.tui.screens.export_view import ExportFormat, FileExport, csv_format, screen_formats
from labbench.tui.screens.help import HelpScreen
from labbench.tui.session import MarkChange, Session
from labbench.tui.widgets.key_bar import KeyBar
from labbench.tui.widgets.partial_drawing import StaticText
from labbench.tui.widgets.prompt import Prompt
from labbench.tui.widgets.top_bar import TopBar

Result = TypeVar("Result")
_MAX_READING_SHARE = 0.05
"""Maximum fraction of one core spent on rereading while runs are training into a large database."""
_MAX_REST_SECONDS = 5.0
"""Maximum pause between two reads."""


class ReadCancelled(LabbenchError):
    """Raised in a thread worker whose result is no longer needed."""


def stop_if_cancelled(worker: Worker[Any]) -> Callable[[], None]:
    """Return a function that raises `ReadCancelled` once the worker was replaced or the app is closing."""

    def check() -> None:
        if worker.is_cancelled:
            raise ReadCancelled("a newer read replaced this one")

    return check


class DataScreen(Screen[None], Generic[Result]):
    """Screen that shows the database and stays up to date."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  # Textual declares no ClassVar
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "app.go('runs')", "runs", show=False, tooltip="Runs: table and charts"),
        Binding(
            "2",
            "app.go('compare')",
            "compare",
            show=False,
            tooltip="Compare: differences between marked or charted runs",
        ),
        Binding("3", "app.go('grid')", "grid", show=False, tooltip="Grid: progress, failures, heat map"),
        Binding("4", "app.go('why')", "why", show=False, tooltip="Why: the best configuration and its explanation"),
        Binding("escape", "back", "back", show=False, tooltip="Go back one step"),
        Binding("u", "undo", "undo", show=False, tooltip="Undo the last edit or change of marks"),
        Binding("e", "export", "export", tooltip="Export (save) curves, table or picture to a file"),
        Binding("W", "save_view", "save view", show=False, tooltip="Save this view (filter, columns …) under a name"),
        Binding("ctrl+l", "app.repaint", "repaint", show=False, tooltip="Write the whole screen again"),
        Binding("q", "app.quit", "quit", tooltip="Quit (training continues)"),
        Binding("question_mark", "help", "help", key_display="?", tooltip="Help"),
    ]

    class DataRead(Message):
        """The database was read."""

        def __init__(self, answer: Any, query: Query, progress: DatabaseProgress, seconds: float) -> None:
            """`answer` is that to `query`; `seconds` is the CPU time of the reading."""
            self.answer, self.query, self.progress, self.seconds = answer, query, progress, seconds
            super().__init__()

    class Edited(Message):
        """An edit was written to the database, or `undone`."""

        def __init__(self, edit: Edit, *, undone: bool) -> None:
            self.edit, self.undone = edit, undone
            super().__init__()

    class ViewRead(Message):
        """The rows of the view were read, to be passed to `then`."""

        def __init__(self, rows: TableRows, then: Callable[[TableRows], None]) -> None:
            self.rows, self.then = rows, then
            super().__init__()

    class ViewNamed(Message):
        """The user entered a name for the current view."""

        def __init__(self, name: str) -> None:
            self.name = name
            super().__init__()

    class Failed(Message):
        """The database could not be read or written."""

        def __init__(self, error: LabbenchError) -> None:
            self.error = error
            super().__init__()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._reading: Worker[None] | None = None
        self._is_outdated = True
        self._query_key: object = None
        self._read_query: Query | None = None
        self._shown_query: Query | None = None
        self._has_result = False
        """True once an answer or an error has been shown."""
        self._rest_until = 0.0
        self.progress = DatabaseProgress()

    def compose(self) -> ComposeResult:
        yield TopBar(self.session.path, self.screen_name)
        yield from self.compose_body()
        yield StaticText(id="error")
        yield KeyBar()

    @property
    def is_ready(self) -> bool:
        """True once the answer to the last query, or an error, is shown; keys wait for that.

        Otherwise a key typed right after a filter would act on the rows of the filter before.
        """
        return self._has_result and self._shown_query == self._read_query

    screen_name: ClassVar[str] = ""
    primary_actions: ClassVar[tuple[str, ...]] = ()
    """Actions whose keys come first in the key bar."""
    view_label: ClassVar[str] = "the table as CSV with exact values"
    """Name of the rows of `view` among the formats of an export."""

    def compose_body(self) -> ComposeResult:
        """Yield the widgets between the top bar and the key bar."""
        raise NotImplementedError

    def prepare_read(self) -> Callable[[], Result]:
        """Return a function that reads the current state; it runs in a thread and must not touch widgets."""
        raise NotImplementedError

    def show(self, answer: Result) -> None:
        """Show the result of a read in the widgets."""
        raise NotImplementedError

    # Reading, in thread workers

    def read(self) -> None:
        """Read the database; a newer read replaces a running one."""
        self._is_outdated = False
        self._query_key = self.session.query_key()
        self._read_query = self.session.query
        self._reading = self._read(self.prepare_read(), self._read_query)

    def reread(self) -> None:
        """Reread after a change; a running read is not cancelled, so that a busy large database is shown at all."""
        rest = self._rest_until - time.monotonic()
        if not self.is_current or (self._reading is not None and self._reading.is_running):
            self._is_outdated = True
        elif rest <= 0:
            self.read()
        elif not self._is_outdated:
            self._is_outdated = True
            self.set_timer(rest, self._reread_if_outdated)

    def _reread_if_outdated(self) -> None:
        if self._is_outdated:
            self._is_outdated = False
            self.reread()

    def on_screen_resume(self) -> None:
        """Reread if the database or the query changed while another screen was shown."""
        if self.session.has_read and (self._is_outdated or self._query_key != self.session.query_key()):
            self.read()

    @work(thread=True, exclusive=True, group="snapshot")
    def _read(self, read_answer: Callable[[], Result], query: Query) -> None:
        def read() -> Message:
            started = time.thread_time()
            answer, progress = read_answer(), queries.read_progress(self.session.path)
            return self.DataRead(answer, query, progress, time.thread_time() - started)

        self.post_result(read)

    def post_result(self, read: Callable[[], Message]) -> None:
        """Post the result of `read`, or its error, unless the current thread worker was replaced by a newer one."""
        try:
            message = read()
        except Exception as error:  # an error in one thread must not end the program
            message = self.Failed(as_labbench_error(error))
        if not get_current_worker().is_cancelled:
            self.post_message(message)

    @on(DataRead)
    def _show_answer(self, event: DataRead) -> None:
        self.progress = self.query_one(TopBar).progress = event.progress
        self._rest_until = time.monotonic() + min(_MAX_REST_SECONDS, event.seconds / _MAX_READING_SHARE)
        self.show(event.answer)
        self._shown_query, self._has_result = event.query, True
        self._reread_if_outdated()

    # Edits

    def edit(self, edit: Edit | None, *, otherwise: str = "") -> None:
        """Write an edit, or show the message `otherwise` if there is none."""
        if edit is None:
            self.notify(otherwise, markup=False)
        else:
            self._write(edit, undone=False)

    def action_undo(self) -> None:
        last = self.session.edits.pop() if self.session.edits else None
        if last is None:
            self.notify("nothing to undo", markup=False)
        elif isinstance(last, MarkChange):
            last.revert(self.session.marks)
            self.notify(f"undone: {last.description}", markup=False, timeout=2)
            self.read()
        elif last.revert is None:
            hint = "   press u again to undo the edit before" if self.session.edits else ""
            self.notify(f"cannot be undone: {last.description}{hint}", severity="warning", markup=False)
        else:
            self._write(last, undone=True)

    @work(thread=True, group="edit")
    def _write(self, edit: Edit, *, undone: bool) -> None:
        change = edit.revert if undone else edit.change
        assert change is not None

        def write() -> Message:
            if self.session.is_read_only:
                raise InputError("several databases are shown together: to edit runs, open their database alone")
            try:
                edits.apply_change(self.session.path, change)
            except StoreError:
                if undone:
                    self.session.edits.append(edit)  # keep it, to be undone later
                raise
            return self.Edited(edit, undone=undone)

        self.post_result(write)

    @on(Edited)
    def _confirm_edit(self, event: Edited) -> None:
        if not event.undone:
            self.session.edits.append(event.edit)
        hint = "" if event.edit.revert is None or event.undone else "   press u to undo"
        self.notify(f"{'undone: ' if event.undone else ''}{event.edit.description}{hint}", markup=False, timeout=4)
        self.read()

    # Exporting

    def view(self) -> Callable[[], TableRows]:
        """Return a function that reads the view as rows of text, titles first; it runs in a thread."""
        raise NotImplementedError

    @work(thread=True, exclusive=True, group="view")
    def read_rows(self, read: Callable[[], TableRows], then: Callable[[TableRows], None]) -> None:
        """Read rows, including those that are not on the screen, and pass them to `then`."""
        self.post_result(lambda: self.ViewRead(read(), then))

    @on(ViewRead)
    def _use_view(self, event: ViewRead) -> None:
        event.then(event.rows)

    def export_formats(self) -> list[ExportFormat]:
        """Return the formats in which the screen can be saved, the likeliest first."""
        rows = csv_format(self.view_label, self.screen_name, self.read_rows, self.view)
        return screen_formats(self, self.screen_name, rows)

    def action_export(self) -> None:
        FileExport(self, self.session.path.stem, self.show_error).begin(self.export_formats())

    def action_save_view(self) -> None:
        command = f"{text.clean(database_command(self.session.path))} tui --view NAME"
        hint = f"open it with {command} or in the palette"

        def save(name: str | None) -> None:
            if name:
                self.post_message(self.ViewNamed(name))

        self.app.push_screen(Prompt("save this view as", hint=hint), save)

    # Errors and keys

    @on(Failed)
    def _show_failure(self, event: Failed) -> None:
        self.end_waiting()
        self.show_error(text.clean(str(event.error).splitlines()[0]))

    def end_waiting(self) -> None:
        """Let keys through although the last query could not be answered."""
        self._shown_query, self._has_result = self._read_query, True

    def show_error(self, problem: str) -> None:
        """Show an error until Esc is pressed; "" hides it."""
        line = self.query_one("#error", StaticText)
        line.update(Content(problem))
        line.set_class(bool(problem), "-said")

    def action_back(self) -> None:
        """Hide the error, if any, or go back one step."""
        if self.query_one("#error").has_class("-said"):
            self.show_error("")
        else:
            self.step_back()

    def step_back(self) -> None:
        """Go back one step; called by Esc without an error."""

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen(self))
