"""What travels between the layers: frozen dataclasses of plain values, and nothing else.

No tensor leaves `train/` and no SQL row leaves `store/`: a run is a `RunRecord`, runs that train together are a
`Stack`, and everything a trainer has to say is one of the events.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeGuard

from labbench.errors import InputError

Config: TypeAlias = Mapping[str, Any]
"""The hyperparameters of one run: flat, keys joined with `.`, values JSON (numbers, strings, booleans, lists)."""

Status: TypeAlias = Literal["queued", "running", "finished", "diverged", "failed", "stopped", "lost"]
STATUSES: tuple[Status, ...] = ("queued", "running", "finished", "diverged", "failed", "stopped", "lost")

Goal: TypeAlias = Literal["min", "max"]

FailureKind: TypeAlias = Literal["user", "crash", "node", "timeout", "oom"]


_KEY = re.compile("[A-Za-z0-9]{1,64}")


def is_key(key: object) -> TypeGuard[str]:
    """Return True for ASCII letters and digits, of which labbench makes the keys of runs."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def require_key(key: object) -> str:
    """Return a run's key as a database or another file gives it; a folder is named by it.

    Raises:
        InputError: If it is anything but ASCII letters and digits: somebody else has written it.
    """
    if not is_key(key):
        raise InputError(
            f"a run has the key {repr(key)[:80]}, but a key is letters and digits: labbench did not write it, and the "
            "file that it is in cannot be trusted"
        )
    return key


def default_goal(metric: str) -> Goal:
    """The goal of a metric that nobody declared: by the words of its name, as people mean them."""
    words = metric.lower().replace("/", "_").replace("-", "_").split("_")
    return "min" if {"loss", "error", "perplexity", "mse", "mae", "gap"} & set(words) else "max"


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """What is known of one metric of one run without reading its points. NaN counts in `n`."""

    n: int
    n_nonfinite: int
    first_nonfinite_step: int | None
    last: float
    last_step: int
    min: float | None
    min_step: int | None
    max: float | None
    max_step: int | None

    def best(self, goal: Goal) -> tuple[float | None, int | None]:
        """(value, step) of the best finite value, (None, None) where there was none."""
        return (self.min, self.min_step) if goal == "min" else (self.max, self.max_step)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that a grid asks for: not yet in a database, so it has no key."""

    name: str
    config: Config
    identity: str
    """SHA-256, hexadecimal: equal for two runs exactly when one result serves both."""
    setup: str = ""
    """SHA-256, hexadecimal, of all in the identity but the code."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as the database knows it."""

    id: int
    key: str
    """8 characters, random, public: what a person types."""
    name: str
    experiment: str
    status: Status
    config: Config
    identity: str = ""
    attempt: int = 1
    """Counts from 1; a retry or a resume raises it, so that attempts never splice."""
    boundary: int = 0
    """The last step from which the run can go on; 0 means from the start."""
    task: str = ""
    reason: str | None = None
    """Why it ended: `all epochs`, `early stop`, `target reached`, `non-finite train/loss at step 12`."""
    created: float = 0.0
    """Unix time, seconds; so are the next three."""
    started: float | None = None
    finished: float | None = None
    heartbeat: float | None = None
    host: str | None = None
    pid: int | None = None
    """Process that drives the run (writes the database), on `host`."""
    device: str | None = None
    way: str | None = None
    """How it was stepped: `loop`, `stacked` or `vmap`; kept on resume."""
    error_kind: FailureKind | None = None
    error: str | None = None
    traceback: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    archived: bool = False
    code_version: str | None = None
    """SHA-256 of the code that it counts as computed by; None: recorded before code versions were."""
    older_code: bool = False
    """True after its grid was trained with changed code."""
    tags: tuple[str, ...] = ()
    summary: Mapping[str, MetricSummary] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Wall time from start to end (to the last heartbeat while it runs); None before the start."""
        end = self.finished or self.heartbeat
        return None if self.started is None or end is None else max(0.0, end - self.started)


@dataclass(frozen=True, slots=True)
class Stop:
    """`[stop]`: end a run early, judged at epoch ends, by `patience` or by `target`."""

    metric: str
    goal: Goal
    patience: int | None = None
    """Epochs without a better value."""
    target: float | None = None
    min_delta: float = 0.0


@dataclass(frozen=True, slots=True)
class Submission:
    """Properties that all runs of a grid have in common when they are queued."""

    experiment: str
    task: str
    """A built-in task's name, `/absolute/path.py:Class`, or "" for a command."""
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    """Goals that the grid declares."""
    stop: Stop | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Texts from which the runs would be made, by kind: grid, task, diff, code."""
    code_version: str | None = None
    """SHA-256 of the code that would compute the runs."""


Engine: TypeAlias = Literal["auto", "loop", "stacked", "vmap"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """`[runtime]`: how runs are trained and kept; never part of a run's identity."""

    log_every: int | Literal["auto"] = "auto"
    keep: Literal["none", "last", "best"] = "none"
    precision: Literal["float32", "float64", "bf16"] = "float32"
    """`bf16`: forward passes in bfloat16, weights and optimizers in float32."""
    tf32: bool = False
    """Let CUDA round what it multiplies to TF32."""
    compile: bool = False
    """Let torch compile forward passes."""
    data: Literal["auto", "device", "host"] = "auto"
    """Where training data lies: beside the models unless it is too big for that, always, or never."""
    loaders: int | None = None
    """Processes beside each training that read samples of a task's Datasets; 0: it reads them itself. None: as many as
    cores are left to it."""
    engine: Engine = "auto"
    """How runs are stepped: one by one, stacked where all layers are known, by vmap; auto: by a rule."""
    snapshot_every: float = 30.0
    """Seconds between two snapshots of a run at the least; from the last one an interrupted run goes on."""
    watch: bool = False
    """Measure at each epoch's end gradient norms and dead units, layer by layer."""


