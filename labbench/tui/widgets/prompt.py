"""Dialog with one line of input: Enter validates and accepts it, Esc cancels."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from labbench.tui.widgets.line_input import LineInput


class Prompt(ModalScreen[str | None]):
    """Dialog that returns the input, or None if cancelled."""

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
