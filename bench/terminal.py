"""Drive a program in a terminal: send keys, read the screen, measure times. Needs tmux; Linux for memory and CPU."""

from __future__ import annotations

import os
import re
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_POLL_SECONDS = 0.002
_BUSY_SHARE = 0.2
"""Share of a core above which a program counts as busy, even if its screen does not change."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class IdleCost:
    """Cost of a program that waits for keys."""

    share: float
    """Share of one core."""
    wake_ups: float
    """Voluntary context switches of all threads in a second."""

    def __str__(self) -> str:
        return f"{self.share:.2%}, {self.wake_ups:.0f} wake-ups/s"


class Terminal:
    """A command in a detached tmux pane of a separate server; all times are in seconds, of which tmux adds 4-8 ms."""

    def __init__(
        self, command: Sequence[str], *, columns: int = 200, rows: int = 50, environ: Mapping[str, str] | None = None
    ) -> None:
        self._socket = f"bench{os.getpid()}-{time.monotonic_ns()}"
        locale = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        full = {**os.environ, **locale, **(environ or {})}
        full.pop("TMUX", None)
        waiting = f"read go; clear; exec {shlex.join(command)}"  # excludes the start of tmux from the times
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
        """Return the text of the screen, with colour codes if `colour`."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colour else []), "-t", "m")

    def keys(self, *names: str) -> None:
        """Send keys, named as in tmux."""
        self._tmux("send-keys", "-t", "m", *names)

    def wait_until(
        self, holds: Callable[[str], object], *, since: float | None = None, timeout: float = 120.0
    ) -> float:
        """Return the seconds from `since` (default: the start) until `holds(screen)`; infinity after the timeout."""
        since = self.started if since is None else since
        while time.perf_counter() - since < timeout:
            if holds(self.screen()):
                return time.perf_counter() - since
            time.sleep(_POLL_SECONDS)
        return float("inf")

    def settle(self, *, since: float | None = None, quiet: float = 1.0, timeout: float = 120.0) -> float:
        """Return the seconds from `since` to the last change of the screen; infinity after the timeout.

        The last change is followed by `quiet` seconds without changes in which the program is not busy.
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
        """Return the seconds from a key press to the first change of the screen; infinity without a change."""
        before, since = self.screen(colour=True), time.perf_counter()
        self.keys(key)
        while time.perf_counter() - since < timeout:
            if self.screen(colour=True) != before:
                return time.perf_counter() - since
            time.sleep(_POLL_SECONDS)
        return float("inf")

    def median(self, keys: Sequence[str], *, pause: float = 0.3) -> float:
        """Return the median time from a key press to the first change, over `keys`."""
        times = []
        for key in keys:
            times.append(self.press(key))
            time.sleep(pause)
        return statistics.median(times)

    def megabytes(self) -> float:
        """Return the resident memory of the program and its child processes, in MB."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._processes()) * _PAGE / 1e6

    def idle_cost(self, seconds: float) -> IdleCost:
        """Return what the threads of the program cost over the next `seconds`; the kernel counts nanoseconds."""
        before = self._threads()
        time.sleep(seconds)
        after = self._threads()
        spent = [[value - old for value, old in zip(after[key], before.get(key, (0, 0)), strict=True)] for key in after]
        return IdleCost(sum(time for time, _ in spent) / 1e9 / seconds, sum(count for _, count in spent) / seconds)

    def _threads(self) -> dict[str, tuple[int, int]]:
        """Return CPU time in nanoseconds and voluntary context switches of each thread."""
        threads = {}
        for pid in self._processes():
            for task in Path(f"/proc/{pid}/task").iterdir():
                switches = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.MULTILINE)
                time_spent = int((task / "schedstat").read_text().split()[0])
                threads[task.name] = (time_spent, int(switches[1]) if switches else 0)
        return threads

    def _ticks(self) -> int:
        stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._processes())
        return sum(int(fields[11]) + int(fields[12]) for fields in stats)

    def _processes(self) -> list[int]:
        pids = [int(self._tmux("display", "-p", "-t", "m", "#{pane_pid}"))]
        for pid in pids:  # the list grows during the iteration
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, children.read_text().split())
        return pids
