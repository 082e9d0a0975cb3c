"""The width of a stack is limited by memory: by two measurements, and after running out of memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helpers.cuda import needs_cuda
from labbench.executors.attempt import train_attempt
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Event, Finished, Log, RunRecord, Runtime
from labbench.runner.planner import make_stack
from labbench.train.active_runs import StopRequests
from labbench.train.data.placement import place_data
from labbench.train.engine.stepper import Workload
from labbench.train.grouping import memory
from labbench.train.grouping.arrange import MAX_STACK_WIDTH, max_models
from labbench.train.grouping.memory import (
    MAX_STACK_SHARE,
    choose_width,
    estimate_width,
    halve_width_on_oom,
    limit_width,
    trace_peak,
    width_limit,
)
from labbench.train.grouping.steppers import make_initial_model
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.task import load_task, make_data

MEGABYTE = 2**20


def test_two_measurements_give_the_number_of_runs_that_fit() -> None:
    measured_runs = []

    def peak_of(runs: int) -> int:
        """Return 100 MB for the stack and 25 MB for each run."""
        measured_runs.append(runs)
        return (100 + 25 * runs) * MEGABYTE

    width = estimate_width(1000 * MEGABYTE, peak_of)
    assert measured_runs == [1, 8]
    assert width == 32
    assert peak_of(width) <= MAX_STACK_SHARE * 1000 * MEGABYTE < peak_of(width + 1)


def test_the_estimate_is_at_least_one_run() -> None:
    assert estimate_width(10, lambda runs: 1000 * runs) == 1
    assert estimate_width(10**9, lambda runs: 5) > 10**6


def test_only_out_of_memory_lowers_the_limit_and_nothing_raises_it() -> None:
    halve_width_on_oom(ValueError("no"), "a structure", 9)
    assert width_limit("a structure") is None
    halve_width_on_oom(MemoryError(), "a structure", 9)
    assert width_limit("a structure") == 5
    limit_width("a structure", 7)
    assert width_limit("a structure") == 5


LARGE_TASK = """
import torch
from torch import nn
from labbench.params import Param
from labbench.train.data import Data

class LargeModel(nn.Module):
    '''Allocates 128 MB per run without touching it.'''

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, inputs):
        torch.empty_like(inputs[:, :1].expand(-1, 2**22), dtype=torch.uint8, memory_format=torch.contiguous_format)
        return self.linear(inputs)

class Task:
    params = {}

    def data(self, config):
        inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
        return Data(train=(inputs, (inputs[:, 0] > 0).long()), val=(inputs, (inputs[:, 0] > 0).long()))

    def model(self, config):
        return LargeModel()
"""


@contextmanager
def limit_memory(extra_bytes: int) -> Iterator[None]:
    """Limit the memory of this process to `extra_bytes` above its current size."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + extra_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS works on Linux only")
def test_a_stack_that_runs_out_of_memory_is_halved_and_later_stacks_too(tmp_path: Path) -> None:
    file = tmp_path / "large.py"
    file.write_text(LARGE_TASK)

    def train_events(seeds: range) -> list[Event]:
        runs = [
            RunRecord(s, f"run{s}", "", "large", "running", {"seed": s, "epochs": 2, "batch_size": 32}) for s in seeds
        ]
        stack = make_stack(runs, task=f"{file}:Task", stop=None, runtime=Runtime())
        return list(train_attempt(stack, "cpu", StopRequests()))

    train_events(range(100, 102))  # load everything that the first use loads
    with limit_memory(750 * MEGABYTE):
        first, later = train_events(range(8)), train_events(range(8, 16))
    for events in (first, later):
        ended = [event for event in events if isinstance(event, Finished)]
        assert [event.status for event in ended] == ["finished"] * 8
    assert [event.text for event in first if isinstance(event, Log)] == [
        "out of memory with 8 runs in the stack; retrying in halves\n"
    ]
    assert not [event for event in later if isinstance(event, Log)]


@needs_cuda
def test_the_measured_cuda_peak_is_the_allocated_memory() -> None:
    from labbench.train.grouping.memory import measure_cuda_peak

    device = torch.device("cuda:0")
    assert (
        measure_cuda_peak(device, lambda: torch.empty(32 * MEGABYTE, dtype=torch.uint8, device=device)) == 32 * MEGABYTE
    )


def test_on_a_gpu_only_memory_limits_the_width() -> None:
    """With an assumed amount of free memory; a run has 1,210 weights and as many gradients."""
    task = load_task("digits")
    config = with_defaults({"hidden": [16]}, {**TRAINING, **task.params})
    records = [RunRecord(s, f"run{s}", "", "many", "running", {"seed": s}) for s in range(256)]
    runs = [TrainingRun(record, {**config, **record.config}, None, Runtime()) for record in records]
    workload = Workload(task, place_data(make_data(task, config), torch.device("cpu"), torch.float32), 64)
    assert max_models(runs, workload, 2 * 1210 * 4 * 75) == 75
    assert max_models(runs, workload, 10**9) > 256
    assert max_models(runs, workload, 100) == 1
    assert max_models(runs, workload, None) == MAX_STACK_WIDTH  # a CPU


def test_the_width_on_a_gpu_follows_from_a_trace_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an assumed amount of free memory; twice the memory holds twice the runs."""
    task = load_task("digits")
    config = with_defaults({"hidden": [16], "optimizer": "adam"}, {**TRAINING, **task.params})
    records = [RunRecord(s, f"run{s}", "", "traced", "running", {"seed": s}) for s in range(32)]
    runs = [TrainingRun(record, {**config, **record.config}, None, Runtime()) for record in records]
    workload = Workload(task, place_data(make_data(task, config), torch.device("cpu"), torch.float32), 64)
    models = [make_initial_model(run, workload) for run in runs]
    run_bytes = (trace_peak(runs[:8], models, workload) - trace_peak(runs[:1], models, workload)) / 7
    assert run_bytes > 6 * 1210 * 4  # parameters, gradients, direction, two moments, activations
    widths = []
    for number, free in enumerate((10, 20)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: round(free * run_bytes))
        widths.append(choose_width(f"traced {number}", runs, models, workload))
    assert widths[0] in (8, 9)
    assert widths[1] in (17, 18)
