"""Application: themes, command palette, saved views and watching the database. Content is in the screens."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on, work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.driver import Driver
from textual.filter import Monochrome, NoColor
from textual.markup import escape
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input

from labbench import text
from labbench.ascii_text import needs_ascii
from labbench.errors import LabbenchError
from labbench.tui import clipboard, queries
from labbench.tui.key_queue import KeyQueue
from labbench.tui.saved_state import SavedState, save_theme
from labbench.tui.screens.base import DataScreen
from labbench.tui.screens.export_view import drawn_as_text
from labbench.tui.screens.runs import RunsScreen
from labbench.tui.session import Session
from labbench.tui.terminal.limited_terminals import AsciiFilter, ColourlessFilter
from labbench.tui.terminal.questions import TerminalAnswers
from labbench.tui.theme import DARK, LIGHT, THEMES
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.top_bar import SCREEN_KEYS

if TYPE_CHECKING:
    from labbench.tui.graphics.detection import Graphics
    from labbench.tui.graphics.output import PictureOutput


class LabbenchApp(App[None]):
    """Browse the runs of one database."""

    TITLE = "labbench"
    CSS_PATH = "app.tcss"
    COMMAND_PALETTE_DISPLAY = "^p"
    DEFAULT_MODE: ClassVar[str] = "runs"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+z", "suspend_process", show=False, priority=True)]

    class DatabaseChanged(Message):
        """The database was written to."""

    class WatchFailed(Message):
        """The database could not be read."""

        def __init__(self, error: LabbenchError) -> None:
            self.error = error
            super().__init__()

    def __init__(
        self,
        path: Path,
        *,
        view: str = "runs",
        saved_state: SavedState | None = None,
        theme: str | None = None,
        terminal: TerminalAnswers | None = None,
    ) -> None:
        """Create the application for a database.

        Args:
            path: The database.
            view: A screen, `chart` or a saved view.
            saved_state: State to restore and to save on exit; without it none is saved.
            theme: Name of a theme; by default the one that suits the background of the terminal.
            terminal: Answers of the terminal; by default none.
        """
        super().__init__()
        terminal = terminal or TerminalAnswers()
        self.path = path
        self.session = Session(path)
        self._saved_state = saved_state
        if saved_state is not None:
            self.session.restore(saved_state.views.get(view, saved_state.last))
        self._view = view
        self._key_queue = KeyQueue(self, super().on_event, is_busy=self._is_busy)
        self._stop_watching = threading.Event()
        self.add_mode("runs", lambda: RunsScreen(self.session, chart_only=view == "chart"))
        self.add_mode("compare", lambda: _compare_screen(self.session))
        self.add_mode("grid", lambda: _grid_screen(self.session))
        self.add_mode("why", lambda: _why_screen(self.session))
        for own_theme in THEMES:
            self.register_theme(own_theme)
        self.theme = theme if theme in self.available_themes else LIGHT.name if terminal.is_light else DARK.name
        self.typed = terminal.typed
        """Keys that were typed before the application was created, for the driver."""
        self.pictures = None if terminal.graphics is None else _make_output(terminal.graphics)
        """Output of pictures, for the driver and for the widgets that show them."""
        self._choose_line_filters()

    def _choose_line_filters(self) -> None:
        """Draw in the colours and characters that the environment asks for."""
        self.no_color = text.no_color_requested(os.environ)
        self._filters = [
            line_filter for line_filter in self._filters if not isinstance(line_filter, Monochrome | NoColor)
        ]
        if self.no_color:
            self._filters.append(ColourlessFilter())
        if needs_ascii(os.environ):
            self._filters.append(AsciiFilter())

    def get_driver_class(self) -> type[Driver]:
        """Return the driver for this platform; on Linux and macOS, the one that writes only the cells that change."""
        driver = super().get_driver_class()
        if driver.__name__ == "LinuxDriver":
            from labbench.tui.terminal.terminal_driver import ChangedCellsDriver  # needs termios, which Windows lacks

            return ChangedCellsDriver
        return driver

    async def on_event(self, event: events.Event) -> None:
        """Queue keys, which wait for the effects of earlier keys; handle other events at once."""
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            self._key_queue.put(event)
        else:
            await super().on_event(event)

    @property
    def has_pending_keys(self) -> bool:
        """True while effects of a key are pending."""
        return not self._key_queue.is_empty

    def _is_busy(self) -> bool:
        """Return True while a query has no rows yet, or an edit is being prepared or written."""
        is_typing = isinstance(self.focused, Input)  # the letters of a filter do not wait for its rows
        if isinstance(self.screen, DataScreen) and not self.screen.is_ready and not is_typing:
            return True
        return any(worker.group in ("selection", "edit") and not worker.is_finished for worker in self.workers)

    def on_resize(self) -> None:
        self._forget_terminal()  # which rearranges what it shows

    def action_repaint(self) -> None:
        """Write the whole screen again, after another program has written to the terminal."""
        self._forget_terminal()
        self.refresh(repaint=True)

    def _forget_terminal(self) -> None:
        if self._driver is not None and hasattr(self._driver, "forget_screen"):
            self._driver.forget_screen()

    def on_mount(self) -> None:
        self._watch()
        if not self.is_headless:
            self.app_resume_signal.subscribe(self, lambda _: self.action_repaint())
            self._handle_signals()
        if self._view in SCREEN_KEYS:
            self.switch_mode(self._view)

    def _handle_signals(self) -> None:
        """Quit on SIGTERM, and on SIGHUP of a closed terminal, as on `q`: the screen is restored, the state saved."""
        with suppress(NotImplementedError):  # Windows
            for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                asyncio.get_running_loop().add_signal_handler(number, self._quit_on_signal, number)

    def _quit_on_signal(self, number: int) -> None:
        self._save_state()  # a closed terminal may end the program before it exits by itself
        self.exit(return_code=128 + number)

    def action_change_theme(self) -> None:
        """Switch to a theme and save it for later sessions."""
        choices = [(theme.name, theme.name.removeprefix("labbench-")) for theme in THEMES]
        choices += [(name, name) for name in sorted(self.available_themes) if not name.startswith("labbench-")]
        self.push_screen(Picker("theme", choices, chosen=self.theme), self._set_theme)

    def _set_theme(self, name: str | None) -> None:
        if name is not None:
            self.theme = name
            if self._saved_state is not None:
                with suppress(LabbenchError):  # the theme applies to this session only
                    save_theme(name)

    def on_unmount(self) -> None:
        self._stop_watching.set()
        self._save_state()

    def _save_state(self) -> None:
        if self._saved_state is not None:
            with suppress(LabbenchError):  # the screen is closed already; only the layout of the view is lost
                self._saved_state.save(self.session.as_json())

    @on(DataScreen.ViewNamed)
    def _save_view(self, event: DataScreen.ViewNamed) -> None:
        if self._saved_state is not None:
            try:
                self._saved_state.save_view(event.name, self.session.as_json())
            except LabbenchError as error:
                self.screen.post_message(DataScreen.Failed(error))
            else:
                self.notify(f"saved the view {text.clean(event.name)}", markup=False)

    def open_view(self, name: str) -> None:
        """Restore a saved view."""
        if self._saved_state is not None:
            self.session.restore(self._saved_state.views[name])
            self.switch_mode("runs")
            for screen in self.data_screens():
                if isinstance(screen, RunsScreen):
                    screen.show_restored_session()

    @work(thread=True, group="watch")
    def _watch(self) -> None:
        for error in queries.watch_changes(self.path, self._stop_watching):
            self.post_message(self.DatabaseChanged() if error is None else self.WatchFailed(error))

    @on(DatabaseChanged)
    def _reread_screens(self) -> None:
        """Reread the current screen; other screens reread when they are resumed."""
        self.session.has_read = True
        for screen in self.data_screens():
            screen.reread()

    @on(WatchFailed)
    def _show_failure(self, event: WatchFailed) -> None:
        self.session.has_read = True  # a screen opened later shows the error of its own read
        for screen in self.data_screens():
            screen.post_message(DataScreen.Failed(event.error))

    def copy_to_clipboard(self, text: str) -> None:
        """Copy text to the clipboard of the user's terminal, through tmux if it runs in between."""
        super().copy_to_clipboard(text)
        if clipboard.is_in_tmux() and not self.is_headless:
            self._copy_through_tmux(text)

    @work(thread=True, group="clipboard")
    def _copy_through_tmux(self, text: str) -> None:
        if problem := clipboard.copy_through_tmux(text):
            self.call_from_thread(self.notify, problem, severity="warning", markup=False)

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """Return an SVG picture of the screen."""
        with drawn_as_text(self.screen):
            return super().export_screenshot(title=title, simplify=simplify)

    def action_go(self, screen: str) -> None:
        """Switch to another screen, which keeps its state; the comparison shows the marked runs again."""
        self.session.compared = ()
        self.switch_mode(screen)

    def data_screens(self) -> list[DataScreen[Any]]:
        """Return all screens created so far."""
        screens = {screen for stack in self._screen_stacks.values() for screen in stack}
        return [screen for screen in screens if isinstance(screen, DataScreen)]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield each action of the screen with its title in the help, then the application's own commands."""
        for active in {active.binding.action: active for active in screen.active_bindings.values()}.values():
            if active.node is screen and active.binding.tooltip:
                title = f"{active.binding.tooltip} ({self.get_key_display(active.binding)})"
                yield SystemCommand(title, "", _make_action(self, active.binding.action, screen))
        for name in self._saved_state.views if self._saved_state is not None else ():
            yield SystemCommand(escape(f"Open the view {text.clean(name)}"), "", partial(self.open_view, name))
        yield SystemCommand("Theme: dark, light and others", "", self.action_change_theme)
        yield SystemCommand("Save the screen as an SVG picture", "", self.action_screenshot)


def _make_output(graphics: Graphics) -> PictureOutput:
    from labbench.tui.graphics.output import make_output  # on terminals that show images only

    return make_output(graphics)


# The first paint shows one screen; the modules of the others are imported when they are first shown.


def _compare_screen(session: Session) -> Screen[None]:
    from labbench.tui.screens.compare import CompareScreen

    return CompareScreen(session)


def _grid_screen(session: Session) -> Screen[None]:
    from labbench.tui.screens.grid import GridScreen

    return GridScreen(session)


def _why_screen(session: Session) -> Screen[None]:
    from labbench.tui.screens.why import WhyScreen

    return WhyScreen(session)


def _make_action(app: App[None], action: str, node: DOMNode) -> Callable[[], Awaitable[bool]]:
    return lambda: app.run_action(action, default_namespace=node)
