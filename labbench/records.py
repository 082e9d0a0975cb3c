"""Frozen dataclasses of plain values that are passed between the layers.

No tensor leaves `train/` and no SQL row leaves `store/`: a run is a `RunRecord`, runs that train together are a
`Stack`, and a trainer reports by events.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeGuard

from labbench.errors import InputError
from labbench.metrics import Goal as Goal
from labbench.metrics import default_goal as default_goal
from labbench.system.clock import now

Config: TypeAlias = Mapping[str, Any]
"""Hyperparameters of one run: flat keys joined with `.`, JSON values (numbers, strings, booleans, lists)."""

ALL_EPOCHS = "all epochs"
"""Reason of the end of a run that was not stopped early."""

Status: TypeAlias = Literal["queued", "running", "finished", "diverged", "failed", "stopped", "lost"]
STATUSES: tuple[Status, ...] = ("queued", "running", "finished", "diverged", "failed", "stopped", "lost")

FailureKind: TypeAlias = Literal["user", "crash", "node", "timeout", "oom"]


_KEY = re.compile("[A-Za-z0-9]{1,64}")


def is_key(key: object) -> TypeGuard[str]:
    """Return True for a valid run key, 1 to 64 ASCII letters and digits."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def require_key(key: object) -> str:
    """Return a run's key from a database or another file, once it is checked.

    Keys are used as names of folders.

    Raises:
        InputError: The key is not 1 to 64 ASCII letters and digits, so another program wrote it.
    """
    if not is_key(key):
        raise InputError(
            f"a run has the key {repr(key)[:80]}, but a key is letters and digits: another program wrote this file, "
            "which cannot be trusted"
        )
    return key


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """Statistics of one metric of one run; `n` includes NaN.

    The statistics are updated with every write, so that the points need not be read.
    """

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
        """Return the best finite value and its step, (None, None) if there is none or the goal is `none`."""
        if goal == "none":
            return None, None
        return (self.min, self.min_step) if goal == "min" else (self.max, self.max_step)


@dataclass(frozen=True, slots=True)
class NewRun:
    """Run of a grid before it is in a database; it has no key."""

    name: str
    config: Config
    identity: str
    """SHA-256, hexadecimal: equal for two runs if and only if they have the same result."""
    setup: str = ""
    """SHA-256, hexadecimal, of the parts of the identity except the code."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Run as recorded in the database."""

    id: int
    key: str
    """Eight random letters and digits, the public name of the run."""
    name: str
    experiment: str
    status: Status
    config: Config
    identity: str = ""
    attempt: int = 1
    """Number of the attempt, from 1; every retry and resume increments it, so that attempts are never mixed."""
    boundary: int = 0
    """Step of the last checkpoint, where the run can resume; 0: the start."""
    task: str = ""
    reason: str | None = None
    """Reason of the end: `all epochs`, `early stop`, `target reached`, `non-finite train/loss at step 12`."""
    created: float = 0.0
    """Unix time in seconds."""
    started: float | None = None
    """Unix time in seconds."""
    finished: float | None = None
    """Unix time in seconds."""
    heartbeat: float | None = None
    """Unix time in seconds of the last sign of life."""
    host: str | None = None
    pid: int | None = None
    """Process on `host` that writes the run to the database."""
    device: str | None = None
    way: str | None = None
    """Engine that trained it: `loop`, `stacked` or `vmap`; kept on resume."""
    error_kind: FailureKind | None = None
    error: str | None = None
    traceback: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    archived: bool = False
    code_version: str | None = None
    """Version of the code that computed it; None if recorded by a release without code versions."""
    older_code: bool = False
    """True if its grid has been trained with changed code since."""
    external_id: str | None = None
    """Id that the script gave the run (`start(id=...)`), unique in the experiment."""
    continued_from: str | None = None
    """Key of the shorter run whose final state it began from."""
    continued_step: int | None = None
    """Optimizer steps of that run; the points up to this step are copies."""
    tags: tuple[str, ...] = ()
    summary: Mapping[str, MetricSummary] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Wall time in seconds, None before the start.

        While the run is running, up to its last heartbeat.
        """
        end = self.finished or self.heartbeat
        return None if self.started is None or end is None else max(0.0, end - self.started)


@dataclass(frozen=True, slots=True)
class Artifact:
    """File that a run produced or used."""

    name: str
    path: str
    """Absolute, or relative to `<database>.files/<key>/`."""
    size: int
    """Bytes."""
    sha256: str
    created: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Stop:
    """`[stop]`: early stopping, checked at the end of each epoch, by `patience` or by `target`."""

    metric: str
    goal: Goal
    patience: int | None = None
    """Number of epochs without a better value after which the run stops."""
    target: float | None = None
    """Value at which the run stops."""
    min_delta: float = 0.0
    """Improvement that counts as better must exceed this."""


GRID_COMMAND = "labbench run "
"""Start of the recorded command of a grid; the command of a script starts otherwise."""


@dataclass(frozen=True, slots=True)
class Submission:
    """Properties that all runs of a grid have in common when they are queued."""

    experiment: str
    task: str
    """Built-in task, `/absolute/path.py:Class`, or "" for a command."""
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    """Goals that the grid declares."""
    stop: Stop | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source texts of the runs by kind: grid, command, task, diff, code."""
    code_version: str | None = None
    """SHA-256 of the code that would compute the runs."""


