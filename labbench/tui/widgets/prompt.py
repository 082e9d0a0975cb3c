"""Dialogs with one line of input or with a question, and the input of one line that all dialogs use."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

_LINE_BREAK = re.compile(r"[ \t]*[\r\n]+\s*")


class LineInput(Input):
    """Input that does not blink and joins pasted lines; Textual's own keeps only the first one."""

    def on_mount(self) -> None:
        self.cursor_blink = False  # it would write to a slow connection twice a second

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        words = _LINE_BREAK.sub(" ", event.text.strip("\r\n"))
        if words:
            self.replace(words, *self.selection)


class Prompt(ModalScreen[str | None]):
    """Dialog that returns the input, or None if cancelled: Enter validates and accepts it, Esc cancels."""

    DEFAULT_CSS = """
    Prompt { align: center middle; background: $background 60%; }
    Prompt > Vertical { width: 64; max-width: 96%; height: auto; border: round $primary; background: $surface;
                     border-title-color: $foreground; padding: 0 1; }
    Prompt Input { border: none; height: 1; padding: 0; background: $surface; }
    Prompt Static { color: $secondary; }
    Prompt Static.-wrong { color: $error; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back", show=False)]

    def __init__(self, title: str, *, value: str = "", hint: str = "", check: Callable[[str], object] = str) -> None:
        """Open the dialog; `check` raises ValueError, with a message for the user, for invalid input."""
        super().__init__()
        self._title, self._value, self._hint, self._check = title, value, hint, check

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield LineInput(self._value, compact=True, select_on_focus=True)
            yield Static(Content(self._hint))

    @on(Input.Submitted)
    def _accept(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self._check(event.value)
        except ValueError as error:
            line = self.query_one(Static)
            line.update(Content(str(error)))
            line.add_class("-wrong")
        else:
            self.dismiss(event.value)


class Confirmation(ModalScreen[bool]):
    """Dialog that returns True if confirmed: `y` confirms, `n` or Esc declines."""

    DEFAULT_CSS = """
    Confirmation { align: center middle; background: $background 60%; }
    Confirmation > Vertical { width: 64; max-width: 96%; height: auto; border: round $primary; background: $surface;
                              border-title-color: $foreground; padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes", show=False),
        Binding("n,escape,q", "dismiss(False)", "No", show=False),
    ]

    def __init__(self, question: str, *, details: str, yes: str, no: str) -> None:
        """Ask a question; `yes` and `no` name the outcomes."""
        super().__init__()
        self._question, self._details, self._outcomes = question, details, (yes, no)

    def compose(self) -> ComposeResult:
        yes, no = self._outcomes
        with Vertical() as box:
            box.border_title = Content(self._question)
            yield Static(Content.styled(self._details, "$secondary"))
            yield Static(
                Content.assemble(("y", "bold $primary"), f" {yes}   ", ("n", "bold $primary"), f" {no}"),
            )
