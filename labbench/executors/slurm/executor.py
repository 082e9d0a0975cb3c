"""Executor that trains stacks as jobs of SLURM; the driver may end and be started again while they train."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import LabbenchError
from labbench.executors import Executor
from labbench.executors.slurm.job import SlurmJob
from labbench.executors.slurm.job_array import Submitter
from labbench.executors.slurm.job_folder import JobFolder, SubmittedJob
from labbench.executors.slurm.scheduler import LocalScheduler, Scheduler, SlurmScheduler
from labbench.executors.watched_stack import WatchedStack, failure
from labbench.records import Event, Finished, SlurmOptions, Stack, Submitted

POLL_SECONDS = 0.2
"""Seconds between two looks at the event files."""

QUERY_SECONDS = 15.0
"""Seconds between two queries of the scheduler."""

INTERRUPTED_QUERY_SECONDS = 2.0
"""Seconds between two queries of the scheduler after Ctrl-C, while the user waits for the end."""

MAX_ARRAY = 1000
"""Maximum number of jobs that are submitted at once."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Settings of all jobs of an executor."""

    options: SlurmOptions
    folder: Path
    """Folder of the jobs' folders, on a disk that the nodes share."""
    device: str = "auto"
    """Device of the nodes: auto, cpu or cuda."""
    timeout: float | None = None
    """Time limit of one attempt of a run in seconds."""


def make_scheduler(cluster: str) -> Scheduler:
    """Return the scheduler for a value of `[resources.slurm] cluster`."""
    return SlurmScheduler() if cluster == "slurm" else LocalScheduler()


