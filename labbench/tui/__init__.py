"""Terminal user interface; the only package that imports Textual."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.errors import InputError
from labbench.files import database_command
from labbench.text import has_true_color

if TYPE_CHECKING:
    from labbench.tui.app import LabbenchApp
    from labbench.tui.terminal.questions import TerminalAnswers, TerminalQuestion

BUILTIN_VIEWS = ("runs", "chart", "compare", "grid", "why")
"""Views to start with besides saved ones: one of the screens, or the chart alone."""


def run_app(
    path: Path, *, view: str | None = None, first: Mapping[str, Any] | None = None, is_temporary: bool = False
) -> None:
    """Browse the runs of a database until the user quits; wait for the database if it does not exist yet.

    `view` is one of `BUILTIN_VIEWS` or the name of a saved view. `first` is the initial state, in the format of a
    saved view, for a database without saved state. With `is_temporary` no state is saved, and no run can be edited.

    Raises InputError for an unknown view or a file that is not a labbench database, and SystemExit after a signal has
    ended it.
    """
    from labbench.tui.saved_state import SavedState, read_theme

    saved_state = SavedState(path)
    saved_state.last = saved_state.last or dict(first or {})
    views = [*BUILTIN_VIEWS, *saved_state.views]
    if view is not None and view not in views:
        raise InputError(f"there is no view named `{view}`: choose one of {', '.join(views)}")
    if path.exists():  # report an unreadable file on the command line, before the screen is taken over
        from labbench.store.reader import Reader

        Reader(path).close()
    theme = read_theme(os.environ)
    question = _ask_terminal(asks_background=theme is None)
    app_class = _import_app()
    received = question.read_answers() if question is not None else b""
    terminal = _read_answers(received)
    app = app_class(
        path,
        view=view or "runs",
        saved_state=None if is_temporary else saved_state,
        theme=theme,
        terminal=terminal,
    )
    app.session.is_read_only = is_temporary
    app.run()
    if app.return_code:
        raise SystemExit(app.return_code)


def _import_app() -> type[LabbenchApp]:
    """Import the application, which takes 0.2 s for Textual."""
    # OpenBLAS would start a thread per core and reserve memory for each; the TUI uses no linear algebra
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not has_true_color(os.environ):
        os.environ.pop("COLORTERM", None)  # Textual would send colours that GNU screen garbles
    gc.disable()  # garbage collection during the imports would free nothing
    from labbench.tui.app import LabbenchApp

    gc.freeze()  # later collections skip the modules: the first paint comes 30 ms earlier
    gc.enable()
    return LabbenchApp


def _read_answers(received: bytes) -> TerminalAnswers:
    from labbench.tui.graphics.detection import choose_graphics, remove_answer
    from labbench.tui.terminal.questions import TerminalAnswers, parse_answer

    is_light, typed = parse_answer(remove_answer(received))
    return TerminalAnswers(is_light, choose_graphics(os.environ, received), typed)


def _ask_terminal(*, asks_background: bool) -> TerminalQuestion | None:
    """Ask the terminal for what suits it; return None where that is impossible or could disturb the keys."""
    from labbench.tui.graphics.detection import QUESTION, wants_graphics
    from labbench.tui.terminal.questions import BACKGROUND_QUESTION, TerminalQuestion, may_ask

    questions = BACKGROUND_QUESTION if asks_background else b""
    questions += QUESTION if wants_graphics(os.environ) else b""
    try:
        if questions and may_ask(os.environ) and sys.__stdin__ is not None and sys.__stderr__ is not None:
            return TerminalQuestion(sys.__stdin__.fileno(), sys.__stderr__.fileno(), questions)
    except (ImportError, OSError, ValueError):  # Windows; no terminal
        pass
    except Exception as error:
        if type(error).__name__ != "error":  # termios.error
            raise
    return None


def require_terminal(path: Path) -> None:
    """Raise InputError if keys cannot be read from stdin, or the screen cannot be drawn on stderr."""
    for stream, name, use in ((sys.__stdin__, "stdin", "reads keys from"), (sys.__stderr__, "stderr", "draws on")):
        if stream is None or stream.closed or not stream.isatty():
            table = f"{database_command(path)} ls"
            raise InputError(
                f"the terminal interface {use} {name}, which is not a terminal: start it without redirecting {name}, "
                f"or print the runs with `{table}`"
            )
