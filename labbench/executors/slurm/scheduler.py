"""State of jobs, asked of the scheduler, and the consequence of a final state for the runs of a job.

A scheduler that cannot be asked leaves the state unknown.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import psutil

from labbench.records import FailureKind
from labbench.store.liveness import HOST

COMMAND_SECONDS = 30.0
"""Time limit of one command of SLURM."""

GONE = "GONE"
"""State of a job that the scheduler does not know any more."""

_FINAL_STATES = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT", GONE,
}  # fmt: skip
"""Job states of squeue(1) in which a job has ended; in any other, also an unknown one, it may still train."""

_WAITING_STATES = {
    "CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "STOPPED", "SUSPENDED",
}  # fmt: skip
"""Job states of squeue(1) in which a job does not run but will."""

_CAUSES: Mapping[str, tuple[FailureKind, str]] = {
    "OUT_OF_MEMORY": ("oom", "SLURM ended the job, which used more memory than it had requested"),
    "TIMEOUT": ("timeout", "the job exceeded the time limit of [resources.slurm]"),
    "DEADLINE": ("timeout", "the job exceeded its deadline"),
    "NODE_FAIL": ("node", "the node of the job failed"),
    "BOOT_FAIL": ("node", "the node of the job did not start"),
    "PREEMPTED": ("node", "the job was preempted"),
}
"""Kind and message of the failure, by the final state of a job."""

_RESUBMITTED = frozenset(["TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED"])
"""Final states that do not blame the runs."""

UNKNOWN_CLUSTER = "slurm"
"""Name of a cluster of SLURM that does not tell its name."""


@dataclass(frozen=True, slots=True)
class JobState:
    """State of a job as the scheduler reports it."""

    name: str
    """Name of squeue(1), or `GONE`."""

    @property
    def is_active(self) -> bool:
        """True if the job may still train."""
        return self.name not in _FINAL_STATES

    @property
    def is_waiting(self) -> bool:
        """True if the job does not run but will."""
        return self.name in _WAITING_STATES


def cause_of_end(state: str, job_id: str) -> tuple[FailureKind, str]:
    """Return the kind and the message of the failure that a job's final state means."""
    suffix = "" if state == GONE else f" ({state})"
    return _CAUSES.get(state, ("crash", f"the job {job_id} has ended{suffix}"))


def continues_in_another_job(state: str, *, is_preempted: bool) -> bool:
    """Return True if the runs of a job that ended in `state` continue in another job.

    is_preempted: True if the job saved its runs after a signal of a preemption or of its time limit.
    """
    return is_preempted or state in _RESUBMITTED


class Scheduler(Protocol):
    """Interface of a scheduler."""

    cluster: str
    """Name of the cluster."""

    def manages(self, cluster: str) -> bool:
        """Return True if the jobs of a cluster can be asked for; unknown ones of another cluster have not ended."""

    def states(self, jobs: Collection[str]) -> dict[str, JobState]:
        """Return the states of jobs by id, without jobs whose state cannot be found out."""

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs, also those that wait."""


class SlurmScheduler:
    """SLURM, asked by its commands."""

    def __init__(self, cluster: str | None = None) -> None:
        self.cluster = cluster or _cluster_name()

    def manages(self, cluster: str) -> bool:
        return cluster == self.cluster or UNKNOWN_CLUSTER in (cluster, self.cluster)

    def states(self, jobs: Collection[str]) -> dict[str, JobState]:
        if not jobs:
            return {}
        arrays = ",".join(sorted({job.partition("_")[0] for job in jobs}))
        listed = _run(["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={arrays}"])
        if listed is None:
            return {}
        states = {job: JobState(name) for job, name in listed.items() if job in jobs}
        if missing := [job for job in jobs if job not in states]:
            states |= _ended_states(missing, arrays)
        return states

    def cancel(self, jobs: Sequence[str]) -> None:
        if jobs:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["scancel", *jobs], capture_output=True, timeout=COMMAND_SECONDS, check=False)


def _ended_states(jobs: Collection[str], arrays: str) -> dict[str, JobState]:
    """Return the states of jobs that squeue does not list, without jobs whose state cannot be found out."""
    accounted = _run(
        ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", f"--jobs={arrays}"]
    )
    if accounted is None and shutil.which("sacct") is not None:
        return {}
    names = {job: (accounted or {}).get(job, GONE).partition(" ")[0] for job in jobs}  # `CANCELLED by 1000`
    states = {job: JobState(name) for job, name in names.items()}
    return {job: JobState(GONE) if state.is_active else state for job, state in states.items()}  # accounting may lag


class LocalScheduler:
    """Processes of this machine that submitit's local executor has started."""

    cluster = HOST

    def manages(self, cluster: str) -> bool:
        return cluster == HOST

    def states(self, jobs: Collection[str]) -> dict[str, JobState]:
        return {job: JobState("RUNNING" if _find_process(job) is not None else GONE) for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            with suppress(psutil.Error):
                if (process := _find_process(job)) is not None:
                    for each in (process, *process.children(recursive=True)):
                        each.kill()


def _find_process(job: str) -> psutil.Process | None:
    """Return the living process of a local job, whose id is a process id."""
    with suppress(psutil.Error, ValueError):
        process = psutil.Process(int(job))
        if process.status() != psutil.STATUS_ZOMBIE and "submitit.local._local" in " ".join(process.cmdline()):
            return process
    return None


def _run(words: list[str]) -> dict[str, str] | None:
    """Return the second column of a command's lines by the first; None if the scheduler cannot be asked."""
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    if result.returncode and "invalid job id" not in result.stderr.lower():
        return None
    lines = [line.partition("|") for line in result.stdout.splitlines() if "|" in line]
    return {job.strip(): name.strip() for job, _, name in lines}


def _cluster_name() -> str:
    try:
        result = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN_CLUSTER
    names = [line.partition("=")[2].strip() for line in result.stdout.splitlines() if line.startswith("ClusterName")]
    return names[0] if names else UNKNOWN_CLUSTER
