"""A program in a terminal, driven as a person would: keys in, screens and times out. Needs tmux; Linux for memory."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

_POLL_SECONDS = 0.002
_BUSY_SHARE = 0.2
"""Of a core: a program that takes more is still at work, though its screen stands still."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Terminal:
    """A command in a detached tmux pane of its own server. All times are seconds; 4-8 ms of each are tmux's own."""

    def __init__(
        self, command: Sequence[str], *, columns: int = 200, rows: int = 50, environ: Mapping[str, str] | None = None
    ) -> None:
        self._socket = f"bench{os.getpid()}-{time.monotonic_ns()}"
        locale = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        full = {**os.environ, **locale, **(environ or {})}
        full.pop("TMUX", None)
        waiting = f"read go; clear; exec {shlex.join(command)}"  # so that starting tmux is not counted
        size = ["-x", str(columns), "-y", str(rows)]
        start = [
            "tmux",
            "-L",
            self._socket,
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-s",
            "m",
            *size,
            "sh",
            "-c",
            waiting,
        ]
        subprocess.run(start, env=full, check=True)
        for option in (("escape-time", "0"), ("remain-on-exit", "on"), ("default-terminal", "tmux-256color")):
            self._tmux("set", "-g", *option)
        time.sleep(0.3)
        self.started = time.perf_counter()
        self.keys("Enter")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        return subprocess.run(["tmux", "-L", self._socket, *words], capture_output=True, text=True).stdout

    def screen(self, *, colour: bool = False) -> str:
        """What is seen, with the codes of its colours if asked."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colour else []), "-t", "m")

    def keys(self, *names: str) -> None:
        """Press keys, by tmux's names."""
        self._tmux("send-keys", "-t", "m", *names)

    def wait_until(
        self, holds: Callable[[str], object], *, since: float | None = None, timeout: float = 120.0
    ) -> float:
        """Seconds from `since` (the start, if None) until the screen is as it should; infinity after the timeout."""
        since = self.started if since is None else since
        while time.perf_counter() - since < timeout:
            if holds(self.screen()):
                return time.perf_counter() - since
            time.sleep(_POLL_SECONDS)
        return float("inf")

    def settle(self, *, since: float | None = None, quiet: float = 1.0, timeout: float = 120.0) -> float:
        """Seconds from `since` to the last change before so much quiet; infinity where it never ends.

        Quiet is a screen that stays as it is, and a program that is not busy behind it.
        """
        since = self.started if since is None else since
        last, changed = self.screen(colour=True), time.perf_counter()
        quiet_since, ticks = changed, self._ticks()
        while time.perf_counter() - since <= timeout:
            time.sleep(2 * _POLL_SECONDS)
            now = self.screen(colour=True)
            if now != last:
                last, changed = now, time.perf_counter()
                quiet_since, ticks = changed, self._ticks()
            elif time.perf_counter() - quiet_since >= quiet:
                busy = (self._ticks() - ticks) / _TICKS
                if busy < _BUSY_SHARE * quiet:
                    return changed - since
                quiet_since, ticks = time.perf_counter(), self._ticks()
        return float("inf")

    def press(self, key: str, *, timeout: float = 10.0) -> float:
        """Seconds from a key to the first changed screen; infinity where nothing changed."""
        before, since = self.screen(colour=True), time.perf_counter()
        self.keys(key)
        while time.perf_counter() - since < timeout:
            if self.screen(colour=True) != before:
                return time.perf_counter() - since
            time.sleep(_POLL_SECONDS)
        return float("inf")

    def median(self, keys: Sequence[str], *, pause: float = 0.3) -> float:
        """The median of these keys' times to the first change."""
        times = []
        for key in keys:
            times.append(self.press(key))
            time.sleep(pause)
        return statistics.median(times)

    def megabytes(self) -> float:
        """Resident memory of the program and what it has started."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._processes()) * _PAGE / 1e6

    def cpu(self, seconds: float) -> float:
        """Share of one core that the program takes over the next seconds."""
        before = self._ticks()
        time.sleep(seconds)
        return (self._ticks() - before) / _TICKS / seconds

    def _ticks(self) -> int:
        stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._processes())
        return sum(int(fields[11]) + int(fields[12]) for fields in stats)

    def _processes(self) -> list[int]:
        found = [int(self._tmux("display", "-p", "-t", "m", "#{pane_pid}"))]
        for pid in found:  # grows while it is gone through
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found
