"""One tracker at work: what bench/log_cost.py starts, in the tool's own environment, one process a measurement.

    python bench/peers.py TOOL JOB FOLDER [NUMBER]

A job leaves what it measured in FOLDER/result.json. This file imports the standard library alone, and the tool.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

METRICS = ("train/loss", "train/accuracy", "val/loss", "lr")

KILOHERTZ_PERIOD_SECONDS = 0.001


class Tool:
    """A way to keep the numbers of a training run in a folder. One run a process."""

    share: ClassVar[float] = 1.0
    """Of the log calls that the others make, where all of them would take minutes."""

    def load(self) -> None:
        """Import it."""

    def warm(self) -> None:
        """Import what starting a run would import too."""

    def start(self, folder: Path) -> None:
        raise NotImplementedError

    def log(self, metrics: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        """Return when what was logged is in its files."""
        self.finish()

    def finish(self) -> None:
        """Return when everything is in its files, and the run has ended."""

    def count(self, folder: Path) -> int:
        """Log calls that can be read back."""
        raise NotImplementedError


class ListAppend(Tool):
    """The floor: nothing is kept."""

    def start(self, folder: Path) -> None:
        self.kept: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.kept.append((step, metrics))

    def count(self, folder: Path) -> int:
        return 0


class Csv(Tool):
    """A row a call, flushed: what people write themselves."""

    def start(self, folder: Path) -> None:
        import csv

        self.file = (folder / f"{os.getpid()}.csv").open("w", newline="")
        self.writer = csv.writer(self.file)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.writer.writerow((step, *metrics.values()))
        self.file.flush()

    def finish(self) -> None:
        self.file.close()

    def count(self, folder: Path) -> int:
        return sum(len(path.read_text().splitlines()) for path in folder.glob("*.csv"))


class Labbench(Tool):
    def load(self) -> None:
        import labbench

        self.module = labbench

    def warm(self) -> None:
        _ = self.module.start

    def start(self, folder: Path) -> None:
        self.run = self.module.start(db=folder / "runs.db")
        self.log = self.run.log  # type: ignore[method-assign] # the same arguments

    def settle(self) -> None:
        self.run.flush()

    def finish(self) -> None:
        self.run.finish()

    def count(self, folder: Path) -> int:
        with self.module.open(folder / "runs.db") as db:
            return sum(run.summary[METRICS[0]].n for run in db.runs() if METRICS[0] in run.summary)


class Trackio(Tool):
    def load(self) -> None:
        import trackio

        self.module = trackio

    def start(self, folder: Path) -> None:
        self.module.init(project="bench", name=f"run {os.getpid()}", embed=False)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.module.log(metrics, step=step)

    def finish(self) -> None:
        self.module.finish()

    def count(self, folder: Path) -> int:
        return _query_count(folder / "trackio/bench.db", "SELECT count(*) FROM metrics")


class TensorBoard(Tool):
    def load(self) -> None:
        from torch.utils import tensorboard

        self.module = tensorboard

    def start(self, folder: Path) -> None:
        self.writer = self.module.SummaryWriter(str(folder / "events"))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def settle(self) -> None:
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()

    def count(self, folder: Path) -> int:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        events = (event for path in (folder / "events").iterdir() for event in EventFileLoader(str(path)).Load())
        return sum(value.tag == METRICS[0] for event in events for value in event.summary.value)


class Wandb(Tool):
    """Offline."""

    def load(self) -> None:
        import wandb

        self.module = wandb

    def start(self, folder: Path) -> None:
        self.module.init(project="bench", mode="offline", dir=str(folder))

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.module.log(metrics, step=step)

    def finish(self) -> None:
        self.module.finish()

    def count(self, folder: Path) -> int:
        from wandb.proto import wandb_internal_pb2

        paths = folder.glob("wandb/offline-run-*/*.wandb")
        records = (
            wandb_internal_pb2.Record.FromString(data) for path in paths for data in _read_records(path.read_bytes())
        )
        return sum(record.WhichOneof("record_type") == "history" for record in records)


class Mlflow(Tool):
    share = 0.02

    def load(self) -> None:
        import mlflow

        self.module = mlflow

    def start(self, folder: Path) -> None:
        self.module.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        self.module.start_run()

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.module.log_metrics(metrics, step=step)

    def finish(self) -> None:
        self.module.end_run()

    def count(self, folder: Path) -> int:
        return _query_count(folder / "mlflow.db", f"SELECT count(*) FROM metrics WHERE key = '{METRICS[0]}'")


class Aim(Tool):
    share = 0.1

    def load(self) -> None:
        import aim

        self.module = aim

    def start(self, folder: Path) -> None:
        self.run = self.module.Run(repo=str(folder / "repo"))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.run.track(value, name=name, step=step)

    def finish(self) -> None:
        self.run.close()

    def count(self, folder: Path) -> int:
        repo = self.module.Repo(str(folder / "repo"))
        described = (repo.request_tree("meta", run, read_only=True).subtree(("meta", "chunks", run)).collect()
                     for run in repo.list_all_runs())  # fmt: skip
        contexts = (context for run in described for context in run.get("traces", {}).values())
        return sum(context[METRICS[0]]["last_step"] + 1 for context in contexts if METRICS[0] in context)


TOOLS: dict[str, type[Tool]] = {
    "list": ListAppend, "labbench": Labbench, "csv": Csv, "trackio": Trackio, "tensorboard": TensorBoard,
    "wandb": Wandb, "mlflow": Mlflow, "aim": Aim,
}  # fmt: skip


def _query_count(path: Path, query: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(query).fetchone()[0])


def _read_records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, behind a header of 7 bytes."""
    at, begun = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        begun += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def make_metrics(step: int) -> dict[str, float]:
    """Four scalars, in a dict that is made anew each time, as scripts do."""
    return {METRICS[0]: 1.0 / (step + 1), METRICS[1]: 0.5, METRICS[2]: 0.25 + step * 1e-6, METRICS[3]: 0.1}


