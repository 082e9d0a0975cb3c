"""Write the same curves as a labbench database or as W&B offline runs, for bench/tui.py.

    python bench/tui_data.py labbench|wandb FOLDER RUNS METRICS POINTS

This file imports only the selected tool, so that each runs in its own environment. A W&B run takes half a second to
write, so runs after the 20th are renamed copies of earlier ones, with the same amount of data to read.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_DISTINCT = 20


def value(run: int, metric: int, step: int, points: int) -> float:
    """Return a point of a falling curve with deterministic noise."""
    noise = math.sin(12.9898 * step + 78.233 * run + 37.719 * metric) * 43758.5453
    return (
        (1.5 + 0.01 * run) * math.exp(-(2 + run % 7) * step / points) + 0.1 * (noise - math.floor(noise)) + 0.1 * metric
    )


def curve(run: int, metric: int, points: int) -> Iterator[float]:
    return (value(run, metric, step, points) for step in range(points))


def config(run: int) -> dict[str, float]:
    return {"lr": 0.001 * (1 + run // 3), "seed": run % 3}


def make_labbench(folder: Path, runs: int, metrics: int, points: int) -> None:
    """Write a database of `runs` runs."""
    from labbench.records import Finished, NewRun, Points, Started, Submission
    from labbench.store.writer import Writer

    new_runs = [NewRun(f"lr={config(run)['lr']:g} s{run % 3}", config(run), str(run)) for run in range(runs)]
    steps = list(range(points))
    with Writer(folder / "runs.db") as writer:
        queued = writer.queue(Submission("bench", ""), new_runs)
        for number, run in enumerate(writer.claim([run.key for run in queued])):
            writer.write([Started(run.key, run.attempt, "box", 1, "cpu")])
            for metric in range(metrics):
                values = list(curve(number % _DISTINCT, metric, points))
                writer.write([Points(run.key, run.attempt, f"m/{metric}", steps, steps, values)])
            writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])


def make_wandb(folder: Path, runs: int, metrics: int, points: int) -> None:
    """Write a folder `wandb` with `runs` offline runs."""
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(folder))
    import wandb

    for number in range(min(runs, _DISTINCT)):
        settings = wandb.Settings(x_disable_stats=True, console="off")
        run = wandb.init(project="bench", name=f"run {number}", config=config(number), settings=settings)
        columns = [curve(number, metric, points) for metric in range(metrics)]
        for step in range(points):
            run.log({f"m/{metric}": next(column) for metric, column in enumerate(columns)}, step=step)
        run.finish()
    originals = sorted((folder / "wandb").glob("offline-run-*"))
    for number in range(len(originals), runs):
        source = originals[number % len(originals)]
        old, new = source.name.rpartition("-")[2], f"copy{number:04}"
        copy = source.with_name(source.name.replace(old, new))
        shutil.copytree(source, copy)
        (copy / f"run-{old}.wandb").rename(copy / f"run-{new}.wandb")


def main() -> None:
    makers = {"labbench": make_labbench, "wandb": make_wandb}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=makers)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    for size in ("runs", "metrics", "points"):
        parser.add_argument(size, metavar=size.upper(), type=int)
    options = parser.parse_args()
    makers[options.tool](options.folder, options.runs, options.metrics, options.points)


if __name__ == "__main__":
    main()
