"""Compare imports and exports with the programs whose formats they are, in speed and memory.

    python bench/interop.py tensorboard --peer /tmp/envs/tensorboard/bin/python
    python bench/interop.py wandb --peer /tmp/envs/wandb-0.29/bin/python
    python bench/interop.py mlflow
    python bench/interop.py csv
    python bench/pull_lag.py

`--peer` is the Python of an environment with tensorboard, or with wandb 0.29, the last release with a reader of its own
files (`wandb.sdk.internal.datastore`). The two sides take turns, each in a process of its own; the median ratio of
their times is printed with its range. Times are printed as seconds of the clock and of the processor: on a busy machine
compare the latter. Memory is the largest resident size of a process. `--scale 0.01` tries a bench with less data.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from labbench.export.event_records import bytes_field, double_field, frame_records, integer_field
from labbench.importing.file_types.wandb_file import read_records
from labbench.store.writer import Writer

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "writers"

N_SCALARS, N_TAGS = 1_000_000, 10
N_WANDB_RUNS, N_WANDB_STEPS = 1_000, 1_000
N_MLFLOW_ROWS, N_MLFLOW_RUNS = 100_000, 10
N_CSV_POINTS, N_CSV_RUNS = 1_000_000, 10

TIMER = """
import json, resource, sys, time
def report(count):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    times = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps([*times, usage.ru_maxrss / 1024, count]))
"""

READ_EVENTS = """
from pathlib import Path
from labbench.importing.tensorboard import find_runs
start, cpu = time.perf_counter(), time.process_time()
[run] = [found.read() for found in find_runs(Path(sys.argv[1]))]
report(sum(len(series.steps) for series in run.series.values()))
"""

READ_EVENTS_BY_TENSORBOARD = """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
start, cpu = time.perf_counter(), time.process_time()
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
report(sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"]))
"""

READ_WANDB = """
from pathlib import Path
from labbench.importing.wandb import find_runs
start, cpu = time.perf_counter(), time.process_time()
count = 0
for found in find_runs(Path(sys.argv[1])):
    count += sum(len(series.steps) for series in found.read().series.values())
report(count)
"""

READ_WANDB_BY_WANDB = """
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.internal.datastore import DataStore
start, cpu = time.perf_counter(), time.process_time()
count = 0
for file in sorted(Path(sys.argv[1]).rglob("*.wandb")):
    store = DataStore()
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        for item in record.history.item:
            value = json.loads(item.value_json) if item.value_json else None
            key = item.key or ".".join(item.nested_key)
            count += isinstance(value, (int, float)) and not key.startswith("_")
report(count)
"""

IMPORT_MLFLOW = """
from pathlib import Path
from labbench.importing.import_runs import import_runs
from labbench.importing.mlflow import find_runs
start, cpu = time.perf_counter(), time.process_time()
result = import_runs(Path(sys.argv[2]), find_runs(Path(sys.argv[1])), "mlflow")
report(result.n_points)
"""

COPY_MLFLOW = """
import sqlite3
start, cpu = time.perf_counter(), time.process_time()
source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
rows = source.execute("SELECT run_uuid, key, step, timestamp, value FROM metrics").fetchall()
target.execute("PRAGMA journal_mode = WAL")
target.execute("CREATE TABLE points (run, metric, step, time, value, PRIMARY KEY (run, metric, step)) WITHOUT ROWID")
with target:
    target.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", rows)
report(len(rows))
"""

EXPORT_CSV = """
from pathlib import Path
from labbench.export.table_files import write_csv
from labbench.store.reader import Reader
start, cpu = time.perf_counter(), time.process_time()
with Reader(Path(sys.argv[1])) as reader, open(sys.argv[2], "w", newline="") as file:
    write_csv(reader, None, file)
report(sum(1 for _ in open(sys.argv[2])) - 1)
"""

WRITE_CSV = """
import csv
from pathlib import Path
from labbench.store.queries.export_tables import LONG_COLUMNS
from labbench.store.reader import Reader
with Reader(Path(sys.argv[1])) as reader:
    rows = [tuple(point) for point in reader.points()]
start, cpu = time.perf_counter(), time.process_time()
with open(sys.argv[2], "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(LONG_COLUMNS)
    writer.writerows(rows)
report(len(rows))
"""


@dataclass(frozen=True)
class Timing:
    """Measurement of one process."""

    seconds: float
    cpu_seconds: float
    mb: float
    count: int
    """Number of points."""


def run_code(code: str, *words: str | Path, python: str = sys.executable) -> Timing:
    """Run code that reports a timing in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if python == sys.executable else ""}
    command = [python, "-c", TIMER + code, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise SystemExit(result.stderr)
    return Timing(*json.loads(result.stdout.splitlines()[-1]))


def run_command(*words: str | Path) -> Timing:
    """Run a labbench command from its start to its end."""
    code = (
        "import subprocess\n"
        "start, cpu = time.perf_counter(), 0.0\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "seconds = time.perf_counter() - start\n"
        "print(json.dumps([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, 0]))\n"
    )
    return run_code(code, sys.executable, "-m", "labbench", *words)


def compare(title: str, goal: float, ours: Callable[[], Timing], theirs: Callable[[], Timing], rounds: int) -> None:
    """Let two sides take turns, and print the ratio of their times."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    for kind in ("seconds", "cpu_seconds"):
        ratios = sorted(getattr(mine, kind) / getattr(other, kind) for mine, other in pairs)
        medians = [statistics.median(getattr(side, kind) for side in sides) for sides in zip(*pairs, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        print(f"{title}, {kind.replace('_', ' ')}: {ratio} of the peer's, goal {goal:g}; {medians[0]:.2f} and ", end="")
        print(f"{medians[1]:.2f} s")
    memory = [max(side.mb for side in sides) for sides in zip(*pairs, strict=True)]
    counts = {(mine.count, other.count) for mine, other in pairs}
    print(f"{title}: {memory[0]:.0f} and {memory[1]:.0f} MB; points {counts}", flush=True)


def bench_tensorboard(folder: Path, arguments: argparse.Namespace) -> None:
    """Read and import one event file of scalars."""
    logs = folder / "logs"
    logs.mkdir()
    with (logs / "events.out.tfevents.1.host").open("wb") as file:
        file.write(frame_records([double_field(1, 1e9) + bytes_field(3, "brain.Event:2")]))
        for chunk in event_chunks(round(N_SCALARS * arguments.scale)):
            file.write(frame_records(chunk))

    def import_events() -> Timing:
        (folder / "runs.db").unlink(missing_ok=True)
        return run_command("--db", folder / "runs.db", "import", "tensorboard", logs)

    peer = lambda: run_code(READ_EVENTS_BY_TENSORBOARD, logs, python=arguments.peer)  # noqa: E731
    compare("tensorboard, reading", 0.25, lambda: run_code(READ_EVENTS, logs), peer, arguments.rounds)
    compare("tensorboard, import", 0.5, import_events, peer, arguments.rounds)


def event_chunks(n_scalars: int) -> Iterator[list[bytes]]:
    """Yield records as torch's SummaryWriter writes them, some at a time."""
    for start in range(0, n_scalars, 100_000):
        records = []
        for number in range(start, min(start + 100_000, n_scalars)):
            step, tag = divmod(number, N_TAGS)
            value = b"\x15" + struct.pack("<f", 1 / (1 + step))
            summary = bytes_field(1, bytes_field(1, f"metric/{tag}") + value)
            records.append(double_field(1, 1e9 + number / 100) + integer_field(2, step) + bytes_field(5, summary))
        yield records


def bench_wandb(folder: Path, arguments: argparse.Namespace) -> None:
    """Read the files of many offline runs, and import them."""
    [sample] = [file for file in (SAMPLES / "wandb").rglob("*.wandb") if b"first" in file.read_bytes()]
    records = list(read_records(sample))
    n_runs = max(1, round(N_WANDB_RUNS * arguments.scale))
    for number in range(n_runs):
        target = folder / "wandb" / f"offline-run-{number}" / f"run-{number}.wandb"
        target.parent.mkdir(parents=True)
        target.write_bytes(wandb_file(wandb_records(records, sample.stem.removeprefix("run-"), f"{number:08d}")))

    def import_wandb() -> Timing:
        (folder / "runs.db").unlink(missing_ok=True)
        return run_command("--db", folder / "runs.db", "import", "wandb", folder / "wandb")

    size = sum(file.stat().st_size for file in folder.rglob("*.wandb"))
    print(f"wandb: {n_runs} files of {N_WANDB_STEPS} steps, {size / 1e6:.0f} MB")
    peer = lambda: run_code(READ_WANDB_BY_WANDB, folder / "wandb", python=arguments.peer)  # noqa: E731
    compare("wandb, reading", 0.3, lambda: run_code(READ_WANDB, folder / "wandb"), peer, arguments.rounds)
    compare("wandb, import", 0.3, import_wandb, peer, arguments.rounds)


def wandb_records(records: Sequence[bytes], old_id: str, new_id: str) -> Iterator[bytes]:
    """Yield the records of a real run under another id, its log calls repeated to `N_WANDB_STEPS` steps."""
    history = [record for record in records if b"_step" in record and b"val" in record and b"loss" in record]
    for record in records:
        if record not in history:
            yield record.replace(old_id.encode(), new_id.encode())
        elif record == history[0]:
            yield from map(history_record, range(N_WANDB_STEPS))


def history_record(step: int) -> bytes:
    """Return a record of one log call as wandb writes it: items with their keys, in any order, and the step."""
    values = {("loss",): 1 / (1 + step), ("val", "accuracy"): step / 1000, ("lr",): 0.1, ("epoch",): step // 10}
    values |= {("_step",): step, ("_runtime",): step / 7, ("_timestamp",): 1.7e9 + step}
    items = b""
    for keys, value in random.Random(step).sample([*values.items()], len(values)):
        names = b"".join(bytes_field(2, key) for key in keys)
        items += bytes_field(1, names + bytes_field(16, json.dumps(value)))
    return integer_field(1, 7 + 3 * step) + bytes_field(2, items + bytes_field(2, integer_field(1, step)))


def wandb_file(records: Iterator[bytes]) -> bytes:
    """Return a file of records in the framing of LevelDB's log, with the header of W&B."""
    data = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        rest, is_first = record, True
        while is_first or rest:
            left = 32768 - len(data) % 32768
            if left < 7:
                data += bytes(left)
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (1 if not rest else 2) if is_first else (3 if rest else 4)
            data += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            is_first = False
    return bytes(data)


def bench_mlflow(folder: Path, arguments: argparse.Namespace) -> None:
    """Import the metrics of an MLflow database."""
    database = folder / "mlflow.db"
    shutil.copy(SAMPLES / "mlflow" / "files" / "mlflow.db", database)
    with closing(sqlite3.connect(database)) as connection, connection:
        [row] = connection.execute("SELECT * FROM runs LIMIT 1").fetchall()
        names = [name for _, name, *_ in connection.execute("PRAGMA table_info(runs)")]
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            connection.execute(f"DELETE FROM {table}")
        n_steps = round(N_MLFLOW_ROWS * arguments.scale) // N_MLFLOW_RUNS // N_TAGS
        for number in range(N_MLFLOW_RUNS):
            values = {**dict(zip(names, row, strict=True)), "run_uuid": f"{number:032x}", "name": f"run {number}"}
            marks = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO runs ({', '.join(values)}) VALUES ({marks})", [*values.values()])
            points = [
                (f"metric {tag}", step / 7, 1_700_000_000_000 + step, values["run_uuid"], step, False)
                for step in range(n_steps)
                for tag in range(N_TAGS)
            ]
            query = "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
            connection.executemany(query, points)

    def in_new_database(code: str) -> Timing:
        for file in folder.glob("target.db*"):
            file.unlink()
        return run_code(code, database, folder / "target.db")

    compare("mlflow", 2, lambda: in_new_database(IMPORT_MLFLOW), lambda: in_new_database(COPY_MLFLOW), arguments.rounds)


def bench_csv(folder: Path, arguments: argparse.Namespace) -> None:
    """Export points as a long CSV."""
    from labbench.records import NewRun, Points, Submission

    n_points = round(N_CSV_POINTS * arguments.scale) // N_CSV_RUNS
    with Writer(folder / "runs.db") as writer:
        new = [NewRun(f"run {number}", {"seed": number}, f"{number:064x}") for number in range(N_CSV_RUNS)]
        runs = writer.queue(Submission("bench", task="digits"), new)
        for run in writer.claim([run.key for run in runs]):
            for start in range(0, n_points, 50_000):
                steps = list(range(start, min(start + 50_000, n_points)))
                values = [1 / (1 + step) for step in steps]
                writer.write([Points(run.key, run.attempt, "train/loss", steps, [3 * step for step in steps], values)])
    words = folder / "runs.db", folder / "out.csv"
    compare("csv", 1.2, lambda: run_code(EXPORT_CSV, *words), lambda: run_code(WRITE_CSV, *words), arguments.rounds)


BENCHES = {"tensorboard": bench_tensorboard, "wandb": bench_wandb, "mlflow": bench_mlflow, "csv": bench_csv}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=list(BENCHES))
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="Python with the other program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the data")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labbench-") as folder:
        start = time.perf_counter()
        BENCHES[arguments.bench](Path(folder), arguments)
        print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
