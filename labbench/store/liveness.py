"""Detection of lost runs: runs whose process has ended, judged by heartbeat and process id, without writing."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOST_AFTER_SECONDS = 15.0
"""Seconds without a heartbeat after which a run is lost; a driver sends one every few seconds."""

HOST = os.uname().nodename


def is_lost(heartbeat: float | None, host: str | None, pid: int | None) -> bool:
    """Return True if the process of a run with status `running` has ended.

    On this host, look up the process itself: a busy or suspended process sends its heartbeat late but is alive.
    """
    if heartbeat is None:
        return True
    if host == HOST and pid is not None:
        if not _exists(pid):
            return True
        start = _start_time(pid)
        if start is not None:
            return start > heartbeat + 1.0  # a later process with the same id
    return time.time() - heartbeat > LOST_AFTER_SECONDS


def _start_time(pid: int) -> float | None:
    """Return the start of the process in Unix seconds; None except on Linux."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return float(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only checks for existence
    except ProcessLookupError:
        return False
    except PermissionError:  # the process of another user
        return True
    return True
