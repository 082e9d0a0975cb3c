"""Events: everything that a trainer reports. `run` is the run's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from labbench.records.run_data import FailureKind, Points
from labbench.system.clock import now


@dataclass(frozen=True, slots=True)
class Started:
    """Start of a run's training on `device`, by the engine `way`."""

    run: str
    attempt: int
    host: str
    pid: int
    device: str
    way: str = "loop"
    hardware: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Hardware and operating system of the process that trains it."""
    time: float = field(default_factory=now, compare=False)
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """The run can resume from `step` once every point before it is committed."""

    run: str
    attempt: int
    step: int


@dataclass(frozen=True, slots=True)
class Log:
    """Output of the run, or a message about it."""

    run: str
    attempt: int
    text: str
    """Complete lines; or, without a newline at the end, lines that may still change."""
    replaces_unfinished: bool = False
    """True if the run's last text without a newline at the end is deleted first."""


@dataclass(frozen=True, slots=True)
class EngineNote(Log):
    """Message about the engine of a run, such as `trained alone, because ...`."""


@dataclass(frozen=True, slots=True)
class Finished:
    """End of a run, or its return to the queue after an interruption."""

    run: str
    attempt: int
    status: Literal["finished", "diverged", "stopped", "queued"]
    reason: str
    kept_step: int | None = None
    """Step of the checkpoint that is kept, for longer runs to continue from; None: none is kept."""
    time: float = field(default_factory=now, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """An error ended the run; `message` is one line."""

    run: str
    attempt: int
    kind: FailureKind
    message: str
    traceback: str = ""
    time: float = field(default_factory=now, compare=False)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run is held by a job of a cluster from now on, also without a driver."""

    run: str
    attempt: int
    executor: str
    cluster: str
    """Name of the cluster, or the address of its head."""
    job_id: str
    """Id of the job on the cluster."""


@dataclass(frozen=True, slots=True)
class Received:
    """All events of a run up to a position of its job's event files have been received."""

    run: str
    attempt: int
    position: str


Event: TypeAlias = Started | Points | Boundary | Log | Finished | Failed | Submitted | Received
