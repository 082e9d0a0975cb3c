"""Is the process that drives a run still there? Answered without writing, by heartbeat and process id."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOST_AFTER_SECONDS = 15.0
"""A driver beats every few seconds: after this long without a heartbeat its runs are lost."""

HOST = os.uname().nodename


def is_lost(heartbeat: float | None, host: str | None, pid: int | None) -> bool:
    """Whether a run that says `running` has lost its process.

    On this host the process itself is looked up: one that is busy or suspended beats late, but is there.
    """
    if heartbeat is None:
        return True
    if host == HOST and pid is not None:
        if not _exists(pid):
            return True
        began = _start_time(pid)
        if began is not None:
            return began > heartbeat + 1.0  # another process that has got the number since
    return time.time() - heartbeat > LOST_AFTER_SECONDS


def _start_time(pid: int) -> float | None:
    """When the process began, in Unix seconds; None where the system does not tell (only Linux does)."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return float(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process, but there
        return True
    return True
