"""Stacks, the runs that train together, and what a grid file states about its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from labbench.metrics import Goal
from labbench.records.run_data import Config
from labbench.records.run_record import RunRecord

GRID_COMMAND = "labbench run "
"""Start of the recorded command of a grid; the command of a script starts otherwise."""

Engine: TypeAlias = Literal["auto", "loop", "stacked", "vmap"]


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
class Stop:
    """`[stop]`: early stopping, checked at the end of each epoch, by `patience` or by `target`.

    A command is checked at each value that it logs.
    """

    metric: str
    goal: Goal
    patience: int | None = None
    """Number of epochs, or of values of a command, without a better value after which the run stops."""
    target: float | None = None
    """Value at which the run stops."""
    min_delta: float = 0.0
    """Improvement that counts as better must exceed this."""


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
class SlurmOptions:
    """`[resources.slurm]`: what each job of `--executor slurm` requests."""

    partition: str | None = None
    time: float = 3600.0
    """Time limit of a job in seconds; a job that reaches it continues in another one."""
    gpus: int | str | None = None
    """GPUs of a job, also with their type (`a100:1`); None: `[resources] gpus`, rounded up."""
    cpus: int | None = None
    """Cores of a job."""
    memory: float | None = None
    """Memory of a job in gigabytes."""
    array: int = 8
    """Number of jobs that run at the same time, and of stacks that the grid is divided into."""
    setup: tuple[str, ...] = ()
    """Shell commands at the start of a job, such as `module load cuda`."""
    account: str | None = None
    qos: str | None = None
    grace: float = 90.0
    """Seconds before the time limit at which a job stops its runs at a boundary and is requeued."""
    cluster: Literal["slurm", "local", "debug"] = "slurm"
    """`local`: jobs are processes of this machine, to try a grid; `debug`: they run in the driver, one by one."""
    options: Mapping[str, str | bool] = field(default_factory=dict)
    """Other options of sbatch by their long names, such as `constraint`; True: an option without a value."""

    @property
    def gpu_count(self) -> int:
        """Number of GPUs of a job, without their type."""
        return int(str(self.gpus or 0).rpartition(":")[2])

    @property
    def requests_gpus_by_gres(self) -> bool:
        """True if the option `gres` requests the GPUs."""
        requests = str(self.options.get("gres", "")).split(",")
        return any(request.partition(":")[0] == "gpu" for request in requests)


@dataclass(frozen=True, slots=True)
class Resources:
    """`[resources]`: limits of one run."""

    gpus: float = 0
    """GPUs of one stack, or of a command; below 1, several stacks share a GPU."""
    retries: int = 0
    """Number of retries of a failed run; a diverged run is not retried."""
    timeout: float | None = None
    """Time limit of one attempt in seconds; None: no limit."""
    cpus: float | None = None
    """Cores of one stack on a cluster; None: one."""
    memory: float | None = None
    """Memory of one stack on a cluster in gigabytes; None: no request."""
    slurm: SlurmOptions = SlurmOptions()


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
    pause_after: int | None = None
    """Epochs after which the runs return to the queue with a checkpoint, at a rung of a search; None: all epochs."""

    def config(self, index: int) -> dict[str, Any]:
        """Return the complete config of `runs[index]`."""
        return {**self.shared, **{key: values[index] for key, values in self.columns.items()}}
