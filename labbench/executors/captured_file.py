"""Output of a process, read from the file to which it is redirected."""

from __future__ import annotations

import codecs
from pathlib import Path

from labbench.terminal_output import CapturedOutput, OutputText


class CapturedFile:
    """Output that a process appends to a file, split into texts for the database."""

    def __init__(self, file: Path, *, start: int = 0) -> None:
        """`start` is the number of bytes to skip."""
        self.end = start
        """Number of bytes that were read or skipped."""
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._output = CapturedOutput()

    def take(self, *, everything: bool = False) -> list[OutputText]:
        """Return the texts that are due; with `everything`, also lines that may still change."""
        self._read()
        if everything:
            self._output.expedite()
        return self._output.take()

    def close(self) -> list[OutputText]:
        """Return the remaining texts."""
        self._read()
        self._output.feed(self._decoder.decode(b"", final=True))
        return self._output.close()

    def last_lines(self) -> list[str]:
        """Return the last lines that were read."""
        return self._output.last_lines()

    def _read(self) -> None:
        if not self._file.exists() or self._file.stat().st_size == self.end:
            return
        with self._file.open("rb") as file:
            file.seek(self.end)
            data = file.read()
        self.end += len(data)
        self._output.feed(self._decoder.decode(data))
