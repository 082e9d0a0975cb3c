"""Input of the terminal, read without waking up while nothing is typed."""

from __future__ import annotations

import codecs
import math
import os
import select
from collections.abc import Iterator

from textual.constants import ESCAPE_DELAY

_TICK_SECONDS = 0.1
_TICKS = math.ceil(ESCAPE_DELAY / _TICK_SECONDS) + 2
"""Ticks after the last input until an unfinished escape sequence has been given up."""
_CHUNK_BYTES = 4096


class TerminalClosed(Exception):
    """The terminal has been closed."""


class TerminalInput:
    """Input of a terminal, until it is stopped.

    Textual's own thread wakes up ten times a second, which is most of the CPU time of an idle program.
    """

    def __init__(self, descriptor: int, typed: bytes = b"") -> None:
        """Create the input of a terminal that is open as `descriptor`; `typed` was read from it before."""
        self._descriptor, self._typed = descriptor, typed
        self._stopped, self._stop = os.pipe()

    def chunks(self) -> Iterator[str]:
        """Yield what is typed, and "" ten times a second while it may be an unfinished escape sequence.

        Raises:
            TerminalClosed: If the terminal has been closed, also if it is not the controlling one, which gets a signal.
        """
        decode = codecs.getincrementaldecoder("utf-8")("ignore").decode
        if self._typed:
            yield decode(self._typed)
        ticks, is_stopped = _TICKS, False
        while not is_stopped:
            ready, _, _ = select.select([self._descriptor, self._stopped], [], [], _TICK_SECONDS if ticks else None)
            is_stopped = self._stopped in ready
            if is_stopped:  # what the terminal is still sending would be read by the shell
                ready, _, _ = select.select([self._descriptor], [], [], _TICK_SECONDS)
            if self._descriptor in ready:
                ticks = _TICKS
                yield decode(self._read())
            else:
                ticks -= 1
                yield ""

    def _read(self) -> bytes:
        try:
            received = os.read(self._descriptor, _CHUNK_BYTES)
        except OSError as error:
            raise TerminalClosed from error
        if not received:
            raise TerminalClosed
        return received

    def stop(self) -> None:
        """End the iteration over `chunks`; may be called from any thread."""
        os.write(self._stop, b"\0")

    def close(self) -> None:
        """Release the file descriptors, after the iteration has ended."""
        os.close(self._stopped)
        os.close(self._stop)