@dataclass(frozen=True, slots=True)
class Resources:
    """`[resources]`: what one run may take."""

    gpus: int = 0
    retries: int = 0
    """How many times a run that failed (not one that diverged) is tried again."""
    timeout: float | None = None
    """Seconds of one attempt."""


@dataclass(frozen=True, slots=True)
class Command:
    """A script of somebody's own that is started for each run, in place of a task."""

    words: tuple[str, ...]
    """With `{key}` where a run's value goes."""
    folder: str
    """Where it is started: the grid's folder."""
    database: str
    """Absolute path, for `labbench.start()` in the script to attach to the run."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Runs that train together: the values that all share, and one vector per value that differs.

    `shared` and `columns` split the runs' configs by key: `columns[key][i]` belongs to `runs[i]`.
    """

    runs: tuple[RunRecord, ...]
    shared: Mapping[str, Any]
    columns: Mapping[str, Sequence[Any]]
    task: str
    """A built-in task's name, `/absolute/path.py:Class`, or "" for a command."""
    stop: Stop | None = None
    runtime: Runtime = Runtime()
    files: str | None = None
    """The folder of the database's files, where snapshots and models go; None: none are kept."""
    command: Command | None = None

    def config(self, index: int) -> dict[str, Any]:
        """The whole config of `runs[index]`."""
        return {**self.shared, **{key: values[index] for key, values in self.columns.items()}}


# The events: all that leaves a trainer. `run` is the run's key.


@dataclass(frozen=True, slots=True)
class Started:
    """A run began to train on `device`, stepped in the given `way`."""

    run: str
    attempt: int
    host: str
    pid: int
    device: str
    way: str = "loop"
    time: float = field(default_factory=time.time, compare=False)
    """When it happened, Unix seconds; so in the next two."""


@dataclass(frozen=True, slots=True)
class Points:
    """Values of one metric, in the order they were measured.

    `step` is the number of optimizer updates done when the value was measured, so a loss at step 0 is the loss
    of the first weights. `times` are milliseconds since the run's start.
    """

    run: str
    attempt: int
    metric: str
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Boundary:
    """The run can be resumed from `step`, once every point before it is committed."""

    run: str
    attempt: int
    step: int


@dataclass(frozen=True, slots=True)
class Log:
    """Text that the run wrote or that concerns it."""

    run: str
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The run ended by itself, was stopped by a person, or goes back to the queue (`queued`) after an interruption."""

    run: str
    attempt: int
    status: Literal["finished", "diverged", "stopped", "queued"]
    reason: str
    time: float = field(default_factory=time.time, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """An error ended the run; `message` is one line, `traceback` the whole story."""

    run: str
    attempt: int
    kind: FailureKind
    message: str
    traceback: str = ""
    time: float = field(default_factory=time.time, compare=False)


Event: TypeAlias = Started | Points | Boundary | Log | Finished | Failed
