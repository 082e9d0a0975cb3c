"""Compare the training speed of stacks with plain PyTorch loops.

Trains the same grid with several methods, which take turns in each round, so that other load affects all of them:

    loader    a plain PyTorch loop with a DataLoader, one run after another
    resident  the same with all data in one tensor and batches by index
    workers   the plain loop with a DataLoader, in two processes with one thread each
    labbench  `labbench run` with a database, in two worker processes with one thread each

and prints run-steps per second, labbench's speed relative to each method with its range over rounds, and the final
accuracies. Imports are excluded: torch is loaded and the fork server runs before the clock starts.

The plain loops train one run after another, so that their time is proportional to the number of runs: with
`--sample N` they train N runs of the grid, drawn once with a fixed seed, and their speed is that of the whole grid.

Cases named `cuda-...` need a CUDA device and compare labbench with the plain loop with resident data; without a device
they are skipped.

    python bench/stacks.py [--case NAME] [--rounds 3] [--sample 24] [--quick]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from labbench.executors.worker_pool import WORKER_ENVIRONMENT, start_forkserver
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Config, Event, RunRecord
from labbench.runner.expanded_grid import ExpandedGrid, load_grid
from labbench.runner.run_grid import TrainingOptions, run_grid
from labbench.store.reader import Reader
from labbench.train.tasks.task import load_task, make_data, make_model

TASKS = Path(__file__).with_name("stack_tasks.py")
PROCESS_COUNT = 2

OPTIMIZERS = """
[[zip]]
optimizer = ["sgd", "sgd", "adam"]
momentum = [0.0, 0.9, 0.0]
"""


@dataclass(frozen=True)
class Case:
    """A grid and its number of epochs."""

    grid: str
    """Text of the grid file, without its name."""
    epochs: int
    quick: int
    """Number of epochs with `--quick`."""
    device: str = "cpu"


CASES = {
    "mlp": Case(
        'task = "digits"\n[grid]\ndropout = [0.0, 0.5]\nbatchnorm = [false, true]\n'
        f"lr = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003]\n{OPTIMIZERS}[repeat]\nseeds = [0, 1]\n",
        epochs=20,
        quick=5,
    ),
    "cnn8": Case(
        'task = "digits"\n[params]\nmodel = "cnn"\nbatchnorm = true\n[grid]\n'
        f"lr = [0.03, 0.01, 0.003, 0.001]\n{OPTIMIZERS}[repeat]\nseeds = [0, 1, 2, 3]\n",
        epochs=8,
        quick=2,
    ),
    "cnn16": Case(
        f'task = "{TASKS}:Images"\n[grid]\nlr = [0.03, 0.01, 0.003, 0.001]\n{OPTIMIZERS}[repeat]\nseeds = [0, 1]\n',
        epochs=8,
        quick=2,
    ),
    "resmlp": Case(
        f'task = "{TASKS}:Residual"\n[grid]\nlr = [0.03, 0.01, 0.003, 0.001]\n'
        f"{OPTIMIZERS}[repeat]\nseeds = [0, 1, 2]\n",
        epochs=10,
        quick=3,
    ),
    "unet": Case(
        f'task = "{TASKS}:UNet"\n[grid]\nlr = [0.03, 0.01, 0.003, 0.001]\n{OPTIMIZERS}[repeat]\nseeds = [0, 1, 2]\n',
        epochs=6,
        quick=2,
    ),
    "transformer": Case(
        f'task = "{TASKS}:Transformer"\n[grid]\nlr = [0.03, 0.01, 0.003, 0.001]\n'
        f"{OPTIMIZERS}[repeat]\nseeds = [0, 1, 2]\n",
        epochs=6,
        quick=2,
    ),
    "cuda-mlp": Case(
        'task = "digits"\n[grid]\ndropout = [0.0, 0.5]\noptimizer = ["sgd", "adam"]\n'
        f"lr = [0.03, 0.01, 0.003, 0.001]\n[repeat]\nseeds = {[*range(16)]}\n",
        epochs=20,
        quick=2,
        device="cuda",
    ),
    "cuda-cnn28": Case(
        f'task = "{TASKS}:LargeImages"\n[grid]\noptimizer = ["sgd", "adam"]\n'
        f"lr = [0.03, 0.01, 0.003, 0.001]\n[repeat]\nseeds = {[*range(8)]}\n",
        epochs=8,
        quick=1,
        device="cuda",
    ),
    "cuda-big": Case(  # one run alone saturates the device, so stacking gains nothing
        'task = "digits"\n[params]\nhidden = [8192, 8192]\nbatch_size = 1024\n'
        "[grid]\nlr = [0.01, 0.001]\n[repeat]\nseeds = [0, 1]\n",
        epochs=100,
        quick=5,
        device="cuda",
    ),
}


def train_plain_loop(task_name: str, config: Config, *, loader: bool, device: str = "cpu") -> float:
    """Train one run in a plain PyTorch loop; return its final validation accuracy."""
    task = load_task(task_name)
    config = with_defaults(config, {**TRAINING, **task.params})
    place = torch.device(device)
    data, model = make_data(task, config).to(place, torch.float32), make_model(task, config).to(place)
    if config["optimizer"] == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), config["lr"])
    else:
        optimizer = torch.optim.SGD(model.parameters(), config["lr"], config["momentum"])
    torch.manual_seed(config["seed"])
    accuracy = 0.0
    for _ in range(config["epochs"]):
        model.train()
        losses, right = [], 0.0
        for inputs, targets in iter_batches(data.train, config["batch_size"], loader=loader):
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            right += (outputs.argmax(dim=1) == targets).sum().item()
        model.eval()
        with torch.no_grad():
            outputs = model(data.val[0])
            losses.append(F.cross_entropy(outputs, data.val[1]).item())
            accuracy = (outputs.argmax(dim=1) == data.val[1]).float().mean().item()
    return accuracy


def iter_batches(split: tuple[Tensor, Tensor], size: int, *, loader: bool) -> Iterable[Sequence[Tensor]]:
    """Return shuffled batches of (inputs, targets), (N, ...) and (N,), from a DataLoader or by index."""
    if loader:
        return DataLoader(TensorDataset(*split), batch_size=size, shuffle=True)
    order = torch.randperm(len(split[0]), device=split[0].device).split(size)
    return ((split[0][indices], split[1][indices]) for indices in order)


def train_in_one_process(grid: ExpandedGrid, *, loader: bool, device: str = "cpu") -> list[float]:
    return [train_plain_loop(grid.grid.task, run.config, loader=loader, device=device) for run in grid.runs]


def train_in_processes(grid: ExpandedGrid, pool: Any) -> list[float]:
    """Train the runs one by one in a pool of processes that have imported torch."""
    accuracies: list[float] = pool.map(
        partial(_train_with_loader, grid.grid.task), [run.config for run in grid.runs], 1
    )
    return accuracies


def _train_with_loader(task_name: str, config: Config) -> float:
    return train_plain_loop(task_name, config, loader=True)


def set_up_worker() -> None:
    torch.set_num_threads(1)


training_seconds: list[float] = []
"""Seconds of each call of `train_with_labbench` that its workers spend in training, summed over workers."""


def train_with_labbench(grid: ExpandedGrid, device: str = "cpu") -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder, "runs.db")
        options = TrainingOptions(device, workers=PROCESS_COUNT if device == "cpu" else None)
        run_grid(grid, db, SilentProgress(), options)
        with Reader(db) as reader:
            runs = {run.name: run for run in reader.runs()}
        training_seconds.append(sum(run.summary["time/compute_s"].last for run in runs.values()))
        return [final_accuracy(runs[run.name]) for run in grid.runs]


def final_accuracy(run: RunRecord) -> float:
    """Return the last validation accuracy; 0.1, as of random guessing, for a run that diverged before any."""
    return run.summary["val/accuracy"].last if "val/accuracy" in run.summary else 0.1


class SilentProgress:
    """Progress listener that ignores all events."""

    def begin(self, *_: object) -> None: ...
    def begin_stage(self, *_: object) -> None: ...
    def take(self, event: Event) -> None: ...
    def tick(self) -> None: ...
    def end(self) -> None: ...


def measure(case: Case, rounds: int, epochs: int, sample: int | None) -> None:
    """Train the case's grid with all methods, `rounds` times, and print the results.

    The plain loops train `sample` of its runs, or all.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "grid.toml")
        path.write_text(f'name = "bench"\n{case.grid}')
        grid = load_grid(path, overrides=[f"epochs={epochs}"])
    warm_up(grid)
    sampled = sample_runs(grid, sample)
    if case.device != "cpu":
        methods = {
            "resident": partial(train_in_one_process, sampled, loader=False, device=case.device),
            "labbench": partial(train_with_labbench, grid, device=case.device),
        }
        training_seconds.clear()
        times, accuracies = measure_in_turn(methods, rounds)
        scale_up(times, grid, sampled)
        report(grid, times, accuracies)
        alone = statistics.median(training_seconds)
        gain = statistics.median(times["resident"]) / alone
        print(f"  labbench without the start of its worker: {alone:.2f} s, {gain:.3g} times the plain loop")
        return
    with multiprocessing.get_context("spawn").Pool(PROCESS_COUNT, set_up_worker) as pool:
        train_in_processes(sampled, pool)
        methods = {
            "loader": partial(train_in_one_process, sampled, loader=True),
            "resident": partial(train_in_one_process, sampled, loader=False),
            "workers": partial(train_in_processes, sampled, pool),
            "labbench": partial(train_with_labbench, grid),
        }
        times, accuracies = measure_in_turn(methods, rounds)
        scale_up(times, grid, sampled)
        report(grid, times, accuracies)


