"""Main function of a job: train the stack of its folder, and append the events to its event file."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from labbench.errors import DeviceLost, LabbenchError
from labbench.executors.attempt import run_stack, sub_stack
from labbench.executors.captured_output import CapturedFile
from labbench.executors.event_codec import encode_event
from labbench.executors.preempt_signals import PREEMPT_SIGNALS
from labbench.executors.slurm.job_folder import JobFolder
from labbench.executors.worker_main import DEVICE_LOST_STATUS, redirect_output
from labbench.records import AT_RUNG, Event, Failed, Finished, Log, Stack
from labbench.train.active_runs import ActiveRuns, StopRequests
from labbench.train.devices import resolve_devices

RECORDED_SECONDS = 300.0
"""Seconds for which a job waits until its driver has recorded it; a driver records it at once unless it has died."""

POLL_SECONDS = 0.5
"""Seconds between two looks at the driver's requests."""

TERMINATED_STATUS = 128 + signal.SIGTERM


class TrainingJob:
    """Function of a job; submitit transports its folder's path, and nothing else."""

    def __init__(self, folder: str, *, redirect: bool = True) -> None:
        """`redirect`: send the output of the process to the job's folder."""
        self.folder, self.redirect = folder, redirect

    def __call__(self) -> None:
        """Train the stack until all runs have ended, a signal preempts the job, or it was not recorded."""
        folder = JobFolder(Path(self.folder))
        folder.require_private()
        wait_until_recorded(folder)
        import labbench.train.loop  # noqa: F401 (seconds, which do not count for the time limit of the runs)

        stack, device, writer = folder.begin()
        if stack is None:
            writer.close()
            return
        with Preemption(stack) as preemption:
            try:
                folder.output.touch(mode=0o600)
                if self.redirect:
                    redirect_output(folder.output)
                for event in train_and_listen(stack, resolve_devices(device)[0], folder, preemption):
                    writer.append(encode_event(event))
            except DeviceLost as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(DEVICE_LOST_STATUS)
            finally:
                writer.close()
            preemption.leave(folder)

    def checkpoint(self) -> Any:
        """Return what submitit requeues after a signal before the training; `Preemption` handles later ones."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def wait_until_recorded(folder: JobFolder) -> None:
    """Wait until the driver has recorded the job.

    Raises:
        LabbenchError: It has not: another driver may train the runs.
    """
    deadline = time.monotonic() + RECORDED_SECONDS
    while not folder.is_recorded():
        if time.monotonic() > deadline:
            folder.mark_preempted()  # for a driver that has recorded it but has not told so
            raise LabbenchError("the driver died before it recorded this job; its runs are trained by other jobs")
        time.sleep(POLL_SECONDS)


def train_and_listen(stack: Stack, device: str, folder: JobFolder, preemption: Preemption) -> Iterator[Event]:
    """Yield the events of the stack and the output of the process.

    Runs whose stop was requested before the start end at once. The ends of runs that a signal has interrupted are left
    out: they continue at the next start.
    """
    stopped = set(folder.stop_requests())
    for run in [run for run in stack.runs if run.key in stopped]:
        yield Finished(run.key, run.attempt, "queued", "interrupted")
    stack = sub_stack(stack, [run for run in stack.runs if run.key not in stopped])
    if not stack.runs:
        return
    active, printed = ActiveRuns(stack.runs), CapturedFile(folder.output, n_runs=len(stack.runs))
    printed.end = folder.output.stat().st_size
    looked = 0.0
    for event in run_stack(stack, device, preemption.stop_requests):
        for text in printed.take(everything=isinstance(event, Failed | Finished)):
            yield from (Log(run.key, run.attempt, text.text, text.replaces_unfinished) for run in active)
        if time.monotonic() - looked > POLL_SECONDS:
            looked = time.monotonic()
            preemption.requested_by_driver.update(folder.stop_requests())
            preemption.stop_requests.request(preemption.requested_by_driver)
        if event is None or preemption.suspends(event):
            continue
        yield event
        active.update(event)


@dataclass
class Preemption:
    """Handler of the signals that announce the end of the job: its runs stop at their next boundary."""

    stack: Stack
    stop_requests: StopRequests = field(default_factory=StopRequests)
    requested_by_driver: set[str] = field(default_factory=set)
    signal: int | None = None
    _suspended: int = 0

    def __enter__(self) -> Preemption:
        signals = (signal.SIGTERM, *PREEMPT_SIGNALS)
        self._previous_handlers = {number: signal.signal(number, self._handle) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        self.stop_requests.request(run.key for run in self.stack.runs)

    def suspends(self, event: Event) -> bool:
        """Return True for the end of a run that a signal has interrupted: it continues at the next start of the job."""
        if self.signal is None or not isinstance(event, Finished) or event.status != "queued":
            return False
        if event.reason == AT_RUNG or event.run in self.requested_by_driver:
            return False
        self._suspended += 1
        return True

    def leave(self, folder: JobFolder) -> None:
        """Requeue the job after SIGUSR1 or SIGUSR2; exit with status 143 after SIGTERM, which schedulers send too."""
        if not self._suspended or self.signal is None:
            return
        folder.mark_preempted()
        if self.signal == signal.SIGTERM:
            sys.exit(TERMINATED_STATUS)
        from submitit import JobEnvironment

        JobEnvironment()._requeue(0)
        sys.exit(0)
