"""Dialog with a searchable list of choices: Enter accepts the highlighted one, Esc cancels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from labbench.tui.widgets.line_input import LineInput


class Picker(ModalScreen[str | None]):
    """Dialog that returns the chosen value, or None if cancelled."""

    DEFAULT_CSS = """
    Picker { align: center middle; background: $background 60%; }
    Picker > Vertical { width: 56; height: auto; max-height: 80%; border: round $primary; background: $surface;
                        border-title-color: $foreground; padding: 0 1; }
    Picker Input { border: none; height: 1; padding: 0 1; background: $surface; margin-bottom: 1; }
    Picker OptionList { height: auto; max-height: 24; border: none; background: $surface; padding: 0;
                        scrollbar-size-vertical: 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False, priority=True),
        Binding("up", "move('cursor_up')", "Up", show=False, priority=True),
    ]

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], *, chosen: str | None = None) -> None:
        """Open a list of (value, label) choices with the value `chosen` highlighted."""
        super().__init__()
        self._title, self._choices, self._chosen = title, choices, chosen

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield LineInput(placeholder="type to search", compact=True)
            yield OptionList(compact=True)

    def on_mount(self) -> None:
        self._narrow("")
        values = [value for value, _ in self._choices]
        if self._chosen in values:
            self._list.highlighted = values.index(self._chosen)

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    def _narrow(self, words: str) -> None:
        fitting = [
            Option(Content(label), id=str(index))
            for index, (_, label) in enumerate(self._choices)
            if all(word in label.lower() for word in words.lower().split())
        ]
        self._list.set_options(fitting)
        self._list.highlighted = 0 if fitting else None

    @on(Input.Changed)
    def _filter_choices(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    @on(Input.Submitted)
    def _accept(self) -> None:
        self._list.action_select()

    @on(OptionList.OptionSelected)
    def _dismiss_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[int(event.option_id or 0)][0])

    def action_move(self, direction: str) -> None:
        getattr(self._list, f"action_{direction}")()
