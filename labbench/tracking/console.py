"""Recording of a script's output with its run.

Replaces the `write` method of the existing streams, not the streams: this also records code that holds a reference to
`sys.stderr`, as logging does. Output of native code that bypasses Python is not recorded.
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
"""Characters per line; a longer line is recorded in pieces."""


class Tee:
    """Write through to a stream and record its lines.

    Only the last state of a progress bar is recorded.
    """

    def __init__(self, name: Stream, record: Callable[[PrintedText], None]) -> None:
        self._name: Stream = name
        self._record = record
        self._file: Any = getattr(sys, name)
        self._write = self._file.write
        self._partial_line = ""
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._file.write = self.write

    def write(self, text: str) -> Any:
        result = self._write(text)
        if os.getpid() == self._pid and isinstance(text, str):  # not in a forked worker
            with self._lock:
                self._record_lines(text)
        return result

    def close(self) -> None:
        """Restore the stream's `write`, and record an unfinished line."""
        if self._file.__dict__.get("write") == self.write:  # otherwise other code has replaced it since
            del self._file.write
        with self._lock:
            self._record_lines("\n" if self._partial_line else "")
            self._record = _discard

    def _record_lines(self, text: str) -> None:
        *lines, rest = (self._partial_line + text).split("\n")
        if len(rest) > _MAX_LINE_CHARACTERS:
            lines.append(rest)
            rest = ""
        # a carriage return at the end stays: it is not known yet what overwrites the line
        self._partial_line = rest.removesuffix("\r").rpartition("\r")[2] + ("\r" if rest.endswith("\r") else "")
        if lines:
            visible_lines = [line.removesuffix("\r").rpartition("\r")[2] for line in lines]
            self._record(PrintedText(time.time(), self._name, "\n".join(visible_lines)))


def _discard(printed: PrintedText) -> None:
    """Drop output that is printed after the end of the run."""
