"""Runs as recorded in the database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labbench.metrics import Goal, counts_by_last
from labbench.records.run_data import Config, FailureKind, Status

HARDWARE = ("cpu", "cores", "threads", "memory", "gpu", "driver", "os")
"""Names in `RunRecord.versions` that are no libraries, in the order in which they are shown."""


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
class PairedPoint:
    """Values of two metrics of one run at the same step, which belong to the same network."""

    step: int
    judged: float
    """Value of the metric that judges the network; may be NaN."""
    chosen: float
    """Value of the metric that chose the step."""


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
    """Versions of libraries by name, and the hardware by the names `HARDWARE`."""
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
    source: str | None = None
    """Database that it is mirrored from by `labbench pull`, HOST:PATH; None if it was recorded here."""
    executor: str | None = None
    """Executor whose job trains it: `slurm` or `ray`; None: a process of its driver."""
    cluster: str | None = None
    """Name of the cluster, or the address of its head."""
    job_id: str | None = None
    """Id of its job on the cluster."""
    node: str | None = None
    """Host that trains it, which may differ from the driver's `host`."""
    without_driver: bool = False
    """True if it is running in a job whose driver has ended: the same command attaches to the job."""
    tags: tuple[str, ...] = ()
    summary: Mapping[str, MetricSummary] = field(default_factory=dict)

    @property
    def library_versions(self) -> dict[str, str]:
        """Versions of Python and libraries by name."""
        return {name: version for name, version in self.versions.items() if name not in HARDWARE}

    @property
    def hardware(self) -> dict[str, str]:
        """Hardware and operating system by name, such as `cpu`; empty if recorded by an earlier release."""
        return {name: self.versions[name] for name in HARDWARE if name in self.versions}

    @property
    def hardware_text(self) -> str:
        """Hardware for people: `AMD EPYC 7B13, cores: 2, 7.8 GiB memory, Debian GNU/Linux 12`."""
        patterns = {"cores": "cores: {}", "threads": "torch threads: {}", "memory": "{} memory", "driver": "driver {}"}
        return ", ".join(patterns.get(name, "{}").format(text) for name, text in self.hardware.items())

    @property
    def shown_status(self) -> str:
        """Status for people: `running (no driver)` while only a job of a cluster holds the run."""
        return f"{self.status} (no driver)" if self.without_driver else self.status

    @property
    def machine(self) -> str:
        """Host and device that train it, for people; "" before its start on a cluster."""
        host = self.node if self.executor is not None else self.host
        return " ".join(filter(None, (host, self.device)))

    @property
    def place(self) -> str:
        """Host and device that train it, for people; with the executor and its job on a cluster."""
        job = f"{self.executor} job {self.job_id}" if self.executor is not None else ""
        return " ".join(filter(None, (self.machine, job)))

    @property
    def seconds(self) -> float | None:
        """Wall time in seconds, None before the start.

        While the run is running, up to its last heartbeat.
        """
        end = self.finished or self.heartbeat
        return None if self.started is None or end is None else max(0.0, end - self.started)

    def has_diverged(self, metric: str) -> bool:
        """Return True if the run diverged, or if its last value of the metric is not finite.

        No value of such a run counts, however good its best one was.
        """
        summary = self.summary.get(metric)
        return self.status == "diverged" or (summary is not None and not math.isfinite(summary.last))

    def best(self, metric: str, goal: Goal) -> float | None:
        """Return the best value of a metric; None if it was not logged, the run diverged or the goal is `none`.

        It is the last value of a metric that is best in an untrained network (`metrics.counts_by_last`).
        """
        if metric not in self.summary or self.has_diverged(metric):
            return None
        summary = self.summary[metric]
        return summary.last if goal != "none" and counts_by_last(metric) else summary.best(goal)[0]

    def best_and_step(self, metric: str, goal: Goal) -> tuple[float | None, int | None]:
        """Return the best value of a metric and its step, both None if the run diverged or counts by its last value."""
        if metric not in self.summary or self.has_diverged(metric) or counts_by_last(metric):
            return None, None
        return self.summary[metric].best(goal)


def rank_of_configuration(runs: Sequence[RunRecord], metric: str, goal: Goal) -> float:
    """Return the sort key of a configuration, given its runs: the smaller, the better.

    It is the mean of their best values, negated for the goal `max`; infinity without a value or for the goal `none`.
    """
    bests = [best for run in runs if (best := run.best(metric, goal)) is not None]
    values = [-best if goal == "max" else best for best in bests]
    return math.fsum(value / len(values) for value in values) if values else math.inf
