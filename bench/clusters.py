"""Compare a grid that trains on a cluster of this machine with worker processes: equality, and the cost of Ray.

    python -m bench.clusters equal --executor ray      # experiments/optimizers.toml, 189 runs, three nodes of Ray
    python -m bench.clusters equal --executor slurm    # the same in jobs of submitit's local executor
    python -m bench.clusters overhead --pairs 3        # a grid of about two minutes, alternately on Ray and on workers

`equal` trains in float64, ends one node (Ray) or one job (SLURM) in the middle, and compares runs, counts and every
point. `overhead` prints the seconds from the first point to the last, and those before it (start-up), as medians.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from labbench.errors import LabbenchError
from labbench.records import RunRecord
from labbench.store.reader import Reader

OPTIMIZERS = Path(__file__).parents[1] / "experiments" / "optimizers.toml"

EXACT = '[runtime]\nprecision = "float64"\nsnapshot_every = "2s"\n'

LOCAL_JOBS = '[resources.slurm]\ncluster = "local"\n'

NODES = 3


def start_run(folder: Path, *words: str, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start `labbench run` in a folder with a grid, after the words `prefix`; its output goes to a file."""
    command = [*prefix, sys.executable, "-P", "-m", "labbench", "run", "grid.toml", *words]
    with (folder / "run.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a run; end this program with its output if it fails."""
    if process.wait():
        sys.exit((folder / "run.log").read_text()[-3000:])


def read_runs(folder: Path) -> list[RunRecord]:
    """Return all runs; none while the database is being created."""
    try:
        with Reader(folder / "runs.db") as reader:
            return reader.by_keys(list(reader.keys()))
    except LabbenchError:
        return []


def wait_for_half(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until half of the runs have a checkpoint or have ended."""
    while process.poll() is None:
        runs = read_runs(folder)
        if runs and sum(run.boundary > 0 or run.status == "finished" for run in runs) > len(runs) / 2:
            return
        time.sleep(0.2)


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Start a head and two nodes with one core each in processes of their own."""
    from labbench.executors.ray.cluster import LOOPBACK, NO_STATISTICS, START_SECONDS

    os.environ |= {**LOOPBACK, **NO_STATISTICS, "RAY_raylet_start_wait_time_s": START_SECONDS}
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(NODES - 1):
        cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def read_points(folder: Path) -> dict[tuple[str, str, int], float]:
    """Return all points by name of the run, metric and step, except measured times."""
    with Reader(folder / "runs.db") as reader:
        rows = reader.points()
        return {(row.name, row.metric, row.step): row.value for row in rows if not row.metric.startswith("time/")}


def compare(folder: Path, expected: Path) -> dict[str, object]:
    """Return the number of runs and points that differ, and the largest relative difference of a value."""
    runs, others = ({run.name: run for run in read_runs(path)} for path in (folder, expected))
    points, reference = read_points(folder), read_points(expected)
    common = points.keys() & reference.keys()
    differences = [
        abs(points[key] - reference[key]) / max(1e-300, abs(reference[key]))
        for key in common
        if points[key] != reference[key] and reference[key] == reference[key]
    ]
    return {
        "runs": len(runs),
        "statuses": sorted({run.status for run in runs.values()}),
        "runs_with_other_status_or_count": sum(
            (run.status, run.summary["train/loss"].n) != (others[name].status, others[name].summary["train/loss"].n)
            for name, run in runs.items()
        ),
        "attempts": max(run.attempt for run in runs.values()),
        "points": len(points),
        "points_in_one_only": len(points.keys() ^ reference.keys()),
        "largest_relative_difference": max(differences, default=0.0),
    }


def measure_equality(executor: str, epochs: int) -> None:
    """Train the grid of optimizers on the cluster and in worker processes, and print the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        cluster_folder, local_folder = Path(folder, "cluster"), Path(folder, "local")
        text = OPTIMIZERS.read_text().replace("epochs = 20", f"epochs = {epochs}") + EXACT
        for path in (cluster_folder, local_folder):
            path.mkdir()
            (path / "grid.toml").write_text(text + (LOCAL_JOBS if path == cluster_folder else ""))
        start = time.monotonic()
        if executor == "ray":
            with ray_cluster() as cluster:
                process = start_run(cluster_folder, "--executor", "ray", "--address", cluster.address)
                wait_for_half(cluster_folder, process)
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                finish(process, cluster_folder)
        else:
            process = start_run(cluster_folder, "--executor", "slurm")
            wait_for_half(cluster_folder, process)
            preempt_one(read_runs(cluster_folder))
            finish(process, cluster_folder)
        seconds = time.monotonic() - start
        finish(start_run(local_folder, "--workers", "2"), local_folder)
        result = compare(cluster_folder, local_folder)
    print(json.dumps({"executor": executor, "seconds": round(seconds, 1), **result}, indent=2))


def preempt_one(runs: Sequence[RunRecord]) -> None:
    """Send SIGTERM to the job of a run that is training, as a scheduler does before it ends it."""
    for run in runs:
        if run.status == "running" and run.job_id is not None and psutil.pid_exists(int(run.job_id)):
            for process in psutil.Process(int(run.job_id)).children(recursive=True):
                process.send_signal(signal.SIGTERM)
            return


def time_run(folder: Path, text: str, words: Sequence[str]) -> tuple[float, float]:
    """Return the seconds of training, from the first run's start to the last one's end, and those before it."""
    folder.mkdir()
    (folder / "grid.toml").write_text(text)
    start = time.time()
    finish(start_run(folder, *words), folder)
    runs = read_runs(folder)
    first = min(run.started or start for run in runs)
    return max(run.finished or start for run in runs) - first, first - start


def measure_overhead(pairs: int, epochs: int) -> None:
    """Train a grid alternately on a local cluster of Ray and in worker processes, and print medians."""
    text = OPTIMIZERS.read_text().replace("epochs = 20", f"epochs = {epochs}")
    ways = {"ray": ["--executor", "ray"], "workers": []}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(pairs):
            for name, words in ways.items() if pair % 2 else reversed(ways.items()):
                times[name].append(time_run(Path(folder, f"{name}-{pair}"), text, words))
                print(json.dumps({"pair": pair, "executor": name, "seconds": times[name][-1]}), flush=True)
    ratios = [ray[0] / workers[0] - 1 for ray, workers in zip(times["ray"], times["workers"], strict=True)]
    result = {"overhead": round(statistics.median(ratios), 3), "load": round(os.getloadavg()[0], 1)}
    for name, rows in times.items():
        training, starting = zip(*rows, strict=True)
        result |= {
            f"{name}_seconds": round(statistics.median(training), 1),
            f"{name}_start_seconds": round(statistics.median(starting), 1),
        }
    print(json.dumps(result, indent=2))


def main() -> None:
    """Run one measurement and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=["equal", "overhead"])
    parser.add_argument("--executor", choices=["ray", "slurm"], default="ray")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if options.measurement == "equal":
        measure_equality(options.executor, options.epochs)
    else:
        measure_overhead(options.pairs, options.epochs)


if __name__ == "__main__":
    main()
