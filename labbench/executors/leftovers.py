"""Processes that a killed driver leaves behind: ended at once if possible, else at the next start."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psutil

from labbench.store.liveness import ProcessIdentity, this_process

DRIVER_VARIABLE = "LABBENCH_DRIVER"
"""Environment variable of the worker processes with the identity of their driver."""


RUN_VARIABLE = "LABBENCH_RUN"
"""Environment variable with the key of a process's run, which all processes of a script inherit."""

active_scripts: set[str] = set()
"""Keys of the runs whose scripts this process has started and not ended."""


def driver_mark() -> str:
    """Return the value of `DRIVER_VARIABLE` for the workers of this process."""
    identity = this_process()
    return f"{identity.boot_id}/{identity.pid_namespace}/{identity.pid}/{identity.pid_start}"


def end_with_driver(connection: Connection) -> None:
    """Kill this worker and all processes of its script as soon as its driver has ended, whatever the task does then."""

    def wait_and_kill() -> None:
        _wait_for_hang_up(connection.fileno())
        try:
            for run in [*active_scripts]:
                kill_processes(run)
        finally:
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait_and_kill, name="labbench driver", daemon=True).start()


def _wait_for_hang_up(descriptor: int) -> None:
    """Wait until the other end is closed, not for messages."""
    if sys.platform == "darwin":  # poll misses a hang-up there if no messages are waited for
        queue = select.kqueue()
        changes = [select.kevent(descriptor, select.KQ_FILTER_READ, select.KQ_EV_ADD | select.KQ_EV_CLEAR)]
        while not any(event.flags & select.KQ_EV_EOF for event in queue.control(changes, 1)):
            changes = []
    else:
        poll = select.poll()
        poll.register(descriptor, 0)
        poll.poll()


@dataclass(frozen=True, slots=True)
class BackgroundProcess:
    """Process that a script left running."""

    pid: int
    words: tuple[str, ...]
    in_group: bool
    """False if it has left the process group of the script, as daemons do."""


class Guard:
    """Process that kills a process group when this process is killed."""

    def __init__(self, group: int) -> None:
        """Start the guard. Raises OSError if it cannot be started."""
        reader, self._writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", 'read _ || kill -s KILL -- "-$1"', "labbench", str(group)],
                stdin=reader,  # its end is read when no process has the writing end any more
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                process_group=0,
            )
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            os.close(reader)

    def close(self) -> None:
        """End the guard without killing the group."""
        if self._writer >= 0:
            self._process.kill()
            self._process.wait()
            os.close(self._writer)
            self._writer = -1


def end_leftover_processes(database: str, lost_runs: Collection[str]) -> None:
    """Kill the workers whose driver has ended, and the scripts of `lost_runs` of a database.

    Other processes that a script has left running, after it ended, are not touched.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            environment = process.environ()
            is_script = environment.get(RUN_VARIABLE) in lost_runs and environment.get("LABBENCH_DB") == database
            if is_script or _is_orphaned_worker(process, environment.get(DRIVER_VARIABLE, "")):
                process.kill()


def _is_orphaned_worker(process: psutil.Process, mark: str) -> bool:
    """Return True for a worker, given the mark of its driver, if the driver has ended."""
    fields = mark.split("/")
    if len(fields) != 4 or "multiprocessing.forkserver" not in " ".join(process.cmdline()):
        return False
    boot_id, *numbers = fields
    with suppress(ValueError):
        namespace, pid, start = map(int, numbers)
        return ProcessIdentity("", pid, boot_id, namespace, start).has_ended() is True
    return False


def run_processes(run: str, group: int = 0) -> list[BackgroundProcess]:
    """Return the living processes of a run's script, found by their environment.

    `group` is the id of the script's process group.
    """
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(RUN_VARIABLE) == run and process.status() != psutil.STATUS_ZOMBIE:
                words = tuple(process.cmdline())
                processes.append(BackgroundProcess(process.pid, words, os.getpgid(process.pid) == group))
    return processes


def kill_processes(run: str) -> None:
    """Kill all processes of a run's script, after the worker process that started it has died."""
    for process in run_processes(run):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)
