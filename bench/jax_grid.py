"""Compare the training of a grid by labbench with the same grid in JAX, `jit(vmap(scan))`, on a CPU.

The grid is the case `mlp` of bench/stacks.py: 144 MLPs on the digits, dropout x batch normalization x learning rate x
optimizer x seed. JAX gets the same initial weights, the same order of samples and the same optimizers. Its runs are
grouped by structure (dropout, batch normalization, Adam or SGD); within a group, learning rate, momentum and seed are
mapped by `vmap`. Each group is one compiled function that trains all epochs, with validation after each.

Methods take turns in each round:

    labbench      `labbench run` with a database, in two worker processes with one thread each, from the first to the
                  last event: data, checks and recording included
    jax           one process with as many threads as cores
    jax-2         two processes with one thread each, half of the groups each

JAX is measured in steady state, after compiling; the time of compiling is printed too. Processor seconds of all
processes of a method are printed beside the wall time: on a busy machine they are what can be compared. `--folder`
keeps the virtual environment with JAX for later runs.

    python bench/jax_grid.py [--folder FOLDER] [--rounds 5] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parent))
from stacks import CASES, TrainingMethod, measure_in_turn, train_with_labbench, warm_up

from labbench.params.param import TRAINING, with_defaults
from labbench.records import Config
from labbench.runner.expanded_grid import ExpandedGrid, load_grid
from labbench.train.rng import CPU, permutations
from labbench.train.tasks.task import load_task, make_data, make_model

JAX = "jax==0.10.2"
PROGRAM = Path(__file__).with_name("jax_grid_program.py")
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "OMP_NUM_THREADS": "1"}

Groups = dict[str, list[int]]
"""Indices of the grid's runs by group."""


def jax_python(folder: Path) -> Path:
    """Return the interpreter of JAX's virtual environment, creating it if needed."""
    home = folder / "jax-env"
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", JAX], check=True)
        (home / "installed").touch()
    return python


def group_runs(configs: Sequence[Config]) -> Groups:
    """Return the runs of each structure: one compiled function of JAX."""
    groups: Groups = {}
    for index, config in enumerate(configs):
        rule = "adam" if config["optimizer"] == "adam" else "sgd"
        name = f"dropout{config['dropout']}-batchnorm{config['batchnorm']:d}-{rule}"
        groups.setdefault(name, []).append(index)
    return groups


