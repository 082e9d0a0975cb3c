"""Benchmark the store with 10,000 runs and 10 million points: python bench/store_scale.py (2 minutes, 0.4 GB of disk).

Each row has a baseline measured at the same time: a plain table of points, GROUP BY instead of summaries, all points
instead of rollups. The ratios are comparable between machines, the absolute figures are not.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labbench.records import NewRun, Points, RunRecord, Submission
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.schema import DDL, statements
from labbench.store.series.curves import CurveRequest
from labbench.store.writer import Writer

TENSORBOARD_BYTES_PER_POINT = 44.0
"""Bytes per point of torch's SummaryWriter, for 50,000 steps with four scalars."""

LONG_STEPS, CURVE_STEPS, COLUMNS = 1_000_000, 1_000, 400
RUNS_PER_BATCH = 100


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of repeated calls."""

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    def format_range(self, scale: float, unit: str) -> str:
        low, high = min(self.seconds) * scale, max(self.seconds) * scale
        return f"{self.median * scale:,.3g} {unit} ({low:,.3g} - {high:,.3g})"


def time_calls(function: Callable[[], object], repetitions: int = 7) -> Timing:
    """Call a function repeatedly and time each call."""
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return Timing(seconds)


def print_row(title: str, goal: str, measured: str, baseline: str = "", ratio: str = "") -> None:
    print(f"{title:<46} {goal:<16} {measured:<28} {baseline:<42} {ratio}", flush=True)


def print_comparison(title: str, goal: str, measured: Timing, baseline: Timing, name: str, *, unit: str = "ms") -> None:
    """Print a row with a baseline, in ms, or in k/s for rates."""
    scale = {"ms": 1e3, "k/s": 1e-3}[unit]
    ratio = f"{measured.median / baseline.median:.3g}"
    print_row(title, goal, measured.format_range(scale, unit), f"{name}: {baseline.format_range(scale, unit)}", ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="empty folder in which the databases are kept")
    options = parser.parse_args()
    print_row(
        "measurement",
        "goal",
        "median (range)",
        "baseline",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        measure_writing(folder)
        measure_size(folder)
        path = folder / "scale.db"
        fill_database(path, options.runs)
        measure_reading(path)
        measure_late_point(path)


def measure_writing(folder: Path) -> None:
    """Write 50 points of 20 series per transaction, as a stack does, in turns with a plain table."""
    series, per_transaction, transactions = 20, 50, 60
    n = series * per_transaction * transactions
    store, plain = [], []
    for turn in range(5):
        with Writer(folder / f"write{turn}.db") as writer:
            runs = start_runs(writer, series)
            batches = list(make_batches(runs, per_transaction, transactions))
            store.append(time_calls(partial(call_each, writer.write, batches), 1).median)
        with closing(plain_table(folder / f"plain{turn}.db")) as connection:
            plain.append(time_calls(partial(call_each, partial(insert_points, connection), batches), 1).median)
    rates, plain_rates = Timing([n / seconds for seconds in store]), Timing([n / seconds for seconds in plain])
    title = f"points written, {series} series x {per_transaction} per tx"
    print_comparison(title, ">= 300 k/s", rates, plain_rates, "plain table", unit="k/s")


def call_each(function: Callable[[list[Points]], object], batches: Sequence[list[Points]]) -> None:
    for batch in batches:
        function(batch)


def make_batches(runs: Sequence[RunRecord], per_transaction: int, transactions: int) -> Iterator[list[Points]]:
    for start in range(0, per_transaction * transactions, per_transaction):
        steps = range(start, start + per_transaction)
        times = [7 * step for step in steps]
        yield [Points(run.key, run.attempt, "loss", steps, times, [random.random() for _ in steps]) for run in runs]


def plain_table(path: Path) -> sqlite3.Connection:
    """Create a database with the table of points only, with the same settings."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(next(statement for statement in statements(DDL) if "TABLE points" in statement))
    return connection