class SlurmExecutor(Executor):
    """Trains each stack in a job; jobs that are submitted together form one array."""

    def __init__(self, settings: JobSettings, *, attached: Sequence[SlurmJob] = ()) -> None:
        """`attached` are jobs that another driver has submitted."""
        self._settings = settings
        self._scheduler = make_scheduler(settings.options.cluster)
        self._submitter = Submitter(settings.options, settings.folder)
        self._jobs = list(attached)
        self._waiting: list[tuple[Stack, int]] = []
        """Stacks to submit before new ones, each with the number of fruitless jobs before it."""
        self._next_submission = 0.0
        """Time before which none is submitted, after the scheduler has refused one."""
        self._stopped: set[str] = set()
        """Runs to stop, wherever they are."""
        self._interrupted = False
        self._next_query = time.monotonic() + QUERY_SECONDS
        self._done: list[JobFolder] = []
        """Folders of jobs whose runs have all ended."""

    def capacity(self) -> int:
        return self._settings.options.array

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        pending = iter(stacks)
        while True:
            yield from self._submit(self._take(pending))
            if not self._jobs and not self._waiting:
                return
            self._submitter.run_debug_jobs()
            is_idle = True
            for job in [*self._jobs]:
                before = job.position
                yield from self._receive(job)
                if job.position != before:
                    is_idle = False
                    yield None  # between two batches
            yield from self._end_jobs()
            if is_idle:
                yield None
                time.sleep(POLL_SECONDS)

    def stop(self, run: str) -> None:
        self._stopped.add(run)
        for job in self._jobs:
            if run in job.watched.active:
                job.folder.request_stop([run])

    def interrupt(self) -> None:
        self._interrupted = True
        for job in self._jobs:
            job.folder.request_stop(job.watched.active.keys)
        # a job that starts after its request was written trains nothing
        self._scheduler.cancel([job.job_id for job in self._jobs if job.waits_for_node])
        self._next_query = 0.0

    def acknowledge(self, events: Sequence[Event]) -> None:
        submitted = {event.job_id for event in events if isinstance(event, Submitted)}
        for job in self._jobs if submitted else ():
            if job.job_id in submitted:
                job.folder.mark_recorded()

    def close(self) -> None:
        for job in self._jobs:  # for one that cannot be cancelled now
            job.folder.request_stop(job.watched.active.keys)
        self._scheduler.cancel([job.job_id for job in self._jobs])
        self._submitter.close()
        for folder in self._done:
            shutil.rmtree(folder.path, ignore_errors=True)

    def _take(self, pending: Iterator[Stack]) -> list[tuple[Stack, int]]:
        """Return the stacks to submit now, each with the number of fruitless jobs before it."""
        if self._interrupted or time.monotonic() < self._next_submission:
            return []
        taken, self._waiting = self._waiting, []
        most = 1 if self._settings.options.cluster == "debug" else MAX_ARRAY
        while len(self._jobs) + len(taken) < most and (stack := next(pending, None)) is not None:
            taken.append((stack, 0))
        return taken

    def _submit(self, stacks: Sequence[tuple[Stack, int]]) -> Iterator[Event]:
        """Submit the stacks as one array, and yield `Submitted` for each run; a job trains once that is recorded.

        If the scheduler refuses them while other jobs train, they are submitted later.
        """
        if not stacks:
            return
        settings = self._settings
        folders = [self._make_folder(stack) for stack, _ in stacks]
        try:
            ids = self._submitter.submit(folders)
        except LabbenchError as error:
            for folder in folders:
                shutil.rmtree(folder.path, ignore_errors=True)
            if not self._jobs:
                raise
            if not self._next_submission:
                print(f"\nlabbench: {error}; trying again while other jobs train", file=sys.stderr, flush=True)
            self._waiting, self._next_submission = [*stacks, *self._waiting], time.monotonic() + QUERY_SECONDS
            return
        self._next_submission = 0.0
        jobs = [
            SlurmJob(folder, job_id, WatchedStack(stack, settings.timeout), fruitless=fruitless)
            for folder, job_id, (stack, fruitless) in zip(folders, ids, stacks, strict=True)
        ]
        self._jobs += jobs
        for job in jobs:
            job.folder.write_job(SubmittedJob(job.job_id, self._scheduler.cluster, settings.options.cluster))
            for run in job.watched.active:
                yield Submitted(run.key, run.attempt, "slurm", self._scheduler.cluster, job.job_id)

    def _make_folder(self, stack: Stack) -> JobFolder:
        settings = self._settings
        path = settings.folder / f"{stack.runs[0].key}-{os.urandom(4).hex()}"
        folder = JobFolder.create(path, stack, settings.device)
        if stopped := self._stopped.intersection(run.key for run in stack.runs):
            folder.request_stop(stopped)
        return folder

    def _receive(self, job: SlurmJob) -> Iterator[Event]:
        """Yield what a job has reported, as one batch."""
        try:
            self.is_in_batch = True
            yield from job.receive()
        except LabbenchError as error:
            self._scheduler.cancel([job.job_id])
            for failed in [failure(run, "crash", str(error), []) for run in job.watched.active]:
                job.watched.update(failed)
                yield failed
        finally:
            self.is_in_batch = False

    def _end_jobs(self) -> Iterator[Event | None]:
        """End the jobs whose runs have ended, that the scheduler has ended, or whose runs are overdue."""
        self._query()
        if self._interrupted:
            waiting, self._waiting = self._waiting, []
            for run in (run for stack, _ in waiting for run in stack.runs):
                yield Finished(run.key, run.attempt, "queued", "interrupted")
        for job in [*self._jobs]:
            if not job.watched.active.keys:
                self._jobs.remove(job)
                self._done.append(job.folder)
            elif overdue := job.overdue_runs():
                yield from self._end_overdue(job, overdue)
            elif job.final_state is not None and job.is_settled:
                ends, retries, fruitless = job.end(job.final_state)
                self._leave(job, [(stack, fruitless) for stack in retries])
                yield from ends

    def _end_overdue(self, job: SlurmJob, overdue: dict[str, str]) -> Iterator[Event | None]:
        self._scheduler.cancel([job.job_id])
        before = None
        while before != job.position:
            before = job.position
            yield from self._receive(job)
            yield None  # between two batches
        failures, retries = job.watched.end_overdue(overdue, job.last_lines())
        self._leave(job, [(stack, 0) for stack in retries])
        yield from failures

    def _leave(self, job: SlurmJob, retries: Sequence[tuple[Stack, int]]) -> None:
        """Train the rest of a job in other ones; if it is requeued, it trains nothing."""
        job.folder.request_stop(run.key for run in job.watched.stack.runs)
        self._jobs.remove(job)
        self._waiting += retries

    def _query(self) -> None:
        """Ask the scheduler for the states of the quiet jobs, unless it was asked a moment ago."""
        quiet = {job.job_id: job for job in self._jobs if job.is_settled and job.final_state is None}
        if quiet and time.monotonic() >= self._next_query:
            pause = INTERRUPTED_QUERY_SECONDS if self._interrupted else QUERY_SECONDS
            self._next_query = time.monotonic() + pause
            for job_id, state in self._scheduler.states(quiet).items():
                quiet[job_id].note_state(state)