# The jobs.


def run_load(tool: Tool, folder: Path, _: int) -> dict[str, Any]:
    """Seconds that it takes to import the tool, to begin a run in an empty folder, to have a first value on disk."""
    began = time.perf_counter()
    tool.load()
    loaded = time.perf_counter()
    tool.start(folder)
    started = time.perf_counter()
    tool.log(make_metrics(0), 0)
    tool.settle()
    return {
        "import": loaded - began,
        "start": started - loaded,
        "import, start": started - began,
        "import, start, first value kept": time.perf_counter() - began,
    }


def run_flat(tool: Tool, folder: Path, calls: int) -> dict[str, Any]:
    """Log without a pause: nanoseconds a call, seconds until all of it is durable, bytes, files."""
    tool.load()
    tool.start(folder)
    nanoseconds = []
    began = time.perf_counter()
    for step in range(calls):
        metrics = make_metrics(step)
        called = time.perf_counter_ns()
        tool.log(metrics, step)
        nanoseconds.append(time.perf_counter_ns() - called)
    tool.finish()
    seconds = time.perf_counter() - began
    size, files = _folder_size(folder)
    points = calls * len(METRICS)
    return _latency_quantiles(nanoseconds) | {"durable": seconds, "bytes": size / points, "files": files}


def run_paced(tool: Tool, folder: Path, calls: int) -> dict[str, Any]:
    """Log once every 2 ms, as a training loop does that has something to do in between."""
    tool.load()
    tool.start(folder)
    nanoseconds = []
    for step in range(calls):
        metrics = make_metrics(step)
        called = time.perf_counter_ns()
        tool.log(metrics, step)
        nanoseconds.append(time.perf_counter_ns() - called)
        time.sleep(0.002)
    tool.finish()
    return _latency_quantiles(nanoseconds)


def run_endless(tool: Tool, folder: Path, pause: int) -> dict[str, Any]:
    """Log until killed, once a millisecond or, for a `pause` of 0, at once again; counts the calls in FOLDER/said."""
    with (folder / "said").open("w+b") as file:
        file.write(bytes(8))
        file.flush()
        said = mmap.mmap(file.fileno(), 8)
    tool.load()
    tool.start(folder)
    step, due = 0, time.perf_counter()
    while True:
        tool.log(make_metrics(step), step)
        step += 1
        said[:] = step.to_bytes(8, "little")
        due += KILOHERTZ_PERIOD_SECONDS
        if pause and (left := due - time.perf_counter()) > 0:
            time.sleep(left)


def run_ends(tool: Tool, folder: Path, how: int) -> dict[str, Any]:
    """Log 500 times and come to an end without `finish`: see ENDINGS."""
    tool.load()
    tool.start(folder)
    for step in range(500):
        tool.log(make_metrics(step), step)
    ENDINGS[[*ENDINGS][how]]()
    return {}


def _raise() -> None:
    raise ValueError("as training scripts do")


ENDINGS: dict[str, Callable[[], object]] = {
    "end": lambda: None,
    "exception": _raise,
    "sys.exit": lambda: sys.exit(3),
    "SIGTERM": lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(5)),
    "Ctrl-C": lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5)),
}


def run_crowd(tool: Tool, folder: Path, calls: int) -> dict[str, Any]:
    """One of several processes on one folder: all load, wait for the word, then log and finish."""
    tool.load()
    tool.warm()
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    tool.start(folder)
    for step in range(calls):
        tool.log(make_metrics(step), step)
    tool.finish()
    (folder / f"done-{os.getpid()}").write_text(str(time.time()))
    return {}


def run_count(tool: Tool, folder: Path, _: int) -> dict[str, Any]:
    """How many log calls are in the files."""
    tool.load()
    return {"calls": tool.count(folder)}


JOBS: dict[str, Callable[[Tool, Path, int], dict[str, Any]]] = {
    job.__name__.removeprefix("run_"): job
    for job in (run_load, run_flat, run_paced, run_endless, run_ends, run_crowd, run_count)
}


def _latency_quantiles(nanoseconds: list[int]) -> dict[str, float]:
    ordered = sorted(nanoseconds)
    shares = {"median": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: ordered[int(share * len(ordered))] / 1e3 for name, share in shares.items()}


def _folder_size(folder: Path) -> tuple[int, int]:
    """(bytes, files) of what the tool has left in the folder, its log files apart."""
    others = {"logs", "home", "out", "result.json"}
    files = [path for path in folder.rglob("*") if path.is_file() and not others & {*path.relative_to(folder).parts}]
    return sum(path.stat().st_size for path in files), len(files)


def main() -> None:
    name, job, place, number = [*islice([*sys.argv[1:], "0"], 4)]
    folder = Path(place).resolve()
    result = JOBS[job](TOOLS[name](), folder, int(number))
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
