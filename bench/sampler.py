"""Where a process of labbench spends its time: a look at its Python stack each millisecond, at what each part is for.

An interval belongs to what runs at its end. A signal interrupts, so that a look comes right after the operation in
which the time went by; the looks take about a hundredth of the time. What was seen so far is written down
ten times a second, since workers are killed when there is nothing more to train.
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
"""The environment variable that says where to write; without it nothing is looked at."""
SAMPLE_SECONDS = 0.001
WRITE_SECONDS = 0.1

Frame = tuple[str, str]
"""A module of labbench, as `train/loop`, else `torch/optim` or a file's name; a function in it."""

MODULE_PURPOSES = {
    "torch/optim": "optimizer",
    "train/engine/optimizers": "optimizer",
    "train/engine/schedules": "optimizer",
    "train/engine/dropout": "dropout",
    "train/data/dataset": "data",
    "train/data/loading": "data",
    "train/metric_buffer": "recording",
}
"""What a module does within an epoch of training; all others but those of `METRIC_FUNCTIONS` do arithmetic."""
METRIC_FUNCTIONS = {
    "compute_stacked_metrics",
    "is_argmax",
    "compute_metrics",
    "accuracy",
    "classification_accuracy",
    "add",
    "read",
}
"""Functions of `train/tasks/metrics` and `train/tasks/losses` that count what is not minimised."""


class Sampler:
    """Adds up seconds, of the wall's time or of the process's own, by purpose and labbench's innermost function."""

    def __init__(self, folder: Path, purpose: Callable[[list[Frame]], str], kind: str, clock: Callable[[], float]):
        self.purpose, self.clock = purpose, clock
        self.seconds: Counter[str] = Counter()
        self.file = folder / f"{kind}-{os.getpid()}.json"
        self.first, self.last, self.written = time.perf_counter(), clock(), 0.0

    def sample(self, number: int, frame: FrameType | None) -> None:
        now = self.clock()
        frames = list(iter_frames(frame))
        place = next((f"{module}.{function}" for module, function in frames if "/" in module), "")
        self.seconds[f"{self.purpose(frames)} {place}"] += now - self.last
        self.last = now
        if now - self.written > WRITE_SECONDS:
            self.written = now
            self.write()

    def write(self) -> None:
        beside = self.file.with_suffix(".new")  # a worker may be killed as it writes
        beside.write_text(json.dumps({"first": self.first, "seconds": self.seconds}))
        beside.replace(self.file)


def iter_frames(frame: FrameType | None) -> Iterator[Frame]:
    """From the innermost outwards."""
    while frame is not None:
        yield module_name(frame.f_code.co_filename), frame.f_code.co_name
        frame = frame.f_back


@cache
def module_name(filename: str) -> str:
    path = Path(filename)
    package = Path(labbench.__file__).parent
    if "torch/optim" in filename:
        return "torch/optim"
    return str(path.relative_to(package).with_suffix("")) if path.is_relative_to(package) else path.stem


def purpose_in_worker(frames: list[Frame]) -> str:
    """What a worker process does, from the innermost of its frames outwards."""
    if ("executors/worker_main", "train_and_listen") not in frames:
        sends = ("connection", "send") in frames
        return "recording" if sends else "idle" if ("connection", "recv") in frames else "preparing"
    if ("train/loop", "evaluate") in frames:
        return "validation"
    if ("train/loop", "train_epoch") in frames:
        return purpose_in_epoch(frames)
    functions = {function for module, function in frames if module == "train/loop"}
    return "recording" if functions & {"end_epoch", "record_epoch", "flush", "collect", "end_run"} else "preparing"


def purpose_in_epoch(frames: list[Frame]) -> str:
    for module, function in frames:
        if module in ("train/tasks/metrics", "train/tasks/losses") and function in METRIC_FUNCTIONS:
            return "metrics"
        if module in MODULE_PURPOSES:
            return MODULE_PURPOSES[module]
        if (module, function) == ("train/loop", "train_epoch"):
            return "recording"  # the loop's own lines
        if module.startswith("train/") and module != "train/rng":  # which serves several
            return "arithmetic"
    return "arithmetic"


def purpose_in_driver(frames: list[Frame]) -> str:
    """What the process does that writes the database."""
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
"""What this process is watched as."""


def watch_worker() -> None:
    """From now on look at this process by the wall's time, if anybody wants to know and does not look already."""
    if FOLDER_VARIABLE in os.environ and not _sampled_as:
        _sampled_as.append("worker")
        sampler = Sampler(Path(os.environ[FOLDER_VARIABLE]), purpose_in_worker, "worker", time.perf_counter)
        signal.signal(signal.SIGALRM, sampler.sample)
        signal.setitimer(signal.ITIMER_REAL, SAMPLE_SECONDS, SAMPLE_SECONDS)


def watch_driver() -> Sampler:
    """From now on look at this process by the time that it computes."""
    sampler = Sampler(Path(os.environ[FOLDER_VARIABLE]), purpose_in_driver, "driver", time.process_time)
    signal.signal(signal.SIGPROF, sampler.sample)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
    _sampled_as.append("driver")  # it is no worker, though it imports the same task
    return sampler