def sample_runs(grid: ExpandedGrid, count: int | None) -> ExpandedGrid:
    """Return the grid with `count` of its runs, the same at each call, or with all."""
    if count is None or count >= len(grid.runs):
        return grid
    return replace(grid, runs=random.Random(0).sample(grid.runs, count))


def scale_up(times: dict[str, list[float]], grid: ExpandedGrid, sampled: ExpandedGrid) -> None:
    """Scale the seconds of the plain loops from the sampled runs to the whole grid."""
    for name in times.keys() - {"labbench"}:
        times[name] = [seconds * len(grid.runs) / len(sampled.runs) for seconds in times[name]]


TrainingMethod: TypeAlias = Callable[[], list[float]]
"""Function that trains a grid and returns the final accuracy of each run."""


def measure_in_turn(
    methods: Mapping[str, TrainingMethod], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each round, and the accuracies of the last round, by method."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    accuracies: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            accuracies[name] = method()
            seconds[name].append(time.perf_counter() - start)
    return seconds, accuracies


def warm_up(grid: ExpandedGrid) -> None:
    """Start the fork server, let it import torch, and warm up this process."""
    os.environ.update({key: value for key, value in WORKER_ENVIRONMENT.items() if not key.startswith("MALLOC")})
    torch.set_num_threads(1)
    start_forkserver()
    few = replace(grid, runs=grid.runs[:2])
    train_in_one_process(few, loader=True)
    train_with_labbench(few)


def report(grid: ExpandedGrid, seconds: dict[str, list[float]], accuracies: dict[str, list[float]]) -> None:
    task = load_task(grid.grid.task)
    config = with_defaults(grid.runs[0].config, {**TRAINING, **task.params})
    samples = len(make_data(task, config).train[0])
    steps = len(grid.runs) * config["epochs"] * -(-samples // config["batch_size"])
    print(f"{len(grid.runs)} runs, {steps:,} run-steps")
    for name, times in seconds.items():
        ratios = [duration / reference for duration, reference in zip(times, seconds["labbench"], strict=True)]
        print(
            f"  {name:9} {steps / statistics.median(times):9,.0f} run-steps/s {statistics.median(times):7.2f} s"
            f"   labbench {statistics.median(ratios):5.2f} times as fast ({min(ratios):.2f}-{max(ratios):.2f})"
            f"   mean accuracy {statistics.mean(accuracies[name]):.3f}, best {max(accuracies[name]):.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the training speed of stacks with plain PyTorch loops.")
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, help="number of runs that the plain loops train (all)")
    parser.add_argument("--quick", action="store_true", help="few epochs and one round")
    options = parser.parse_args()
    for name in options.case or list(CASES):
        case = CASES[name]
        if case.device == "cuda" and not torch.cuda.is_available():
            print(f"\n{name}: not measured: no CUDA device", flush=True)
            continue
        device = torch.cuda.get_device_name() if case.device == "cuda" else "CPU"
        print(f"\n{name}, {device}:", flush=True)
        rounds, epochs = (1, case.quick) if options.quick else (options.rounds, case.epochs)
        measure(case, rounds, epochs, options.sample)


if __name__ == "__main__":
    main()
