"""Signals that end `labbench run`: Ctrl-C, the end of a terminal, and warnings of schedulers before they end a job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from types import FrameType

from labbench.executors.preempt_signals import PREEMPT_SIGNALS

REQUEUE_SECONDS = 60.0
"""Time limit of `scontrol requeue`."""


class Interruption:
    """Handler of Ctrl-C, SIGTERM, SIGHUP and the signals before a preemption.

    The first signal requests a stop, the second raises KeyboardInterrupt.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *PREEMPT_SIGNALS)

    def __init__(self) -> None:
        self.is_requested = False
        self.signal: int | None = None
        """The first signal."""
        self._is_reported = False

    def take_request(self) -> bool:
        """Return True once, at the first call after the first signal."""
        first, self._is_reported = self.is_requested and not self._is_reported, self.is_requested
        return first

    def __enter__(self) -> Interruption:
        self._previous_handlers = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested, self.signal = True, number
        if number != signal.SIGHUP:  # after a hang-up the terminal is closed
            os.write(2, b"\nstopping at the end of the epoch; press Ctrl-C again to stop immediately\n")


def exit_status(number: int | None) -> int:
    """Return the exit status of a command that a signal has interrupted and whose runs have been saved.

    It is 0 after the signals that ask for a requeue, 143 after SIGTERM, which schedulers send before they end or
    requeue a job themselves, and 130 otherwise.
    """
    if number in PREEMPT_SIGNALS:
        return 0
    return 128 + signal.SIGTERM if number == signal.SIGTERM else 130


def requeue_own_job(number: int | None) -> str | None:
    """Requeue the SLURM job in which this process runs, after a signal that asks for it.

    Returns a message for the user; None if there is nothing to requeue.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if number not in PREEMPT_SIGNALS or not job or shutil.which("scontrol") is None:
        return None
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    try:
        subprocess.run(
            ["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=REQUEUE_SECONDS
        )
    except subprocess.CalledProcessError as error:
        return f"job {job} could not be requeued ({error.stderr.strip()}): submit it again"
    except (OSError, subprocess.SubprocessError) as error:
        return f"job {job} could not be requeued ({error}): submit it again"
    return f"job {job} is requeued, and resumes the unfinished runs"
