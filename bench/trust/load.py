"""Load: many processes, runs, points, metrics and keys, and long sessions; figures of time, memory and descriptors.

The long form has the full sizes; the CI form has about a hundredth of them.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.trust.checks import database_fault, leftover_fault, read_points
from bench.trust.processes import Place, labbench_words
from bench.trust.results import SMALL, Outcome
from labbench.records import Finished, NewRun, Points, Started, Submission
from labbench.store.reader import Reader
from labbench.store.writer import Writer

MAX_SECONDS, MAX_MB = 60.0, 500.0
"""Limits of a reading command."""

SCRIPT = """
import labbench, sys
with labbench.start(f"run {sys.argv[1]}", experiment="load", db="runs.db", system_metrics=False) as run:
    for step in range(int(sys.argv[2])):
        run.log({"loss": step / 2, "negative": -step})
"""

READERS = (
    ["ls"], ["ls", "--json"], ["ls", "--sort", "best(val/loss)", "--limit", "10"], ["why", "val/loss"],
    ["plot", "val/loss", "--group", "lr"], ["export", "--summary", "-o", "summary.csv"], ["doctor"],
)  # fmt: skip


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial: the kinds in turn."""

    def run_trial(_: int, number: int) -> Iterator[Outcome]:
        place = Place(folder / "work").make()
        yield from KINDS[number](place)
        place.survivors(seconds=0)
        shutil.rmtree(place.folder)

    return run_trial


def processes(place: Place) -> Iterator[Outcome]:
    """Log from many processes into one new file at once."""
    n, n_steps = (16, 100) if SMALL else (64, 1000)
    (place.folder / "train.py").write_text(SCRIPT)
    started = time.monotonic()
    children = [place.start([sys.executable, "train.py", str(i), str(n_steps)]) for i in range(n)]
    exit_statuses = [child.wait(300) for child in children]
    database = place.folder / "runs.db"
    n_points = len(read_points(database))
    fault = f"exit statuses {exit_statuses}" if any(exit_statuses) else None
    if n_points != n * n_steps * 2:
        fault = f"{n_points} of {n * n_steps * 2} points"
    fault = fault or database_fault(database) or leftover_fault(place, database)
    yield Outcome(f"{n} processes into one file (figure: s)", fault, time.monotonic() - started)


def runs(place: Place) -> Iterator[Outcome]:
    """Read a database of many runs."""
    n = 200 if SMALL else 10_000
    write_runs(place.folder / "runs.db", n, n_points=3, n_metrics=2, n_keys=4)
    yield from _read(place, f"{n:,} runs")


def wide(place: Place) -> Iterator[Outcome]:
    """Read runs with many metrics and configuration keys."""
    n_metrics, n_keys = (50, 30) if SMALL else (500, 300)
    write_runs(place.folder / "runs.db", 20, n_points=5, n_metrics=n_metrics, n_keys=n_keys)
    yield from _read(place, f"{n_metrics} metrics, {n_keys} keys")


