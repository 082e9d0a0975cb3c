"""Detection of lost runs, whose process has ended without recording it; nothing is written.

A process id identifies a process only in its namespace (every container has its own) and until the machine restarts. In
the namespace that recorded a run, the process itself is looked up: it may be busy or suspended for hours and is alive.
Everywhere else, and for runs recorded without a namespace, only the age of the heartbeat is known.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LOST_AFTER_SECONDS = 15.0
"""Age of the heartbeat after which a run is lost if its process cannot be looked up; one is sent every few seconds."""

HOST = os.uname().nodename


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Process that drives a run, as recorded in the table `runs`."""

    host: str
    pid: int
    boot_id: str | None = None
    """Id of the machine's last start; None if unknown."""
    pid_namespace: int | None = None
    """Inode of the namespace of `pid`; None if unknown."""
    pid_start: int | None = None
    """Start of the process in clock ticks since the machine's start, which tells it from later ones with its id."""

    @property
    def is_here(self) -> bool:
        """True if `pid` is an id of the namespace of this process."""
        return self.boot_id is not None and (self.boot_id, self.pid_namespace) == pid_namespace()

    def has_ended(self) -> bool | None:
        """Return True if the process has ended, False if it is alive, None if that cannot be seen from here."""
        if not self.is_here:
            return None
        if not _exists(self.pid):
            return True
        state, start = _read_stat(self.pid)
        if state is not None and state in "ZX":  # it has ended, but its parent has not noticed
            return True
        return None if start is None or self.pid_start is None else start != self.pid_start


def this_process() -> ProcessIdentity:
    """Return the identity of this process."""
    boot_id, namespace = pid_namespace()
    return ProcessIdentity(HOST, os.getpid(), boot_id, namespace, _read_stat(os.getpid())[1] if boot_id else None)


def uptime() -> float:
    """Return the time in seconds on the clock of the column `heartbeat_uptime`.

    All processes of a machine share it, and setting the time of day does not change it.
    """
    return time.monotonic()


def is_lost(
    heartbeat: float | None,
    heartbeat_uptime: float | None,
    boot_id: str | None,
    pid_namespace: int | None,
    pid: int | None,
    pid_start: int | None,
) -> bool:
    """Return True if the process of a run with status `running` has ended; the arguments are columns of `runs`."""
    if not isinstance(heartbeat, int | float):  # another program may have written anything
        return True
    if isinstance(pid, int) and pid > 0:
        has_ended = ProcessIdentity("", pid, boot_id, pid_namespace, pid_start).has_ended()
        if has_ended is not None:
            return has_ended
    if isinstance(heartbeat_uptime, int | float) and boot_id is not None and boot_id == _boot_id():
        # a heartbeat at a later uptime was sent before a restart, which only Linux recognises by the boot id
        return abs(uptime() - heartbeat_uptime) > LOST_AFTER_SECONDS
    return time.time() - heartbeat > LOST_AFTER_SECONDS


def pid_namespace() -> tuple[str | None, int | None]:
    """Return boot id and inode of the namespace of this process's id; (None, None) if unknown."""
    return _pid_namespace(os.getpid())


@lru_cache(maxsize=1)
def _pid_namespace(pid: int) -> tuple[str | None, int | None]:
    if sys.platform != "linux":
        return _boot_id(), 0
    try:
        # /proc may have been mounted in another namespace, where the ids are others
        if _boot_id() is None or Path("/proc/self").readlink().name != str(pid):
            return None, None
        return _boot_id(), Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None, None


@lru_cache(maxsize=1)
def _boot_id() -> str | None:
    if sys.platform != "linux":
        return f"{sys.platform}:{HOST}"  # other systems have neither namespaces nor a boot id
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _read_stat(pid: int) -> tuple[str | None, int | None]:
    """Return state and start (clock ticks since the machine's start) of a process; None where not reported."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None, None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only checks for existence
    except (ProcessLookupError, OverflowError):  # an id that no process can have: another program wrote it
        return False
    except PermissionError:  # the process of another user
        return True
    return True
