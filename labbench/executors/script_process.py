"""Process of a command: a group of its own, which is ended as a whole, and its output, read from a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from labbench.errors import MESSAGE_PREFIX
from labbench.executors.captured_output import CapturedPipe
from labbench.executors.leftovers import RUN_VARIABLE, BackgroundProcess, Guard, active_scripts, run_processes

GRACE_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL."""

END_SECONDS = 1.0
"""Seconds for which helper processes may outlive their script."""


class ScriptProcess:
    """Running process of a script, with all processes that it starts."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        folder: str,
        environment: Mapping[str, str],
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        """Start the script in `folder`; `on_output` receives its output as it is read.

        Raises:
            OSError: The program cannot be started.
            ValueError: A word contains a zero byte.
        """
        reader, writer = os.pipe()
        self.output = CapturedPipe(reader, on_output)
        self._run = environment[RUN_VARIABLE]
        self._kill_at: float | None = None
        try:
            self._process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except BaseException:
            self.output.discard()
            raise
        finally:
            os.close(writer)
        try:
            self._guard = Guard(self._process.pid)
        except BaseException:
            self._process.kill()
            self.output.discard()
            raise
        active_scripts.add(self._run)

    @property
    def exit_status(self) -> int | None:
        """Exit status, -N if signal N ended it, None while it runs."""
        return self._process.poll()

    def last_lines(self) -> str:
        """Return the last lines of output, without the messages of labbench itself."""
        return "\n".join(line for line in self.output.last_lines() if not line.startswith(MESSAGE_PREFIX))

    def read(self, seconds: float) -> None:
        """Read output for this time, or until the process ends."""
        end = time.monotonic() + seconds
        self.output.read(seconds)
        if self.output.is_closed:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, end - time.monotonic()))

    def is_active(self) -> bool:
        """Return True until the script has ended, and after `terminate` all its processes.

        Processes that are alive `GRACE_SECONDS` after `terminate` are killed.
        """
        if self._kill_at is None:
            return self.exit_status is None
        is_active = self.exit_status is None or bool(self.background())
        if is_active and time.monotonic() > self._kill_at:
            self.kill(daemons=True)
            return False
        return is_active

    def terminate(self) -> None:
        """Send SIGTERM to all processes of the script, once."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_SECONDS
            self._signal(signal.SIGTERM, daemons=True)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the processes of the script's group."""
        self._signal(number, daemons=False)

    def kill(self, *, daemons: bool) -> None:
        """Kill the script and the processes of its group; with `daemons` also those that have left the group."""
        self._signal(signal.SIGKILL, daemons=daemons)
        self._guard.close()  # before the id of the group is free for others
        self._process.wait()
        active_scripts.discard(self._run)

    def background(self) -> list[BackgroundProcess]:
        """Return the processes of the script that are alive, without the script's own."""
        return [process for process in run_processes(self._run, self._process.pid) if process.pid != self._process.pid]

    def wait_for_background(self) -> list[BackgroundProcess]:
        """Wait up to `END_SECONDS` for processes that are ending; return those that are alive then."""
        end = time.monotonic() + END_SECONDS
        while (processes := self.background()) and time.monotonic() < end:
            self.read(0.05)
            time.sleep(0.05)
        return processes

    def _signal(self, number: signal.Signals, *, daemons: bool) -> None:
        with suppress(ProcessLookupError, PermissionError):  # all of the group have ended
            os.killpg(self._process.pid, number)
        for process in self.background() if daemons else ():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
