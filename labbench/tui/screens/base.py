"""What every screen has: the line of progress above, the keys below, an error until it is read, and one way to read.

A screen implements `prepare_read` and `show`. A cause (a key, or a commit by somebody, of
which the first look is one) asks in a thread worker, and the answer comes back as a message: first load and live
refresh are this one path.
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
from textual.widgets import Static
from textual.worker import Worker, get_current_worker

from labbench import text
from labbench.errors import LabbenchError, StoreError
from labbench.tui import edits, queries
from labbench.tui.clipboard import TableRows
from labbench.tui.edits import Edit
from labbench.tui.queries import DatabaseProgress
from labbench.tui.screens.export_view import ViewExport
from labbench.tui.screens.help import HelpScreen
from labbench.tui.session import Session
from labbench.tui.widgets.key_bar import KeyBar
from labbench.tui.widgets.prompt import Prompt
from labbench.tui.widgets.top_bar import TopBar

Result = TypeVar("Result")
_MAX_READING_SHARE = 0.05
"""Of one core that reading again and again may take, while something trains into a large database."""
_MAX_REST_SECONDS = 5.0
"""Seconds."""


class DataScreen(Screen[None], Generic[Result]):
    """A look at the database, kept up to date."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  # Textual declares no ClassVar
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "app.go('runs')", "runs", show=False, tooltip="Runs: the table and its charts"),
        Binding("2", "app.go('compare')", "compare", show=False, tooltip="Compare: what differs between marked runs"),
        Binding("3", "app.go('grid')", "grid", show=False, tooltip="Grid: progress, failures, heat map"),
        Binding("4", "app.go('why')", "why", show=False, tooltip="Why: the answer in words"),
        Binding("escape", "back", "back", show=False, tooltip="One step back"),
        Binding("u", "undo", "undo", show=False, tooltip="Undo the last edit"),
        Binding("e", "export", "export", tooltip="Export (save) the view as CSV, text or an SVG picture"),
        Binding("W", "save_view", "save view", show=False, tooltip="Save this view (filter, columns…) under a name"),
        Binding("q", "app.quit", "quit", tooltip="Quit; what is training goes on"),
        Binding("question_mark", "help", "help", key_display="?", tooltip="Help"),
    ]

    class DataRead(Message):
        """The database was read."""

        def __init__(self, answer: Any, progress: DatabaseProgress, seconds: float) -> None:
            """`seconds` of processor time that the reading took."""
            self.answer, self.progress, self.seconds = answer, progress, seconds
            super().__init__()

    class Edited(Message):
        """An edit is in the database; `undone` where it was taken back."""

        def __init__(self, edit: Edit, *, undone: bool) -> None:
            self.edit, self.undone = edit, undone
            super().__init__()

    class ViewRead(Message):
        """The view as a table of texts, for whoever wanted it."""

        def __init__(self, rows: TableRows, then: Callable[[TableRows], None]) -> None:
            self.rows, self.then = rows, then
            super().__init__()

    class ViewNamed(Message):
        """Somebody wants the present view kept under a name."""

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
        self._rest_until = 0.0
        self.progress = DatabaseProgress()

    def compose(self) -> ComposeResult:
        yield TopBar(self.session.path, self.screen_name)
        yield from self.compose_body()
        yield Static(id="error", markup=False)
        yield KeyBar()

    screen_name: ClassVar[str] = ""
    primary_actions: ClassVar[tuple[str, ...]] = ()
    """The actions whose keys come first in the line of keys."""

    def compose_body(self) -> ComposeResult:
        """The widgets between the top line and the keys."""
        raise NotImplementedError

    def prepare_read(self) -> Callable[[], Result]:
        """What to read for the present question: the function is called in a thread, and touches no widget."""
        raise NotImplementedError

    def show(self, answer: Result) -> None:
        """Put an answer on the widgets."""
        raise NotImplementedError

    # Reading, in thread workers

    def read(self) -> None:
        """Read the database for the present question; the newest question wins."""
        self._is_outdated = False
        self._query_key = self.session.query_key()
        self._reading = self._read(self.prepare_read())

    def reread(self) -> None:
        """Read again; a reading that is under way is not given up, or a busy large database would never be shown."""
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
        """Come back to: something may have been written or asked meanwhile."""
        if self.session.has_read and (self._is_outdated or self._query_key != self.session.query_key()):
            self.read()

    @work(thread=True, exclusive=True, group="snapshot")
    def _read(self, asked: Callable[[], Result]) -> None:
        def answered() -> Message:
            began = time.thread_time()
            answer, progress = asked(), queries.read_progress(self.session.path)
            return self.DataRead(answer, progress, time.thread_time() - began)

        self.post_result(answered)

    def post_result(self, read: Callable[[], Message]) -> None:
        """In a thread worker: send what is read, unless something newer is being read by now."""
        try:
            message = read()
        except LabbenchError as error:
            message = self.Failed(error)
        if not get_current_worker().is_cancelled:
            self.post_message(message)

    @on(DataRead)
    def _show_answer(self, event: DataRead) -> None:
        self.progress = self.query_one(TopBar).progress = event.progress
        self._rest_until = time.monotonic() + min(_MAX_REST_SECONDS, event.seconds / _MAX_READING_SHARE)
        self.show(event.answer)
        self._reread_if_outdated()

    # Edits

    def edit(self, edit: Edit | None, *, otherwise: str = "") -> None:
        """Write an edit; where there is none, say why."""
        if edit is None:
            self.notify(otherwise, markup=False)
        else:
            self._write(edit, undone=False)

    def action_undo(self) -> None:
        last = self.session.edits.pop() if self.session.edits else None
        if last is None:
            self.notify("nothing to undo", markup=False)
        elif last.revert is None:
            before = "   u again undoes what was before" if self.session.edits else ""
            self.notify(f"cannot be undone: {last.description}{before}", severity="warning", markup=False)
        else:
            self._write(last, undone=True)

    @work(thread=True, group="edit")
    def _write(self, edit: Edit, *, undone: bool) -> None:
        change = edit.revert if undone else edit.change
        assert change is not None

        def written() -> Message:
            try:
                edits.apply_change(self.session.path, change)
            except StoreError:
                if undone:
                    self.session.edits.append(edit)  # it can be tried again
                raise
            return self.Edited(edit, undone=undone)

        self.post_result(written)

    @on(Edited)
    def _confirm_edit(self, event: Edited) -> None:
        if not event.undone:
            self.session.edits.append(event.edit)
        hint = "" if event.edit.revert is None or event.undone else "   u undoes it"
        self.notify(f"{'undone: ' if event.undone else ''}{event.edit.description}{hint}", markup=False, timeout=4)
        self.read()

    # Taking the view elsewhere

    def view(self) -> Callable[[], TableRows]:
        """What the view says, as rows of texts, titles first: the function is called in a thread."""
        raise NotImplementedError

    @work(thread=True, exclusive=True, group="taking")
    def read_view(self, then: Callable[[TableRows], None]) -> None:
        """Read all of the view, beyond what the screen shows, and go on with it."""
        rows = self.view()
        self.post_result(lambda: self.ViewRead(rows(), then))

    @on(ViewRead)
    def _use_view(self, event: ViewRead) -> None:
        event.then(event.rows)

    def action_export(self) -> None:
        ViewExport(self, f"{self.session.path.stem}-{self.screen_name}", self.read_view, self.show_error).begin()

    def action_save_view(self) -> None:
        hint = "labbench tui --view NAME opens it, and so does the palette"

        def take(name: str | None) -> None:
            if name:
                self.post_message(self.ViewNamed(name))

        self.app.push_screen(Prompt("save this view as", hint=hint), take)

    # Errors and keys

    @on(Failed)
    def _show_failure(self, event: Failed) -> None:
        self.show_error(text.clean(str(event.error).splitlines()[0]))

    def show_error(self, problem: str) -> None:
        """Show a problem until it is read (Esc), or nothing."""
        line = self.query_one("#error", Static)
        line.update(Content(problem))
        line.set_class(bool(problem), "-said")

    def action_back(self) -> None:
        """Close what is open, the error first."""
        if self.query_one("#error").has_class("-said"):
            self.show_error("")
        else:
            self.step_back()

    def step_back(self) -> None:
        """What Esc does where there is no error to close."""

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen(self))
