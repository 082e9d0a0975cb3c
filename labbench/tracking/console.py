"""What a script prints, kept with its run.

The `write` of the streams that are there is replaced, not the streams: who holds on to `sys.stderr`, as logging does,
is heard too. Native code that writes past Python is not.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from labbench.store.scripts.script_run import PrintedText, Stream

_MAX_LINE_CHARACTERS = 65_536
"""Characters of one line that are kept together."""


class Tee:
    """Passes on what a stream is given and keeps its lines; of a progress bar, only what it showed last."""

    def __init__(self, name: Stream, keep: Callable[[PrintedText], None]) -> None:
        self._name: Stream = name
        self._keep = keep
        self._file: Any = getattr(sys, name)
        self._write = self._file.write
        self._begun = ""
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._file.write = self.write

    def write(self, text: str) -> Any:
        result = self._write(text)
        if os.getpid() == self._pid and isinstance(text, str):  # not in a forked worker
            with self._lock:
                self._take(text)
        return result

    def close(self) -> None:
        """Give the stream its own `write` back, and keep a line that was begun."""
        if self._file.__dict__.get("write") == self.write:  # else somebody has put something on top
            del self._file.write
        with self._lock:
            self._take("\n" if self._begun else "")
            self._keep = _remove_tees

    def _take(self, text: str) -> None:
        *lines, begun = (self._begun + text).split("\n")
        if len(begun) > _MAX_LINE_CHARACTERS:
            lines.append(begun)
            begun = ""
        # what a carriage return at the end will have overwritten is not known yet
        self._begun = begun.removesuffix("\r").rpartition("\r")[2] + ("\r" if begun.endswith("\r") else "")
        if lines:
            shown = [line.removesuffix("\r").rpartition("\r")[2] for line in lines]
            self._keep(PrintedText(time.time(), self._name, "\n".join(shown)))


def _remove_tees(printed: PrintedText) -> None:
    """The run has ended."""
