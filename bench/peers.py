"""Run one job with one tracker, in the tool's environment; bench/log_cost.py starts a process per measurement.

    python bench/peers.py TOOL JOB FOLDER [NUMBER]

A job writes its result to FOLDER/result.json. This file imports the standard library and the tool only.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

METRICS = ("train/loss", "train/accuracy", "val/loss", "lr")

KILOHERTZ_PERIOD_SECONDS = 0.001


class Tool:
    """Interface of a tracker that records a run's metrics in a folder; one run per process."""

    share: ClassVar[float] = 1.0
    """Share of the log calls of other tools, below 1 for tools that would take minutes."""

    def load(self) -> None:
        """Import the tool."""

    def warm(self) -> None:
        """Import modules that are otherwise imported when a run starts."""

    def start(self, folder: Path) -> None:
        """Start a run in a folder."""
        raise NotImplementedError

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log the metrics of one step."""
        raise NotImplementedError

    def settle(self) -> None:
        """Flush: return when all logged values are in files."""
        self.finish()

    def finish(self) -> None:
        """End the run; return when everything is in files."""

    def count(self, folder: Path) -> int:
        """Return the number of log calls that can be read back."""
        raise NotImplementedError


class ListAppend(Tool):
    """Lower bound: values are appended to a list and not written."""

    def start(self, folder: Path) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))

    def count(self, folder: Path) -> int:
        return 0


class Csv(Tool):
    """CSV file with a flush after each row, as in scripts without a tracker."""

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
    """Weights & Biases in offline mode."""

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
        chunks = (repo.request_tree("meta", run, read_only=True).subtree(("meta", "chunks", run)).collect()
                     for run in repo.list_all_runs())  # fmt: skip
        contexts = (context for run in chunks for context in run.get("traces", {}).values())
        return sum(context[METRICS[0]]["last_step"] + 1 for context in contexts if METRICS[0] in context)


TOOLS: dict[str, type[Tool]] = {
    "list": ListAppend, "labbench": Labbench, "csv": Csv, "trackio": Trackio, "tensorboard": TensorBoard,
    "wandb": Wandb, "mlflow": Mlflow, "aim": Aim,
}  # fmt: skip


def _query_count(path: Path, query: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(query).fetchone()[0])


def _read_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, after a header of 7 bytes."""
    offset, record = 7, b""
    while offset + 7 <= len(data):
        if (padding := 32768 - offset % 32768) < 7:
            offset += padding
            continue
        length, kind = int.from_bytes(data[offset + 4 : offset + 6], "little"), data[offset + 6]
        record += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield record
            record = b""


def make_metrics(step: int) -> dict[str, float]:
    """Return a new dict of four scalars, as a training script passes to `log`."""
    return {METRICS[0]: 1.0 / (step + 1), METRICS[1]: 0.5, METRICS[2]: 0.25 + step * 1e-6, METRICS[3]: 0.1}


# Jobs


def run_load(tool: Tool, folder: Path, _: int) -> dict[str, Any]:
    """Return the seconds to import the tool, start a run in an empty folder, and have the first value on disk."""
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
    """Log without a pause; return latencies in microseconds, seconds until all is durable, bytes per point, files."""
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
    """Log every 2 ms, as a training loop with other work does; return latencies in microseconds."""
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
    """Log until killed, at 1 kHz or, with a `pause` of 0, without a pause; count the calls in FOLDER/counter."""
    with (folder / "counter").open("w+b") as file:
        file.write(bytes(8))
        file.flush()
        counter = mmap.mmap(file.fileno(), 8)
    tool.load()
    tool.start(folder)
    step, due = 0, time.perf_counter()
    while True:
        tool.log(make_metrics(step), step)
        step += 1
        counter[:] = step.to_bytes(8, "little")
        due += KILOHERTZ_PERIOD_SECONDS
        if pause and (remaining := due - time.perf_counter()) > 0:
            time.sleep(remaining)


def run_ends(tool: Tool, folder: Path, ending: int) -> dict[str, Any]:
    """Log 500 times and end without `finish`, in the way ENDINGS has at index `ending`."""
    tool.load()
    tool.start(folder)
    for step in range(500):
        tool.log(make_metrics(step), step)
    ENDINGS[[*ENDINGS][ending]]()
    return {}


def _raise() -> None:
    raise ValueError("simulated error of a training script")


ENDINGS: dict[str, Callable[[], object]] = {
    "end": lambda: None,
    "exception": _raise,
    "sys.exit": lambda: sys.exit(3),
    "SIGTERM": lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(5)),
    "Ctrl-C": lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5)),
}


def run_crowd(tool: Tool, folder: Path, calls: int) -> dict[str, Any]:
    """Log from one of several processes on one folder: load, wait for FOLDER/go, log, finish."""
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
    """Return the number of log calls in the files."""
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
    """Return the number of bytes and of files that the tool wrote to the folder, without its log files."""
    excluded = {"logs", "home", "out", "result.json"}
    files = [path for path in folder.rglob("*") if path.is_file() and not excluded & {*path.relative_to(folder).parts}]
    return sum(path.stat().st_size for path in files), len(files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", metavar="TOOL", choices=TOOLS, help=", ".join(TOOLS))
    parser.add_argument("job", metavar="JOB", choices=JOBS, help=", ".join(JOBS))
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("number", metavar="NUMBER", type=int, nargs="?", default=0)
    options = parser.parse_args()
    folder = options.folder.resolve()
    result = JOBS[options.job](TOOLS[options.tool](), folder, options.number)
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