Engine: TypeAlias = Literal["auto", "loop", "stacked", "vmap"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """`[runtime]`: settings of training and checkpoints; never part of a run's identity."""

    log_every: int | Literal["auto"] = "auto"
    keep: Literal["none", "last", "best", "resume"] = "none"
    """`last`, `best`: the model of that epoch; `resume`: the last model and the state that longer runs begin from."""
    precision: Literal["float32", "float64", "bf16"] = "float32"
    """Floating-point precision; `bf16`: forward passes in bfloat16, weights and optimizer state in float32."""
    tf32: bool = False
    """Allow TF32 in matrix products on CUDA."""
    compile: bool = False
    """Compile forward passes with torch.compile."""
    data: Literal["auto", "device", "host"] = "auto"
    """Memory of the training data; `auto`: on the device of the models if it fits, else on the host."""
    loaders: int | None = None
    """Loader processes per training that read samples of a task's Datasets; 0: none, None: one per free core."""
    engine: Engine = "auto"
    """`loop`: one run at a time, `stacked`: batched layers, if all layers have a kernel, `vmap`: torch.func.vmap."""
    snapshot_every: float = 30.0
    """Minimum seconds between two checkpoints of a run; an interrupted run resumes from the last."""
    watch: bool = False
    """Measure gradient norms and dead units by layer at the end of each epoch."""


@dataclass(frozen=True, slots=True)
class Resources:
    """`[resources]`: limits of one run."""

    gpus: float = 0
    """GPUs of one stack, or of a command; below 1, several stacks share a GPU."""
    retries: int = 0
    """Number of retries of a failed run; a diverged run is not retried."""
    timeout: float | None = None
    """Time limit of one attempt in seconds; None: no limit."""


@dataclass(frozen=True, slots=True)
class Command:
    """User's command that is started for each run, instead of training a task."""

    words: tuple[str | tuple[str, ...], ...]
    """Program and arguments, with placeholders (`labbench.grid.command_template`)."""
    folder: str
    """Folder of the grid file, absolute."""
    database: str
    """Absolute path, for `labbench.start()` in the script to attach to the run."""
    cwd: str = ""
    """Working directory, relative to `folder`, with placeholders."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, with placeholders."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Runs that train together, with shared and per-run values.

    `shared` and `columns` split the runs' configs by key: `columns[key][i]` belongs to `runs[i]`.
    """

    runs: tuple[RunRecord, ...]
    shared: Mapping[str, Any]
    columns: Mapping[str, Sequence[Any]]
    task: str
    """Built-in task, `/absolute/path.py:Class`, or "" for a command."""
    stop: Stop | None = None
    runtime: Runtime = Runtime()
    files: str | None = None
    """Folder of the database's files, for checkpoints and models; None: none are kept."""
    command: Command | None = None

    def config(self, index: int) -> dict[str, Any]:
        """Return the complete config of `runs[index]`."""
        return {**self.shared, **{key: values[index] for key, values in self.columns.items()}}


# Events: everything that a trainer reports. `run` is the run's key.


@dataclass(frozen=True, slots=True)
class Started:
    """Start of a run's training on `device`, by the engine `way`."""

    run: str
    attempt: int
    host: str
    pid: int
    device: str
    way: str = "loop"
    time: float = field(default_factory=now, compare=False)
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Points:
    """Values of one metric, in the order of measurement.

    A step is the number of optimizer updates before the measurement, so a loss at step 0 is the loss of the initial
    weights. `times` are milliseconds since the run's start.
    """

    run: str
    attempt: int
    metric: str
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]


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


Event: TypeAlias = Started | Points | Boundary | Log | Finished | Failed
