"""Dialog with a question: `y` confirms, `n` or Esc declines."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static


class Confirmation(ModalScreen[bool]):
    """Dialog that returns True if confirmed."""

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
