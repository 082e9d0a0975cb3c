"""Output of a process, read from the file or pipe that it goes to."""

from __future__ import annotations

import codecs
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from labbench.terminal_output import CapturedOutput, OutputText

CHUNK_BYTES = 2**20
MAX_FILE_BYTES = 64 * 2**20
"""Minimum size of a file that is emptied once it has been read to its end."""


class Captured:
    """Output of a process as texts for the database; a subclass reads it."""

    def __init__(self, *, n_runs: int = 1) -> None:
        """`n_runs` is the number of runs that record the output."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._output = CapturedOutput(n_runs=n_runs)

    def last_lines(self) -> list[str]:
        """Return the last lines that were read."""
        return self._output.last_lines()

    def _feed(self, data: bytes) -> None:
        self._output.feed(self._decoder.decode(data))

    def _close(self) -> list[OutputText]:
        self._output.feed(self._decoder.decode(b"", final=True))
        return self._output.close()


class CapturedFile(Captured):
    """Text that a process appends to a file."""

    def __init__(self, file: Path, *, start: int = 0, n_runs: int = 1) -> None:
        """`start` is the number of bytes to skip, `n_runs` the number of runs that record the output."""
        super().__init__(n_runs=n_runs)
        self.end = start
        """Number of bytes of the file that were read or skipped."""
        self._file = file

    def take(self, *, everything: bool = False) -> list[OutputText]:
        """Return the texts that are due; with `everything` also lines that may still change."""
        self._read()
        if everything:
            self._output.expedite()
        return self._output.take()

    def close(self) -> list[OutputText]:
        """Return the rest."""
        self._read()
        return self._close()

    def _read(self) -> None:
        try:
            size = self._file.stat().st_size
        except FileNotFoundError:
            return
        if size == self.end:
            return
        with self._file.open("rb") as file:
            file.seek(self.end)
            while self.end < size and (data := file.read(min(CHUNK_BYTES, size - self.end))):
                self.end += len(data)
                self._feed(data)
        if self.end > MAX_FILE_BYTES and self.end == self._file.stat().st_size:
            os.truncate(self._file, 0)
            self.end = 0


class CapturedPipe(Captured):
    """Text that processes write to a pipe; they wait if they write faster than it is read."""

    def __init__(self, reader: int, on_output: Callable[[bytes], None] | None = None) -> None:
        """`reader` is the file descriptor of the reading end; `on_output` receives what is read."""
        super().__init__()
        self.is_closed = False
        """True after all processes have closed the writing end."""
        self._reader, self._on_output = reader, on_output
        os.set_blocking(reader, False)

    def read(self, seconds: float) -> None:
        """Read for this time, or until the writing end is closed."""
        end = time.monotonic() + seconds
        while not self.is_closed and select.select([self._reader], [], [], max(0.0, end - time.monotonic()))[0]:
            data = os.read(self._reader, CHUNK_BYTES)
            self.is_closed = not data
            self._feed(data)
            if self._on_output is not None:
                self._on_output(data)
            if time.monotonic() >= end:
                return

    def take(self) -> list[OutputText]:
        """Return the texts that are due."""
        return self._output.take()

    def close(self) -> list[OutputText]:
        """Return the rest, and close the pipe."""
        self.discard()
        return self._close()

    def discard(self) -> None:
        """Close the pipe."""
        if self._reader >= 0:
            os.close(self._reader)
        self._reader, self.is_closed = -1, True
