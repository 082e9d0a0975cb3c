"""Runs that are held by jobs of SLURM whose driver has ended: attach to the jobs, or release the runs of ended ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import LabbenchError
from labbench.executors.attempt import sub_stack
from labbench.executors.slurm.executor import make_scheduler
from labbench.executors.slurm.job import SlurmJob
from labbench.executors.slurm.job_folder import JobFolder, Position, SubmittedJob
from labbench.executors.watched_stack import WatchedStack
from labbench.files import JOBS_FOLDER
from labbench.records import RunRecord, Stack
from labbench.store.writer import Writer


@dataclass(frozen=True, slots=True)
class HeldJob:
    """Job that trains runs without a driver."""

    folder: JobFolder
    job: SubmittedJob
    stack: Stack
    runs: Sequence[RunRecord]
    """Runs of the stack that are held, as in the database."""


def find_held_jobs(files: Path, runs: Sequence[RunRecord]) -> list[HeldJob]:
    """Return the jobs of the runs that have no driver; `files` is the folder of the database's files."""
    held = {run.key: run for run in runs if run.without_driver}
    jobs = []
    for path in sorted((files / JOBS_FOLDER).glob("*/")) if held else ():
        folder = JobFolder(path)
        job = folder.read_job()
        if job is None:
            continue
        try:
            folder.require_private()
            stack, _ = folder.read_stack()
        except LabbenchError:
            continue
        own = [held[run.key] for run in stack.runs if run.key in held and held[run.key].attempt == run.attempt]
        if own := [run for run in own if run.job_id == job.job_id]:
            jobs.append(HeldJob(folder, job, stack, own))
    return jobs


def attach_to_jobs(
    writer: Writer, jobs: Sequence[HeldJob], timeout: float | None
) -> tuple[list[SlurmJob], list[RunRecord]]:
    """Drive the runs of these jobs from now on; return the jobs and the runs that no other driver has adopted."""
    attached, adopted = [], []
    for held in jobs:
        positions = writer.adopt([run.key for run in held.runs])
        runs = [run for run in held.runs if run.key in positions]
        if not runs:
            continue
        submitted = {run.key: run for run in held.stack.runs}
        watched = WatchedStack(sub_stack(held.stack, [submitted[run.key] for run in runs]), timeout)
        recorded = {key: Position.parse(text) for key, text in positions.items()}
        attached.append(SlurmJob(held.folder, held.job.job_id, watched, recorded=recorded))
        adopted += runs
        held.folder.mark_recorded()  # its driver may have died before
    return attached, adopted


def release_ended_jobs(writer: Writer, files: Path, runs: Sequence[RunRecord]) -> bool:
    """Record the last events of ended jobs without a driver, and return their unfinished runs to the queue.

    A job whose scheduler cannot be asked counts as running. Returns True if the status of a run has changed.
    """
    ended = []
    for held in find_held_jobs(files, runs):
        state = make_scheduler(held.job.scheduler).states([held.job.job_id]).get(held.job.job_id)
        if state is not None and not state.is_active:
            ended.append(held)
    jobs, adopted = attach_to_jobs(writer, ended, None)
    for job in jobs:
        for events in job.receive_all():
            writer.write(events)
    writer.requeue([run.key for run in adopted])
    return bool(adopted)
