"""Is the process that drives a run still there? Answered without writing, by heartbeat and process id."""

from __future__ import annotations

import os
import socket
import time

LOST_AFTER_SECONDS = 15.0
"""A driver beats every few seconds: after this long without a heartbeat its runs are lost."""

HOST = socket.gethostname()


def is_lost(heartbeat: float | None, host: str | None, pid: int | None) -> bool:
    """Whether a run that says `running` has lost its process. Only a process of this host can be looked up."""
    if heartbeat is None or time.time() - heartbeat > LOST_AFTER_SECONDS:
        return True
    return host == HOST and pid is not None and not _exists(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process, but there
        return True
    return True
