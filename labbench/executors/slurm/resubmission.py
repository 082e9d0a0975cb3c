"""Ends of SLURM jobs: their causes, and the ends after which the runs continue in another job."""

from __future__ import annotations

from collections.abc import Mapping

from labbench.executors.slurm.scheduler import GONE
from labbench.records import FailureKind

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


def cause_of_end(state: str, job_id: str) -> tuple[FailureKind, str]:
    """Return the kind and the message of the failure that a job's final state means."""
    shown = "" if state == GONE else f" ({state})"
    return _CAUSES.get(state, ("crash", f"the job {job_id} has ended{shown}"))


def continues_in_another_job(state: str, *, is_preempted: bool) -> bool:
    """Return True if the runs of a job that ended in `state` continue in another job.

    is_preempted: True if the job saved its runs after a signal of a preemption or of its time limit.
    """
    return is_preempted or state in _RESUBMITTED
