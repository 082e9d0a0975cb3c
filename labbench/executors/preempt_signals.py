"""Signals that schedulers send before they end a job: its runs are saved at their next boundary."""

from __future__ import annotations

import os
import signal
from types import FrameType

PREEMPT_VARIABLE = "SUBMITIT_PREEMPT_SIGNAL"
"""Environment variable with the name of the signal before a preemption, without SIG, as submitit defines it."""


def _named_signal() -> list[signal.Signals]:
    name = os.environ.get(PREEMPT_VARIABLE, "USR2").removeprefix("SIG")
    return [number for number in signal.Signals if number.name == f"SIG{name}"]


PREEMPT_SIGNALS: tuple[signal.Signals, ...] = tuple(dict.fromkeys([signal.SIGUSR1, signal.SIGUSR2, *_named_signal()]))
"""Signals after which a job is requeued: of `sbatch --signal`, and the one that submitit asks for."""


def leave_to_driver() -> None:
    """Ignore SIGTERM and the preempt signals in this process: the driver stops its runs.

    Schedulers send them to every process of a job. Processes that this one starts get the default handling.
    """
    pid = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:  # a process that a task has forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, *PREEMPT_SIGNALS):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, handle)
