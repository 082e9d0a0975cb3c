"""Measure the processor time of `labbench why` on 1,000 configurations with 3 seeds: python bench/why.py (a minute).

A random search over five parameters, and a full grid over the same ones. The analysis is timed in a fresh process, its
first call and then the median of further ones; the command, with the start of the interpreter and the reading of 3,000
runs, in processes of its own. Processor time hardly depends on other work; medians with the range.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from labbench.analysis.table import Observation
from labbench.records import Finished, NewRun, Points, Submission
from labbench.store.writer import Writer

CONFIGS, SEEDS, NOISE = 1000, 3, 0.01
CALLS = 5
"""Number of calls of the analysis in one process."""


def draw_configs() -> Iterator[dict[str, Any]]:
    """Yield the configurations of a random search."""
    generator = np.random.default_rng(0)
    for _ in range(CONFIGS):
        yield {
            "optimizer": ["sgd", "adam"][generator.integers(2)],
            "lr": float(10 ** generator.uniform(-4, 0)),
            "dropout": float(generator.uniform(0, 0.5)),
            "batchnorm": bool(generator.integers(2)),
            "weight_decay": float(10 ** generator.uniform(-5, -1)),
        }


def grid_configs() -> Iterator[dict[str, Any]]:
    """Yield the configurations of a full grid."""
    rates, decays = np.geomspace(1e-4, 1.0, 10).tolist(), np.geomspace(1e-5, 1e-1, 5).tolist()
    keys = ("optimizer", "lr", "dropout", "batchnorm", "weight_decay")
    for values in product(("sgd", "adam"), rates, (0.0, 0.1, 0.2, 0.3, 0.5), (False, True), decays):
        yield dict(zip(keys, values, strict=True))


KINDS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"random": draw_configs, "grid": grid_configs}


def make_observations(kind: str) -> list[Observation]:
    """Return results with effects of all parameters but one, and noise."""
    generator = np.random.default_rng(1)
    runs = []
    for config in KINDS[kind]():
        centre = 0.87 - 0.05 * (np.log10(config["lr"]) + 2.0) ** 2 - 0.1 * (config["dropout"] - 0.2) ** 2
        centre += 0.05 * (config["optimizer"] == "adam") + 0.02 * config["batchnorm"]
        values = (centre + NOISE * generator.standard_normal(SEEDS)).clip(0.0, 1.0).tolist()
        runs += [Observation({**config, "seed": s}, s, value, seconds=1.0) for s, value in enumerate(values)]
    return runs


def time_analysis(kind: str) -> list[float]:
    """Return the processor time of the calls of the analysis in this process, in seconds."""
    from labbench.analysis.why import why

    runs, times = make_observations(kind), []
    for _ in range(CALLS):
        started = time.process_time()
        why(runs, "val/accuracy", "max")
        times.append(time.process_time() - started)
    return times


def write_database(path: Path, kind: str) -> None:
    """Write a database of finished runs with these results."""
    observations = make_observations(kind)
    runs = [NewRun(f"run {i}", dict(o.config), f"{i:064x}") for i, o in enumerate(observations)]
    with Writer(path) as writer:
        queued = writer.queue(Submission("why", task="digits"), runs)
        claimed = writer.claim([run.key for run in queued])
        ends = [Finished(run.key, run.attempt, "finished", "all epochs") for run in claimed]
        values = zip(claimed, observations, strict=True)
        writer.write([*(Points(r.key, r.attempt, "val/accuracy", [0], [0], [o.value]) for r, o in values), *ends])


def time_command(words: Sequence[str]) -> tuple[float, str]:
    """Run a command; return its processor time in seconds, and its output."""
    before = os.times()
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system, result.stdout


def format_times(times: Sequence[float]) -> str:
    return f"{median(times):.2f} s ({min(times):.2f}-{max(times):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5, help="processes per figure (default 5)")
    parser.add_argument("--analyse", choices=tuple(KINDS), help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.analyse:
        print(json.dumps(time_analysis(options.analyse)))
        return
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "runs.db"
            write_database(path, kind)
            analysis = [sys.executable, __file__, "--analyse", kind]
            calls = [json.loads(time_command(analysis)[1]) for _ in range(options.processes)]
            command = [sys.executable, "-m", "labbench", "--db", str(path), "why", "val/accuracy"]
            commands = [time_command(command)[0] for _ in range(options.processes)]
        first, further = [times[0] for times in calls], [each for times in calls for each in times[1:]]
        print(f"{kind:8} first call {format_times(first)}, further calls {format_times(further)}, ", end="")
        print(f"command {format_times(commands)}", flush=True)


if __name__ == "__main__":
    main()
