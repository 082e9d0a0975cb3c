"""Terminal driver that writes only the cells that change."""

from __future__ import annotations

import select

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from labbench.tui.changed_cells import ChangedCells


class ChangedCellsDriver(LinuxDriver):
    """Driver of Linux and macOS that passes the output of Textual through `ChangedCells`."""

    _changed_cells: ChangedCells | None = None

    def write(self, data: str) -> None:
        if self._changed_cells is None:
            self._changed_cells = ChangedCells()
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
        """Write the whole screen at the next update."""
        self._changed_cells = None

    def is_hung_up(self) -> bool:
        """Return True if the terminal has been closed, without a signal if it is not the controlling one."""
        poll = select.poll()
        poll.register(self.fileno, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))