def write_inputs(grid: ExpandedGrid, configs: Sequence[Config], groups: Groups, folder: Path) -> int:
    """Write the samples, and initial weights, settings and orders of each group; return the number of run-steps."""
    task = load_task(grid.grid.task)
    data = make_data(task, configs[0])
    (inputs, targets), (val_inputs, val_targets) = data.train, data.val
    samples = {"inputs": inputs.flatten(1), "targets": targets, "val_inputs": val_inputs.flatten(1)}
    np.savez(folder / "data.npz", **{k: v.numpy() for k, v in samples.items()}, val_targets=val_targets.numpy())
    for name, indices in groups.items():
        members = [configs[index] for index in indices]
        layers = [read_weights(make_model(task, config)) for config in members]
        seeds, epochs = [config["seed"] for config in members], members[0]["epochs"]
        orders = [permutations(seeds, epoch + 1, len(inputs), CPU).numpy() for epoch in range(epochs)]
        np.savez(
            folder / f"{name}.npz",
            **{key: np.stack([layer[key] for layer in layers]) for key in layers[0]},
            lr=np.array([config["lr"] for config in members], np.float32),
            momentum=np.array([config["momentum"] for config in members], np.float32),
            seeds=np.array(seeds),
            order=np.stack(orders, axis=1).astype(np.int32),  # (runs, epochs, samples)
            batch_size=members[0]["batch_size"],
            dropout=members[0]["dropout"],
            is_adam=members[0]["optimizer"] == "adam",
        )
    return sum(config["epochs"] * -(-len(inputs) // config["batch_size"]) for config in configs)


def read_weights(model: torch.nn.Module) -> dict[str, Any]:
    """Return the weights of an MLP by layer and name, matrices (inputs, outputs)."""
    arrays: dict[str, Any] = {}
    number = -1
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            number += 1
            arrays[f"{number}.weight"] = module.weight.detach().numpy().T.copy()
            if module.bias is not None:
                arrays[f"{number}.bias"] = module.bias.detach().numpy()
        elif isinstance(module, torch.nn.BatchNorm1d):
            arrays[f"{number}.scale"] = module.weight.detach().numpy()
            arrays[f"{number}.shift"] = module.bias.detach().numpy()
    return arrays


def labbench_processor_seconds() -> float:
    """Return the processor time of this process, of the fork server and of the workers that have ended."""
    server = psutil.Process(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
    return time.process_time() + sum(server.cpu_times()[:4])


class JaxProcesses:
    """Processes that have compiled the groups, and train all of them on request."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], groups: Groups) -> None:
        self.processes, self.groups = processes, groups
        answers = [self._read(process) for process in processes]
        self.compile_seconds: float = max(answer["compile_seconds"] for answer in answers)
        self.losses: dict[int, list[list[float]]] = {}
        """Training losses of the last training by run, (epochs, batches)."""

    def processor_seconds(self) -> float:
        """Return the processor time of the processes."""
        return sum(sum(psutil.Process(process.pid).cpu_times()[:2]) for process in self.processes)

    def train(self) -> list[float]:
        """Train all runs from their initial weights; return their final accuracies."""
        for process in self.processes:
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        results = [self._read(process) for process in self.processes]
        accuracies: dict[int, float] = {}
        for name, result in ((name, result) for answer in results for name, result in answer.items()):
            accuracies |= dict(zip(self.groups[name], result["accuracies"], strict=True))
            self.losses |= dict(zip(self.groups[name], result["losses"], strict=True))
        return [accuracies[index] for index in range(len(accuracies))]

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the JAX program has ended with status {process.wait()}")
        return json.loads(line)


@contextmanager
def start_jax(python: Path, folder: Path, groups: Groups, count: int) -> Iterator[JaxProcesses]:
    """Start this number of JAX processes, and end them after the block."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **(ONE_THREAD if count > 1 else {})}
    if count == 1:
        environment = {name: value for name, value in environment.items() if name not in ONE_THREAD}
    with ExitStack() as stack:
        processes = []
        for number in range(count):
            words = [str(python), str(PROGRAM), str(folder), *list(groups)[number::count]]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            stack.enter_context(process)
            stack.callback(process.terminate)
            processes.append(process)
        yield JaxProcesses(processes, groups)


def measure(folder: Path, rounds: int, epochs: int) -> None:
    """Train the grid with all methods, `rounds` times, and print the results."""
    python = jax_python(folder)
    with tempfile.TemporaryDirectory() as scratch_text:
        scratch = Path(scratch_text)
        (scratch / "grid.toml").write_text(f'name = "bench"\n{CASES["mlp"].grid}')
        grid = load_grid(scratch / "grid.toml", overrides=[f"epochs={epochs}"])
        params = {**TRAINING, **load_task(grid.grid.task).params}
        configs = [with_defaults(run.config, params) for run in grid.runs]
        groups = group_runs(configs)
        steps = write_inputs(grid, configs, groups, scratch)
        warm_up(grid)
        print(f"{len(configs)} runs, {steps:,} run-steps, {len(groups)} groups in JAX", flush=True)
        with start_jax(python, scratch, groups, 1) as one, start_jax(python, scratch, groups, 2) as two:
            methods = {"labbench": partial(train_with_labbench, grid), "jax": one.train, "jax-2": two.train}
            clocks = {
                "labbench": labbench_processor_seconds,
                "jax": one.processor_seconds,
                "jax-2": two.processor_seconds,
            }
            processor: dict[str, list[float]] = {name: [] for name in methods}
            timed = {
                name: partial(measure_processor, method, clocks[name], processor[name])
                for name, method in methods.items()
            }
            seconds, accuracies = measure_in_turn(timed, rounds)
            compiling = {"jax": one.compile_seconds, "jax-2": two.compile_seconds}
            report(steps, seconds, accuracies, compiling)
            report_processor_seconds(processor)


def measure_processor(method: TrainingMethod, clock: Callable[[], float], spent: list[float]) -> list[float]:
    """Train with a method, and append its processor seconds to `spent`; return the accuracies."""
    before = clock()
    accuracies = method()
    spent.append(clock() - before)
    return accuracies


def report_processor_seconds(processor: dict[str, list[float]]) -> None:
    for name, times in processor.items():
        ratios = [seconds / reference for seconds, reference in zip(times, processor["labbench"], strict=True)]
        gain = f"{statistics.median(ratios):.2f} times labbench's ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"  {name:9} {statistics.median(times):7.1f} processor seconds, {gain}")
    print(f"  load average {os.getloadavg()[0]:.1f}")


def report(
    steps: int, seconds: dict[str, list[float]], accuracies: dict[str, list[float]], compiling: dict[str, float]
) -> None:
    for name, times in seconds.items():
        ratios = [duration / mine for duration, mine in zip(times, seconds["labbench"], strict=True)]
        print(
            f"  {name:9} {steps / statistics.median(times):9,.0f} run-steps/s {statistics.median(times):7.2f} s"
            f"   labbench {statistics.median(ratios):5.2f} times as fast ({min(ratios):.2f}-{max(ratios):.2f})"
            f"   mean accuracy {statistics.mean(accuracies[name]):.3f}, best {max(accuracies[name]):.3f}"
        )
        if name in compiling:
            total = statistics.median(times) + compiling[name]
            gain = total / statistics.median(seconds["labbench"])
            print(
                f"  {'':9} {steps / total:9,.0f} run-steps/s {total:7.2f} s   labbench {gain:5.2f} times as fast,"
                f" with {compiling[name]:.1f} s of compiling"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the training of a grid by labbench and by JAX on a CPU.")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "labbench-bench-jax")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few epochs and one round")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    case = CASES["mlp"]
    rounds, epochs = (1, case.quick) if options.quick else (options.rounds, case.epochs)
    print(f"mlp, CPU, {time.strftime('%Y-%m-%d')}:", flush=True)
    measure(options.folder.resolve(), rounds, epochs)


if __name__ == "__main__":
    main()
