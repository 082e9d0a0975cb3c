"""The application: themes, palette and quitting. What a person sees is in the screens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from textual.app import App, SystemCommand
from textual.dom import DOMNode
from textual.screen import Screen

from labbench.tui.looks import DARK, THEMES
from labbench.tui.runs_screen import RunsScreen


class LabbenchApp(App[None]):
    """Browse the runs of one database."""

    TITLE = "labbench"
    CSS_PATH = "app.tcss"
    COMMAND_PALETTE_DISPLAY = "^p"

    def __init__(self, path: Path, *, view: str = "runs") -> None:
        super().__init__()
        self.path = path
        self._view = view
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = DARK.name

    def get_default_screen(self) -> Screen[None]:
        return RunsScreen(self.path, chart_only=self._view == "chart")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every action of the screen under the words of its help, then the application's own."""
        for active in {active.binding.action: active for active in screen.active_bindings.values()}.values():
            if active.node is screen and active.binding.tooltip:
                title = f"{active.binding.tooltip} ({self.get_key_display(active.binding)})"
                yield SystemCommand(title, "", _runner(self, active.binding.action, screen))
        yield SystemCommand("Theme: dark, light and others", "", self.action_change_theme)
        yield SystemCommand("Save the screen as an SVG picture", "", self.action_screenshot)


def _runner(app: App[None], action: str, node: DOMNode) -> Callable[[], Awaitable[bool]]:
    return lambda: app.run_action(action, default_namespace=node)
