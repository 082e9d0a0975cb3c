"""Load of one driver: simulated workers that report points at a fixed rate, recorded in one database.

    python -m bench.scale                          # 1,000 workers x 100 points/s for 60 s
    python -m bench.scale --spread 0.05            # the same, but each worker's rate is up to 5 % higher or lower
    python -m bench.scale --seconds 10 --workers 100

Workers of exactly the same rate are the worst case: all series fill a chunk of their rollup at the same moment.

Prints the driver's CPU time, the growth of the database, and the lag: the time from the measurement of a point to its
commit. Every point is checked in the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

from labbench.executors import Executor
from labbench.files import files_folder
from labbench.grid import Grid
from labbench.records import Event, Finished, NewRun, Points, RunRecord, Runtime, Stack, Started, Submission
from labbench.runner.driver import Driver, Stage
from labbench.runner.interruption import Interruption
from labbench.runner.planner import make_stack
from labbench.store.event_recorder import EventRecorder
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.system.provenance import Provenance

FLUSH_SECONDS = 0.25
"""Seconds between two reports of a worker, as in training."""


class SimulatedWorkers(Executor):
    """Workers that report points when they are due, one run each."""

    def __init__(self, rates: Sequence[float], seconds: float) -> None:
        """`rates` are in points per second, one for each worker."""
        self.rates, self.seconds = rates, seconds
        self.lags: list[float] = []
        """Seconds from the last measurement of a report to its commit."""
        self._start = time.monotonic()

    @property
    def reports(self) -> int:
        """Number of reports of each worker."""
        return round(self.seconds / FLUSH_SECONDS)

    def capacity(self) -> int:
        return 1

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        runs = [run for stack in stacks for run in stack.runs]
        for run in runs:
            yield Started(run.key, run.attempt, "simulated", 1, "cpu", "loop")
        yield None
        self._start = time.monotonic()
        for report in range(self.reports):
            for index, (run, rate) in enumerate(zip(runs, self.rates, strict=True)):  # spread over the interval
                due = (report + 1 + index / len(runs)) * FLUSH_SECONDS
                while (wait := self._start + due - time.monotonic()) > 0:
                    yield None
                    time.sleep(min(wait, 0.01))
                steps = range(count_points(rate, report), count_points(rate, report + 1))
                times = [round(due * 1000)] * len(steps)
                values = [1.0 / (1 + step) for step in steps]
                yield Points(run.key, run.attempt, "train/loss", steps, times, values)
        for run in runs:
            yield Finished(run.key, run.attempt, "finished", "all epochs")

    def stop(self, run: str) -> None:
        """Ignore requests."""

    def interrupt(self) -> None:
        """Ignore signals."""

    def acknowledge(self, events: Sequence[Event]) -> None:
        now = time.monotonic() - self._start
        self.lags += [now - event.times[-1] / 1000 for event in events if isinstance(event, Points)]

    def close(self) -> None:
        """No-op."""


def count_points(rate: float, reports: int) -> int:
    """Return the number of points in the first reports of a worker."""
    return round(rate * FLUSH_SECONDS * reports)


class Silent:
    """Progress that shows nothing."""

    def begin(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None: ...

    def begin_stage(self, stage: Stage) -> None: ...

    def take(self, event: Event) -> None: ...

    def tick(self) -> None: ...

    def end(self) -> None: ...


def measure(folder: Path, rates: Sequence[float], seconds: float) -> dict[str, float]:
    """Record simulated workers with these rates in a new database in `folder`; return the measurements."""
    db = folder / "runs.db"
    runs = [NewRun(f"run {index}", {"seed": index}, f"{index:064x}") for index in range(len(rates))]
    executor = SimulatedWorkers(rates, seconds)
    with Writer(db) as writer:
        queued = writer.queue(Submission("scale", "digits"), runs)
        recorder = EventRecorder(writer, queued, is_interrupted=lambda: False)
        driver = Driver(
            recorder,
            executor,
            lambda due: [make_stack(due, task="digits", stop=None, runtime=Runtime())],
            Silent(),
            Interruption(),
            Provenance(None, None, "", {}),
            files_folder(db),
            0,
            params={},
        )
        size, began, cpu = db.stat().st_size, time.monotonic(), time.process_time()
        driver.train([Stage(queued, ("queued",))])
        wall, cpu = time.monotonic() - began, time.process_time() - cpu
    with Reader(db) as reader:
        points = sum(run.summary["train/loss"].n for run in reader.runs())
    expected = sum(count_points(rate, executor.reports) for rate in rates)
    assert points == expected, f"{points} of {expected} points are in the database"
    lags = sorted(executor.lags)
    return {
        "points": points,
        "points_per_second": points / wall,
        "wall_seconds": wall,
        "cpu_share": cpu / wall,
        "bytes_per_point": (db.stat().st_size - size) / points,
        "lag_median_seconds": statistics.median(lags),
        "lag_p99_seconds": lags[int(0.99 * (len(lags) - 1))],
        "lag_max_seconds": lags[-1],
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=100.0, help="points per second and worker")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--spread", type=float, default=0.0, help="largest relative difference of a worker's rate")
    options = parser.parse_args()
    random = Random(0)
    rates = [options.rate * (1 + random.uniform(-options.spread, options.spread)) for _ in range(options.workers)]
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), rates, options.seconds)
    print(json.dumps({name: round(value, 4) for name, value in result.items()}, indent=2))


if __name__ == "__main__":
    main()