def insert_points(connection: sqlite3.Connection, batch: Sequence[Points]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for number, points in enumerate(batch):
        rows = zip(points.steps, points.times, points.values, strict=True)
        query = f"INSERT OR REPLACE INTO points VALUES ({number}, 1, ?, ?, ?)"
        connection.executemany(query, rows)
    connection.execute("COMMIT")


def measure_size(folder: Path) -> None:
    """Measure the file size of 50,000 steps with four scalars, as in bench/log_cost.py."""
    path = folder / "size.db"
    with Writer(path) as writer:
        [run] = start_runs(writer, 1)
        for start in range(0, 50_000, 1_000):
            steps = range(start, start + 1_000)
            writer.write(
                Points(run.key, run.attempt, metric, steps, steps, [random.random() for _ in steps])
                for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
            )
    [file] = folder.glob("size.db*")  # a single file after closing
    print_size(file, 200_000, "bytes per point, 4 x 50,000, closed")


def print_size(file: Path, n: int, title: str) -> None:
    """Print the bytes per point of a file with `n` points."""
    per_point = file.stat().st_size / n
    baseline = f"{TENSORBOARD_BYTES_PER_POINT:.0f} TensorBoard"
    print_row(title, "<= 0.7 of it", f"{per_point:.1f}", baseline, f"{per_point / TENSORBOARD_BYTES_PER_POINT:.3g}")


def fill_database(path: Path, runs: int) -> None:
    """Write `runs` runs with 850 training and 50 validation losses (1,000 training losses in the first 1,000 runs).

    One more run has a series of a million points.
    """
    n, started = 0, time.perf_counter()
    with Writer(path) as writer:
        for start in range(0, runs, RUNS_PER_BATCH):
            length = CURVE_STEPS if start < CURVE_STEPS else 850
            batch = start_runs(writer, RUNS_PER_BATCH, start)
            lengths = {"loss": length, "val/loss": 50}
            writer.write(make_curve(run, metric, size) for run in batch for metric, size in lengths.items())
            n += RUNS_PER_BATCH * (length + 50)
        [long] = start_runs(writer, 1, runs)
        writer.write([make_curve(long, "long", LONG_STEPS)])
        n += LONG_STEPS
    seconds = time.perf_counter() - started
    print_row(f"{runs + 1:,} runs, {n / 1e6:.1f} M points, written in", "", f"{seconds:.0f} s")
    print_size(path, n, "bytes per point, whole database, closed")


def start_runs(writer: Writer, count: int, first: int = 0) -> list[RunRecord]:
    new_runs = [NewRun(f"run {number}", {"lr": random.random(), "seed": number}, f"{number:064x}")
              for number in range(first, first + count)]  # fmt: skip
    queued = writer.queue(Submission("scale", "digits", {"val/loss": "min"}), new_runs)
    return writer.claim([run.key for run in queued])


def make_curve(run: RunRecord, metric: str, length: int) -> Points:
    steps = range(length)
    values = [1 / (step + 1) ** 0.5 + 0.1 * random.random() for step in steps]
    return Points(run.key, run.attempt, metric, steps, [7 * step for step in steps], values)


def measure_reading(path: Path) -> None:
    with Reader(path) as reader, closing(sqlite3.connect(path)) as connection:
        page = time_calls(lambda: reader.runs(sort="best(val/loss)", limit=50))
        query = """
            SELECT run_id FROM points WHERE metric_id = (SELECT id FROM metrics WHERE name = 'val/loss')
            GROUP BY run_id ORDER BY min(value) LIMIT 50
        """
        grouped = time_calls(lambda: connection.execute(query).fetchall(), 3)
        print_comparison("page of 50 runs by best val/loss", "<= 20 ms", page, grouped, "GROUP BY")

        [long] = reader.runs(f"name='run {reader.count() - 1}'")
        whole = time_calls(lambda: reader.series(long.key, "long"), 3)
        zooms = {
            "": (0, LONG_STEPS - 1),
            ", half": (LONG_STEPS // 4, 3 * LONG_STEPS // 4),
            ", a hundredth": (500_000, 510_000),
        }
        for name, (first, last) in zooms.items():
            draw = partial(reader.curves, [long.id], "long", CurveRequest(COLUMNS, first, last))
            print_comparison(
                f"curve of 1 M points, {COLUMNS} columns{name}", "<= 5 ms", time_calls(draw), whole, "all points"
            )

        many = reader.runs(limit=CURVE_STEPS, summaries=False)
        whole = time_calls(lambda: [reader.series(run.key, "loss") for run in many], 3)
        for name, times in (("", False), (", with times", True)):
            draw = partial(reader.curves, [run.id for run in many], "loss", CurveRequest(COLUMNS, times=times))
            print_comparison(
                f"1,000 curves of 1,000 points{name}", "<= 600 ms", time_calls(draw, 5), whole, "all points"
            )
    print_row("all summaries and rollups checked", "", time_calls(lambda: diagnose(path), 1).format_range(1, "s"))


def measure_late_point(path: Path) -> None:
    """Time a late point near the end of a series of a million points, and one at its start."""
    with Reader(path) as reader:
        [long] = reader.runs(f"name='run {reader.count() - 1}'")
    with Writer(path) as writer:
        for name, step, repetitions in (("end", LONG_STEPS - 50, 7), ("start", 0, 2)):
            late = Points(long.key, long.attempt, "long", [step], [7 * step], [0.5])
            timing = time_calls(partial(writer.write, [late]), repetitions)
            print_row(f"one of 1 M steps logged again, at the {name}", "", timing.format_range(1e3, "ms"))


if __name__ == "__main__":
    main()