def points(place: Place) -> Iterator[Outcome]:
    """Write and read a growing database; the figure is microseconds per point at each size."""
    sizes = (20_000, 100_000) if SMALL else (1_000_000, 5_000_000, 20_000_000)
    database = place.folder / "runs.db"
    written = 0
    for size in sizes:
        started = time.monotonic()
        write_runs(database, 10, n_points=(size - written) // 20, n_metrics=2, n_keys=2, experiment=f"e{size}")
        seconds = time.monotonic() - started
        yield Outcome(f"{size:,} points written (figure: us a point)", None, 1e6 * seconds / (size - written))
        written = size
        yield from _read(place, f"{size:,} points")


def long_run(place: Place) -> Iterator[Outcome]:
    """Read one run of many steps."""
    n = 100_000 if SMALL else 10_000_000
    write_runs(place.folder / "runs.db", 1, n_points=n, n_metrics=1, n_keys=2)
    yield from _read(place, f"a run of {n:,} steps")


def openings(place: Place) -> Iterator[Outcome]:
    """Open and close readers, writers and runs many times in one process; nothing may accumulate."""
    import labbench

    n = 100 if SMALL else 1000
    database = place.folder / "runs.db"
    write_runs(database, 2, n_points=10, n_metrics=1, n_keys=1)
    counts = []
    for i in range(n):
        with Writer(database) as writer:
            writer.tag([], add=[])
        with Reader(database) as reader:
            reader.runs()
        if i % 10 == 0:
            with labbench.start(f"run {i}", experiment="load", db=database, system_metrics=False) as run:
                run.log({"a": i})
        counts.append(len([*Path("/proc/self/fd").iterdir()]) + threading.active_count())
    fault = f"descriptors and threads: {counts[20]}, then {counts[-1]}" if counts[-1] > counts[20] + 2 else None
    yield Outcome(f"{n} times opened and closed (figure: descriptors and threads)", fault, counts[-1])


LIVE_SECONDS = 12.0 if SMALL else 600.0
"""Seconds for which the interface watches a live database."""


def interface(place: Place) -> Iterator[Outcome]:
    """Use the interface on a database that is written all the time; its memory must not grow with time."""
    seconds = LIVE_SECONDS
    program = (
        SCRIPT.replace("import labbench, sys", "import labbench, sys, time").rstrip() + "\n        time.sleep(0.01)\n"
    )
    (place.folder / "train.py").write_text(program)
    database = place.folder / "runs.db"
    writers = [place.start([sys.executable, "train.py", str(i), str(int(seconds * 80))]) for i in range(2)]
    while not database.exists():
        time.sleep(0.05)
    program = f"""
import asyncio, pathlib, psutil
from labbench.tui.app import LabbenchApp
async def watch():
    app = LabbenchApp(pathlib.Path("runs.db"))
    async with app.run_test(size=(140, 45)) as pilot:
        await pilot.press("space", "j", "space", "enter", "escape")
        sizes = []
        for _ in range(20):
            await pilot.press("y", "s", "plus", "minus", "j", "k", "2", "3", "4", "1")
            await pilot.pause({seconds / 20})
            sizes.append(psutil.Process().memory_info().rss / 2**20)
        print(max(sizes[10:]) - max(sizes[:10]))
asyncio.run(watch())
"""
    ended = place.run([sys.executable, "-c", program], timeout=seconds * 3 + 60)
    for writer in writers:
        writer.wait(120)
    fault = ended.fault()
    growth = float(ended.out.strip() or "nan") if fault is None else 0.0
    if fault is None and growth > 30:
        fault = f"memory grew by {growth:.0f} MB"
    yield Outcome(f"interface, {seconds:.0f} s live (figure: MB of the second half more)", fault, growth)


KINDS = (processes, runs, wide, points, long_run, openings, interface)
N_TRIALS = len(KINDS)


def write_runs(database: Path, n: int, *, n_points: int, n_metrics: int, n_keys: int, experiment: str = "load") -> None:
    """Write finished runs with all points of a metric in chunks of 100,000."""
    metrics = ["val/loss", *(f"m{i}" for i in range(n_metrics - 1))]
    configs = [
        {"lr": 0.1 / (1 + i % 5), "seed": i // 5, **{f"k{k}": i % (k + 2) for k in range(n_keys)}} for i in range(n)
    ]
    new = [
        NewRun(f"{experiment} {i}", config, f"{experiment}{i}".encode().hex().zfill(64))
        for i, config in enumerate(configs)
    ]
    with Writer(database) as writer:
        queued = writer.queue(Submission(experiment, "digits", {"val/loss": "min"}), new)
        for start in range(0, n, 500):
            for run in writer.claim([run.key for run in queued[start : start + 500]]):
                events: list[object] = [Started(run.key, 1, "host", 1, "cpu")]
                for first in range(0, n_points, 100_000):
                    steps = range(first, min(n_points, first + 100_000))
                    values = [1 / (1 + step % 977) for step in steps]
                    events += [Points(run.key, 1, metric, steps, steps, values) for metric in metrics]
                    writer.write(events)  # type: ignore[arg-type]
                    events = []
                writer.write([Finished(run.key, 1, "finished", "all epochs")])


def _read(place: Place, what: str) -> Iterator[Outcome]:
    """Run the reading commands; the figure is the slowest one in seconds."""
    for words in READERS:
        ended = place.run(labbench_words(*words), timeout=MAX_SECONDS * 5)
        fault = ended.fault()
        if fault is None and words[0] != "doctor" and ended.seconds > MAX_SECONDS:
            fault = f"{ended.seconds:.0f} s"
        if fault is None and ended.peak_mb > MAX_MB:
            fault = f"{ended.peak_mb:.0f} MB"
        yield Outcome(f"{what}: {words[0]} (figure: s)", fault and f"{' '.join(words)}: {fault}", ended.seconds)
