"""Measure the memory of stacks: peak per run, and the largest stack that fits.

Each number is the peak memory of a new process that makes one stack of the last run of a grid of bench/stacks.py (Adam,
with dropout and batch normalisation if the grid has them) and does some updates and an evaluation, with the memory
settings of labbench's workers. The memory per run is the slope over three stack sizes; the largest stack is
extrapolated from it. On CUDA, the peak is device memory.

    python bench/stack_memory.py [--case NAME]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from pathlib import Path

import torch
from stacks import CASES, Case

from labbench.executors.worker_pool import WORKER_ENVIRONMENT
from labbench.params.param import TRAINING, with_defaults
from labbench.records import RunRecord, Runtime
from labbench.runner.expanded_grid import load_grid
from labbench.train.data.placement import free_bytes, place_data
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stepper import Workload
from labbench.train.grouping.loop_or_stack import first_batch
from labbench.train.grouping.memory import MAX_STACK_SHARE, measure_cuda_peak
from labbench.train.grouping.steppers import make_stacked_stepper
from labbench.train.precision import prepare_device
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.task import load_task, make_data, make_model

WIDTHS = (1, 8, 64)
UPDATE_COUNT = 3
BYTES_PER_MEGABYTE = 2**20


def peak_bytes(case: Case, width: int) -> int:
    """Return the peak memory in bytes, of this process or the device, with a stack of `width` runs."""
    device = torch.device(prepare_device(case.device))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "grid.toml")
        path.write_text(f'name = "bench"\n{case.grid}')
        grid = load_grid(path, overrides=[])
    task = load_task(grid.grid.task)
    config = with_defaults(grid.runs[-1].config, {**TRAINING, **task.params})
    workload = Workload(task, place_data(make_data(task, config), device, torch.float32), config["batch_size"])
    record = RunRecord(1, "run00000", "a run", "bench", "running", config)
    runs = [TrainingRun(record, {**config, "seed": seed}, None, Runtime()) for seed in range(width)]

    def work() -> None:
        models = [make_model(task, run.config) for run in runs]
        stack = make_stacked_stepper(runs, models, workload, StepCounter())
        stack.train(True)
        for _ in range(UPDATE_COUNT):
            stack.step(first_batch([run.config["seed"] for run in runs], workload))
        stack.train(False)
        stack.evaluate(workload.data.to_device((workload.data.val[0], workload.data.val[1])))

    if device.type == "cuda":
        return measure_cuda_peak(device, work)
    work()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def available_bytes(case: Case) -> int:
    """Return the free bytes of the device's memory, or the available bytes of the machine's."""
    free = free_bytes(torch.device(case.device))
    if free is not None:
        return free
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the memory of stacks (Linux).")
    parser.add_argument("--case", choices=list(CASES), action="append")
    options = parser.parse_args()
    os.environ.update(WORKER_ENVIRONMENT)
    print(f"{'case':10} " + " ".join(f"{f'{width} runs':>10}" for width in WIDTHS) + "    per run   largest that fits")
    for name in options.case or list(CASES):
        case = CASES[name]
        if case.device == "cuda" and not torch.cuda.is_available():
            print(f"{name:10} not measured: no CUDA device")
            continue
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = [pool.apply(peak_bytes, (case, width)) for width in WIDTHS]
        per_run = (peaks[-1] - peaks[0]) / (WIDTHS[-1] - WIDTHS[0])
        largest = int((MAX_STACK_SHARE * available_bytes(case) - (peaks[0] - per_run)) / per_run)
        columns = " ".join(f"{peak / BYTES_PER_MEGABYTE:7.0f} MB" for peak in peaks)
        print(f"{name:10} {columns} {per_run / BYTES_PER_MEGABYTE:7.2f} MB   {largest:,}", flush=True)


if __name__ == "__main__":
    main()
