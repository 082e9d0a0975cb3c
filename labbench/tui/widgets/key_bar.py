"""Lines of constant settings and of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.keys import KEY_NAME_REPLACEMENTS, key_to_character
from textual.widget import Widget
from textual.widgets import Input

from labbench import text
from labbench.tui.widgets.partial_drawing import StaticText


class ConstantLine(StaticText):
    """Line of the settings that all listed runs share, instead of a column for each."""

    DEFAULT_CSS = """
    ConstantLine { height: 1; padding: 0 1; color: $secondary; text-overflow: ellipsis; text-wrap: nowrap; }
    """

    constant: Mapping[str, Any] = {}  # replaced, never changed
    """Settings of the line."""

    def show(self, constant: Mapping[str, Any]) -> None:
        """Show config keys with their values."""
        self.constant = constant
        pairs = (f"{text.clean(key)} {text.format_setting(value)}" for key, value in constant.items())
        self.update(Content("constant: " + ", ".join(pairs) if constant else ""))

    async def on_click(self) -> None:
        await self.screen.run_action("constants")


def _is_character(key: str) -> bool:
    """Return True if a key types a character."""
    return (key_to_character(_UNICODE_NAMES.get(key, key)) or "\0").isprintable()


_UNICODE_NAMES = {short: name for name, short in KEY_NAME_REPLACEMENTS.items()}
"""Names of characters by the shorter ones that Textual gives to their keys."""


class KeyBar(Widget):
    """Line of keys with their actions, as many as fit, the most useful first; a click runs the action."""

    DEFAULT_CSS = """
    KeyBar { height: 1; padding: 0 1; background: $panel; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._clickable_actions: list[tuple[range, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        is_typing = isinstance(self.screen.focused, Input)
        entries = {
            active.binding.action: self._entry(active.binding)
            for active in reversed(self.screen.active_bindings.values())
            if active.enabled
            and (active.binding.show or active.binding.action == "command_palette")
            and not (is_typing and _is_character(active.binding.key))
        }
        last = entries.pop("help", Content(""))
        first: Sequence[str] = getattr(self.screen, "primary_actions", ())
        entries = {action: entries[action] for action in (*first, *reversed(entries)) if action in entries}
        if "app.quit" in entries:
            entries["app.quit"] = entries.pop("app.quit")
        line = Content("")
        self._clickable_actions = []
        for action, entry in [*entries.items(), ("help", last)]:
            if action == "help" or line.cell_length + entry.cell_length + last.cell_length <= self.size.width:
                self._clickable_actions.append((range(line.cell_length, line.cell_length + entry.cell_length), action))
                line += entry
        return line

    def _entry(self, binding: Binding) -> Content:
        key = self.app.get_key_display(binding)
        return Content.assemble((key, "bold $primary"), (f" {binding.description}   ", "$secondary"))

    async def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        for cells, action in self._clickable_actions:
            if offset is not None and offset.x in cells:
                await self.screen.run_action(action)
