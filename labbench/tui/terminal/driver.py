"""Terminal driver of Linux and macOS: input, and output that writes only the cells that change."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from typing import IO, cast

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from labbench.tui.graphics.output import PictureOutput
from labbench.tui.terminal.changed_cells import ChangedCells


def _erases_to_background(environ: Mapping[str, str]) -> bool:
    """Return True unless the terminal erases to its default background, as GNU screen does."""
    return "TMUX" in environ or not environ.get("TERM", "").startswith("screen")


class TerminalFile:
    """Output to a terminal, discarded once the terminal has been closed.

    Textual writes in a thread with a bounded queue. An error would end the thread, and a full queue would then block
    the program at its end.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write text if the terminal is open."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Flush the text if the terminal is open."""
        with suppress(OSError):
            self._file.flush()


class ChangedCellsDriver(LinuxDriver):
    """Driver of Linux and macOS that passes the output of Textual through `ChangedCells`."""

    _changed_cells: ChangedCells | None = None

    def start_application_mode(self) -> None:
        """Write to a terminal that may be closed."""
        if isinstance(self._file, TextIOWrapper):  # not again after a suspension
            self._file = cast("TextIOWrapper", TerminalFile(self._file))
        super().start_application_mode()  # type: ignore[no-untyped-call]

    @property
    def _pictures(self) -> PictureOutput | None:
        pictures: PictureOutput | None = getattr(self._app, "pictures", None)
        return pictures

    def write(self, data: str) -> None:
        if self._changed_cells is None:
            self._changed_cells = ChangedCells(self._pictures, erases=_erases_to_background(os.environ))
        if changes := self._changed_cells.reduce(data):
            super().write(changes)

    def run_input_thread(self) -> None:
        """Dispatch keys that were typed before the application started, then later ones."""
        typed = getattr(self._app, "typed", b"")
        if typed:
            for event in XTermParser().feed(typed.decode(errors="ignore")):
                self.process_message(event)
        super().run_input_thread()

    def forget_screen(self) -> None:
        """Write the whole screen at the next update, with its images."""
        self._changed_cells = None
        if self._pictures is not None:
            self._pictures.board.forget()

    def stop_application_mode(self) -> None:
        """Remove the images and restore the terminal."""
        if self._pictures is not None:
            super().write(self._pictures.finish())
        super().stop_application_mode()

    def is_hung_up(self) -> bool:
        """Return True if the terminal has been closed, without a signal if it is not the controlling one."""
        poll = select.poll()
        poll.register(self.fileno, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))
