"""Job of SLURM as its driver sees it: the events that arrive, and what its end means for its runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from labbench.executors.attempt import sub_stack
from labbench.executors.captured_output import CapturedFile
from labbench.executors.slurm.job_folder import JobFolder, Position
from labbench.executors.slurm.parameters import find_setup_failure, log_file
from labbench.executors.slurm.scheduler import JobState, cause_of_end, continues_in_another_job
from labbench.executors.watched_stack import MAX_FRUITLESS_STARTS, WatchedStack, failure
from labbench.records import Event, Failed, Finished, Received, Stack

SETTLE_SECONDS = 2.0
"""Seconds without an event after the end of a job, in which the last ones may still arrive."""

NO_NEW_CHECKPOINT = (
    f"; {MAX_FRUITLESS_STARTS} jobs in a row have ended before a new checkpoint: raise [resources.slurm] time, or "
    "lower [runtime] snapshot_every"
)
"""Part of the message of a failure."""

MAX_BATCH = 10_000
"""Maximum number of events that are recorded in one transaction."""


@dataclass
class SlurmJob:
    """Submitted job of one stack."""

    folder: JobFolder
    job_id: str
    watched: WatchedStack
    position: Position = field(default_factory=Position)
    """Position after the last event that was received."""
    recorded: Mapping[str, Position] = field(default_factory=dict)
    """Position by run after its last event in the database; for a job that another driver submitted."""
    fruitless: int = 0
    """Number of jobs of this stack that have ended before, without a new boundary and without their fault."""
    is_pending: bool = False
    """True if the scheduler has said that the job waits for a node, and nothing has arrived since."""
    final_state: JobState | None = None
    """State of the ended job; None while the scheduler may still run it."""
    _quiet_since: float | None = None
    """Time of the first look that found no event after the last one; None before it."""

    def receive(self) -> Iterator[Event]:
        """Yield the events that have arrived since the last call, followed by the positions of their runs.

        Raises:
            LabbenchError: The event file is damaged.
        """
        positions: dict[str, Received] = {}
        before = self.position
        for event, position in islice(self.folder.read_events(before), MAX_BATCH):
            self.position = position
            self.watched.report()
            if event.run not in self.watched.active:
                continue
            self.watched.update(event)
            if position > self.recorded.get(event.run, Position()):
                yield event
                positions[event.run] = Received(event.run, event.attempt, str(position))
        yield from (received for run, received in positions.items() if run in self.watched.active)
        if self.position != before:
            self._quiet_since, self.final_state, self.is_pending = None, None, False
        elif self._quiet_since is None:
            self._quiet_since = time.monotonic()

    def receive_all(self) -> Iterator[list[Event]]:
        """Yield everything that has arrived, in batches; the next one is read after the caller has taken one.

        Raises:
            LabbenchError: The event file is damaged.
        """
        while True:
            before = self.position
            yield list(self.receive())
            if self.position == before:
                return

    @property
    def is_settled(self) -> bool:
        """True if repeated looks have found no event for a while."""
        return self._quiet_since is not None and time.monotonic() - self._quiet_since > SETTLE_SECONDS

    def note_state(self, state: JobState) -> None:
        """Note an answer of the scheduler; the last events of an ended job may arrive after it."""
        self.is_pending = state.is_waiting
        if state.is_active:
            self.final_state = None
        elif self.final_state is None:
            self.final_state, self._quiet_since = state, None

    @property
    def waits_for_node(self) -> bool:
        """True if the job has not started yet, or waits for its next start."""
        return self.is_pending or not self.folder.has_started() or self.folder.is_preempted()

    def overdue_runs(self) -> dict[str, str]:
        """Return the runs that have exceeded `[resources] timeout`; the time in which the job waits does not count."""
        if not self.watched.has_time_limit:
            return {}
        if self.waits_for_node:
            self.watched.skip_time()
            return {}
        return self.watched.overdue_runs()

    def end(self, state: JobState) -> tuple[list[Finished | Failed], list[Stack], int]:
        """Return what the final state of the job means for the runs that have not ended.

        Returns ends of runs, stacks to train in other jobs, and the number of fruitless jobs before them.
        """
        runs = list(self.watched.active)
        if state.name == "CANCELLED":
            return [Finished(run.key, run.attempt, "queued", "the job was cancelled") for run in runs], [], 0
        kind, message = cause_of_end(state.name, self.job_id)
        lines, logged = self.last_lines(), self._last_logged_lines()
        if (setup_failure := find_setup_failure(logged)) is not None:
            message = (
                f"the job {self.job_id} has ended: a command of [resources.slurm] setup failed with {setup_failure}"
            )
            return [failure(run, "crash", message, logged[:-1]) for run in runs], [], 0
        if continues_in_another_job(state.name, is_preempted=self.folder.is_preempted()):
            fruitless = 0 if self.watched.has_advanced else self.fruitless + 1
            if fruitless < MAX_FRUITLESS_STARTS:
                return [], [sub_stack(self.watched.stack, runs)], fruitless
            message += NO_NEW_CHECKPOINT
            return [failure(run, kind, message, lines) for run in runs], [], 0
        if not self.folder.has_started():
            message += self._no_start_hint(logged)
            return [failure(run, kind, message, logged) for run in runs], [], 0
        failures, retries = self.watched.end_dead(message, lines, kind)
        return [*failures], retries, 0

    def last_lines(self) -> list[str]:
        """Return the last lines that the job has printed while it trained."""
        return _read_last_lines(self.folder.output)

    @property
    def _log(self) -> Path:
        """File with the output of the batch script, until the training begins."""
        return log_file(self.folder.path.parent, self.job_id)

    def _last_logged_lines(self) -> list[str]:
        """Return the last lines of the batch script's output, without the messages of submitit's start."""
        return [line for line in _read_last_lines(self._log) if not line.startswith("submitit INFO ")]

    def _no_start_hint(self, logged: Sequence[str]) -> str:
        if logged:
            return f" before it began to train; the job's output is in {self._log}"
        return (
            f" before it began to train: its node must see {self.folder.path} on a disk that it shares with this "
            f"machine, and start the same Python; it has printed nothing to {self._log}"
        )


def _read_last_lines(file: Path) -> list[str]:
    printed = CapturedFile(file)
    printed.take(everything=True)
    printed.close()
    return printed.last_lines()
