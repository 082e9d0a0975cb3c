"""Terminal driver of Linux and macOS: input, and output that writes only the cells that change."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from typing import IO, cast

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from labbench.tui.graphics.output import PictureOutput
from labbench.tui.terminal.changed_cells import ChangedCells
from labbench.tui.terminal.terminal_input import TerminalClosed, TerminalInput


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
    _input: TerminalInput | None = None

    def start_application_mode(self) -> None:
        """Read from and write to a terminal that may be closed."""
        typed = b""
        if isinstance(self._file, TextIOWrapper):  # not again after a suspension
            self._file = cast("TextIOWrapper", TerminalFile(self._file))
            typed = getattr(self._app, "typed", b"")
        self._input = TerminalInput(self.fileno, typed)
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
        """Dispatch keys and other input; end the program like SIGHUP once the terminal has been closed."""
        assert self._input is not None
        parser = XTermParser(self._debug)
        try:
            for chunk in self._input.chunks():
                for event in (*(parser.feed(chunk) if chunk else ()), *parser.tick()):
                    self.process_message(event)
        except TerminalClosed:  # the signal comes only from a controlling terminal
            os.kill(os.getpid(), signal.SIGHUP)

    def disable_input(self) -> None:
        """End the input thread."""
        if self._input is not None:
            self._input.stop()
        super().disable_input()
        if self._input is not None:
            self._input.close()
            self._input = None

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
