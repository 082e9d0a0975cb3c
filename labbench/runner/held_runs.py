"""Runs that are held by jobs of SLURM whose driver has ended: attach to the jobs, or release the runs of ended ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from labbench.errors import LabbenchError
from labbench.executors.attempt import sub_stack
from labbench.executors.slurm.executor import make_scheduler
from labbench.executors.slurm.job import SlurmJob
from labbench.executors.slurm.job_folder import JobFolder, Position, SubmittedJob
from labbench.executors.slurm.scheduler import JobState
from labbench.executors.watched_stack import WatchedStack
from labbench.files import JOBS_FOLDER, files_folder
from labbench.filters.parser import parse
from labbench.records import RunRecord, Stack
from labbench.store.liveness import HOST
from labbench.store.reader import Reader
from labbench.store.writer import Writer


@dataclass(frozen=True, slots=True)
class HeldJob:
    """Job that trains runs without a driver."""

    job: SubmittedJob
    runs: Sequence[RunRecord]
    """Runs of the job that are held, as in the database."""
    folder: JobFolder | None = None
    """None if it is lost, so that nothing of the job can be recorded."""
    stack: Stack | None = None
    """Stack of the job; None if the folder is lost."""


def settle_held_jobs(
    writer: Writer, runs: Sequence[RunRecord], cluster: str | None
) -> tuple[list[RunRecord], list[HeldJob]]:
    """Release the runs of ended jobs; return the given runs as they are then, and the held jobs to attach to.

    `cluster` is as for `sort_held_jobs`.
    """
    attachable, others = sort_held_jobs(writer.path, {run.key for run in runs}, cluster)
    if release_ended_jobs(writer, others):
        configs = {run.key: run.config for run in runs}
        with Reader(writer.path) as reader:
            runs = [replace(run, config=configs[run.key]) for run in reader.by_keys(list(configs))]
    return list(runs), attachable


def sort_held_jobs(db: Path, keys: Collection[str], cluster: str | None) -> tuple[list[HeldJob], list[HeldJob]]:
    """Return the held jobs of a database that train some of these runs and can be attached to, and the other ones.

    `cluster` is the value of `[resources.slurm] cluster` of the executor; None for other executors.
    """
    jobs = find_held_jobs(db)
    scheduler = None if cluster is None or not jobs else make_scheduler(cluster)
    attachable: list[HeldJob] = []
    others: list[HeldJob] = []
    for held_job in jobs:
        is_attachable = (
            scheduler is not None
            and held_job.stack is not None
            and held_job.job.scheduler == cluster
            and scheduler.manages(held_job.job.cluster)
            and any(run.key in keys for run in held_job.runs)
        )
        (attachable if is_attachable else others).append(held_job)
    return attachable, others


def find_held_jobs(db: Path) -> list[HeldJob]:
    """Return the jobs of all runs of a database that have no driver."""
    with Reader(db) as reader:
        running = reader.runs(parse("status=running archived=true,false"), summaries=False)
    held_runs = {run.key: run for run in running if run.without_driver}
    jobs = []
    for path in sorted((files_folder(db) / JOBS_FOLDER).glob("*/")) if held_runs else ():
        folder = JobFolder(path)
        job = folder.read_job()
        if job is None:
            continue
        try:
            folder.require_private()
            stack, _ = folder.read_stack()
        except LabbenchError:
            continue
        runs = [
            run
            for member in stack.runs
            if (run := held_runs.get(member.key)) and (run.attempt, run.job_id) == (member.attempt, job.job_id)
        ]
        if runs:
            jobs.append(HeldJob(job, runs, folder, stack))
            for run in runs:
                del held_runs[run.key]
    return jobs + [_job_without_folder(run) for run in held_runs.values()]


def _job_without_folder(run: RunRecord) -> HeldJob:
    cluster = run.cluster or HOST
    return HeldJob(SubmittedJob(run.job_id or "", cluster, "local" if cluster == HOST else "slurm"), [run])


def attach_to_jobs(
    writer: Writer, jobs: Sequence[HeldJob], timeout: float | None
) -> tuple[list[SlurmJob], list[RunRecord]]:
    """Drive the runs of these jobs from now on; return the jobs and the runs that no other driver has adopted."""
    attached, adopted = [], []
    for held_job in jobs:
        positions = writer.adopt([run.key for run in held_job.runs])
        runs = [run for run in held_job.runs if run.key in positions]
        adopted += runs
        if not runs or held_job.folder is None or held_job.stack is None:
            continue
        submitted = {run.key: run for run in held_job.stack.runs}
        watched = WatchedStack(sub_stack(held_job.stack, [submitted[run.key] for run in runs]), timeout)
        recorded = {key: Position.parse(text) for key, text in positions.items()}
        attached.append(SlurmJob(held_job.folder, held_job.job.job_id, watched, recorded=recorded))
        held_job.folder.mark_recorded()  # its driver may have died before
    return attached, adopted


def release_ended_jobs(writer: Writer, jobs: Sequence[HeldJob]) -> bool:
    """Record the last events of those jobs that have ended, and return their unfinished runs to the queue.

    A job whose scheduler cannot be asked counts as running. Runs that a user has asked to stop are stopped. Returns
    True if the status of a run has changed.
    """
    states = _ask_for_states([held_job.job for held_job in jobs])
    ended = [held_job for held_job in jobs if held_job.job in states and not states[held_job.job].is_active]
    attached, adopted = attach_to_jobs(writer, ended, None)
    keys = [run.key for run in adopted]
    stopped = [key for key, action in writer.pop_requests(keys) if action == "stop"]
    for job in attached:
        with suppress(LabbenchError):  # a damaged file: what comes before the damage counts
            for events in job.receive_all():
                writer.write(events)
        job.folder.request_stop(run.key for run in job.watched.stack.runs)  # if it is requeued, it trains nothing
    writer.requeue(keys)
    for key in stopped:
        writer.request(key, "stop")
    return bool(adopted)


def _ask_for_states(jobs: Collection[SubmittedJob]) -> dict[SubmittedJob, JobState]:
    """Return the states of jobs, without jobs whose state cannot be found out."""
    answers: dict[SubmittedJob, JobState] = {}
    for kind in {job.scheduler for job in jobs}:
        scheduler = make_scheduler(kind)
        asked = {job.job_id: job for job in jobs if job.scheduler == kind and scheduler.manages(job.cluster)}
        answers |= {asked[job_id]: state for job_id, state in scheduler.states(asked).items()}
    return answers


def request_stop_of_jobs(db: Path, keys: Collection[str]) -> None:
    """Ask the jobs of runs without a driver to stop these runs at their next boundary."""
    for held_job in find_held_jobs(db):
        runs = [run.key for run in held_job.runs if run.key in keys]
        if runs and held_job.folder is not None:
            held_job.folder.request_stop(runs)
