"""Seconds from the start of a process to the first points of a grid on the digits, trained as `labbench run` does.

python bench/first_metric.py DEVICE
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from stacks import SilentProgress

from labbench.records import Event, Failed, Points
from labbench.runner.expanded_grid import load_grid
from labbench.runner.run_grid import TrainingOptions, run_grid


class FirstPoints(SilentProgress):
    """Progress listener that measures the seconds from the start of the process to the first points."""

    seconds: float | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Failed):
            print(event.message, file=sys.stderr)
        if isinstance(event, Points) and self.seconds is None:
            self.seconds = time.time() - process_start()


def train_until_first_points(device: str) -> None:
    """Train a grid on the digits as `labbench run` does; print the seconds until its first points."""
    runs, epochs = (256, 5) if device.startswith("cuda") else (2, 1)
    settings = f'[params]\noptimizer = "adam"\nhidden = [128, 64]\nepochs = {epochs}\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "grid.toml")
        path.write_text(f'name = "first"\ntask = "digits"\n{settings}[repeat]\nseeds = {[*range(runs)]}\n')
        progress = FirstPoints()
        run_grid(load_grid(path), Path(folder, "runs.db"), progress, TrainingOptions(device, workers=1))
    print(progress.seconds or "")


def process_start() -> float:
    """Return the time at which this process started, in seconds since the epoch (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    train_until_first_points(sys.argv[1])
