"""Run a program on a pseudo-terminal and count the bytes that it writes, at full speed or through a slow link."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

_SYNC_QUERY = b"\x1b[?2026$p"
_SYNC_ANSWER = b"\x1b[?2026;2$y"
"""Answer of a terminal with synchronized output, as iTerm2, kitty, WezTerm, Windows Terminal and tmux give it."""


@dataclass(frozen=True)
class Answer:
    """Output of a program after a key press."""

    written: int
    """Bytes."""
    first_seconds: float
    """Seconds to the first byte; infinity without output."""
    last_seconds: float
    """Seconds to the last byte; infinity without output."""


class PtyProgram:
    """A command on a pseudo-terminal; without `bytes_per_second` its output is read as fast as it comes."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 200,
        rows: int = 50,
        environ: Mapping[str, str] | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        locale = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        full = {**os.environ, **locale, **(environ or {})}
        full.pop("TMUX", None)
        self._rate = bytes_per_second
        self.started = time.perf_counter()
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(command[0], list(command), full)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def __enter__(self) -> PtyProgram:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def read_start(self) -> Answer:
        """Read until the first screen is complete: 2 seconds without output after the first byte."""
        select.select([self._descriptor], [], [], 60.0)
        return self.read(quiet=2.0, since=self.started)

    def read(self, *, quiet: float = 0.6, timeout: float = 60.0, since: float) -> Answer:
        """Read until `quiet` seconds pass without output.

        Args:
            quiet: Seconds without output that end the reading.
            timeout: Largest duration in seconds.
            since: Start of the measured times, by `time.perf_counter()`.
        """
        written, first, last = 0, float("inf"), float("inf")
        while time.perf_counter() - since < timeout:
            if not select.select([self._descriptor], [], [], quiet)[0]:
                break
            try:
                data = os.read(self._descriptor, 65536 if self._rate is None else 512)
            except OSError:  # the program has ended
                break
            if _SYNC_QUERY in data:
                os.write(self._descriptor, _SYNC_ANSWER)
            last = time.perf_counter() - since
            first = min(first, last)
            written += len(data)
            if self._rate is not None:
                time.sleep(len(data) / self._rate)
        return Answer(written, first, last)

    def press(self, keys: str | bytes, *, quiet: float = 0.6) -> Answer:
        """Send keys and read the answer."""
        since = time.perf_counter()
        os.write(self._descriptor, keys.encode() if isinstance(keys, str) else keys)
        return self.read(quiet=quiet, since=since)
