"""Sampling profiler of labbench's processes: attribute time to purposes by the Python stack, once per millisecond.

Each interval is attributed to the stack at its end. Python runs signal handlers between operations, so a sample follows
the operation that took the time. Sampling takes about 1 % of the time. Results are written ten times per second,
because workers are killed when no work is left.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType

import labbench

FOLDER_VARIABLE = "LABBENCH_SHARES"
"""Environment variable with the folder for results; without it, nothing is sampled."""
SAMPLE_SECONDS = 0.001
WRITE_SECONDS = 0.1

Frame = tuple[str, str]
"""Module (of labbench, such as `train/stack_trainer`, else `torch/optim` or a file name) and function."""

MODULE_PURPOSES = {
    "torch/optim": "optimizer",
    "train/engine/optimizers": "optimizer",
    "train/engine/schedules": "optimizer",
    "train/engine/dropout": "dropout",
    "train/data/dataset": "data",
    "train/data/loading": "data",
    "train/metric_buffer": "recording",
}
"""Purpose of modules within a training epoch; other modules, except `METRIC_FUNCTIONS`, count as arithmetic."""
METRIC_FUNCTIONS = {
    "compute_stacked_metrics",
    "is_argmax",
    "compute_metrics",
    "accuracy",
    "classification_accuracy",
    "add",
    "read",
}
"""Functions of `train/tasks/sample_metrics` and `train/tasks/losses` that compute metrics other than the loss."""


class Sampler:
    """Signal handler that adds up seconds, of wall or CPU time, by purpose and innermost function of labbench."""

    def __init__(self, folder: Path, purpose: Callable[[list[Frame]], str], kind: str, clock: Callable[[], float]):
        self.purpose, self.clock = purpose, clock
        self.seconds: Counter[str] = Counter()
        self.file = folder / f"{kind}-{os.getpid()}.json"
        self.first, self.last, self.written = time.perf_counter(), clock(), 0.0

    def sample(self, number: int, frame: FrameType | None) -> None:
        """Attribute the time since the last sample to a stack."""
        now = self.clock()
        frames = list(iter_frames(frame))
        place = next((f"{module}.{function}" for module, function in frames if "/" in module), "")
        self.seconds[f"{self.purpose(frames)} {place}"] += now - self.last
        self.last = now
        if now - self.written > WRITE_SECONDS:
            self.written = now
            self.write()

    def write(self) -> None:
        """Write the result so far, atomically."""
        temporary = self.file.with_suffix(".new")  # a worker may be killed while it writes
        temporary.write_text(json.dumps({"first": self.first, "seconds": self.seconds}))
        temporary.replace(self.file)


def iter_frames(frame: FrameType | None) -> Iterator[Frame]:
    """Yield the frames of a stack, innermost first."""
    while frame is not None:
        yield module_name(frame.f_code.co_filename), frame.f_code.co_name
        frame = frame.f_back


@cache
def module_name(filename: str) -> str:
    """Return the module part of a `Frame`."""
    path = Path(filename)
    package = Path(labbench.__file__).parent
    if "torch/optim" in filename:
        return "torch/optim"
    return str(path.relative_to(package).with_suffix("")) if path.is_relative_to(package) else path.stem


def purpose_in_worker(frames: list[Frame]) -> str:
    """Return the purpose of a stack (innermost frame first) of a worker process."""
    if ("executors/worker_main", "train_and_listen") not in frames:
        sends = ("connection", "send") in frames
        return "recording" if sends else "idle" if ("connection", "recv") in frames else "preparing"
    if ("train/stack_trainer", "evaluate") in frames:
        return "validation"
    if ("train/stack_trainer", "train_epoch") in frames:
        return purpose_in_epoch(frames)
    functions = {function for module, function in frames if module == "train/stack_trainer"}
    return "recording" if functions & {"end_epoch", "record_epoch", "flush", "collect", "end_run"} else "preparing"


def purpose_in_epoch(frames: list[Frame]) -> str:
    """Return the purpose of a stack (innermost frame first) within a training epoch."""
    for module, function in frames:
        if module in ("train/tasks/sample_metrics", "train/tasks/losses") and function in METRIC_FUNCTIONS:
            return "metrics"
        if module in MODULE_PURPOSES:
            return MODULE_PURPOSES[module]
        if (module, function) == ("train/stack_trainer", "train_epoch"):
            return "recording"  # lines of the loop itself
        if module.startswith("train/") and module != "train/rng":  # used for several purposes
            return "arithmetic"
    return "arithmetic"


def purpose_in_driver(frames: list[Frame]) -> str:
    """Return the purpose of a stack (innermost frame first) of the process that writes the database."""
    for module, function in frames:
        if module.startswith("store/"):
            return "SQLite"
        if (module, function) == ("executors/worker_pool", "receive"):
            return "receiving"
        if module == "runner/progress":
            return "progress"
        if (module, function) == ("runner/driver", "train"):
            return "driving"
    return "start-up"


_sampled_as: list[str] = []
"""Kinds under which this process is sampled, at most one."""


def watch_worker() -> None:
    """Start sampling this worker process by wall time, if FOLDER_VARIABLE is set and it is not sampled yet."""
    if FOLDER_VARIABLE in os.environ and not _sampled_as:
        _sampled_as.append("worker")
        sampler = Sampler(Path(os.environ[FOLDER_VARIABLE]), purpose_in_worker, "worker", time.perf_counter)
        signal.signal(signal.SIGALRM, sampler.sample)
        signal.setitimer(signal.ITIMER_REAL, SAMPLE_SECONDS, SAMPLE_SECONDS)


def watch_driver() -> Sampler:
    """Start sampling this driver process by CPU time."""
    sampler = Sampler(Path(os.environ[FOLDER_VARIABLE]), purpose_in_driver, "driver", time.process_time)
    signal.signal(signal.SIGPROF, sampler.sample)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
    _sampled_as.append("driver")  # the driver imports the same task module, which calls watch_worker
    return sampler
