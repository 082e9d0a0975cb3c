"""A GPU that runs out of memory, cannot capture or disappears: every run ends, finished or failed with a reason.

No GPU takes part: the errors that torch raises for one are raised in its place.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor

from labbench.executors.in_process import InProcessExecutor
from labbench.executors.worker_pool import WorkerExecutor
from labbench.records import EngineNote, Event, Failed, Finished, Log, RunRecord, Runtime, Stack
from labbench.runner.planner import make_stack
from labbench.train.engine.cuda import cuda_graph
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.stacked import StackedStepper
from labbench.train.grouping import arrange, memory

TASK = """
import torch
from torch import nn
from labbench.params import Param
from labbench.train.data import Data

class Task:
    params = {"faulty": Param("bool", False, per_run=True)}

    def data(self, config):
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        targets = (inputs.sum(dim=1) > 0).long()
        return Data(train=(inputs, targets), val=(inputs, targets))

    def model(self, config):
        if config["faulty"]:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
"""


@pytest.fixture(autouse=True)
def forget_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test without limits on the width of stacks."""
    monkeypatch.setattr(memory, "_widths", {})


LOST = "CUDA error: unspecified launch failure"


def stack_of(folder: Path, runs: int, *, faulty: int | None = None) -> Stack:
    """Return a stack of runs that train 3 epochs; the model of run `faulty` raises an error of CUDA."""
    file = folder / "task.py"
    file.write_text(TASK)
    records = [
        RunRecord(
            seed,
            f"run{seed:05}",
            "",
            "gpu failures",
            "running",
            {"seed": seed, "epochs": 3, "batch_size": 16, "faulty": seed == faulty},
        )
        for seed in range(runs)
    ]
    return make_stack(records, task=f"{file}:Task", stop=None, runtime=Runtime(), files=str(folder / "files"))


def train_in_process(stack: Stack) -> list[Event]:
    with closing(InProcessExecutor("cpu")) as executor:
        return [event for event in executor.execute([stack]) if event is not None]


def ends(events: list[Event]) -> dict[str, str]:
    """Return the status of each run, or the error of a failed one; each ends once."""
    ended = [event for event in events if isinstance(event, Finished | Failed)]
    assert max(Counter(event.run for event in ended).values()) == 1
    return {event.run: event.status if isinstance(event, Finished) else event.message for event in ended}


def raise_in_step(monkeypatch: pytest.MonkeyPatch, error: Exception, *, least_runs: int = 0, at_step: int = 0) -> None:
    """Raise the error in every step of a stack of at least `least_runs` runs from `at_step` on."""
    step = StackedStepper.step

    def failing_step(self: StackedStepper, batch: Tensor) -> Any:
        is_trained = self.data.dtype == torch.float32  # not in the check of the stack
        if is_trained and len(batch) >= least_runs and self.step_counter.step >= at_step:
            raise error
        return step(self, batch)

    monkeypatch.setattr(StackedStepper, "step", failing_step)


def raise_in_capture(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Raise the error in every capture of a step, which the check before it has allowed."""

    def fail(self: CudaGraphStepper) -> None:
        raise error

    monkeypatch.setattr(arrange, "can_capture", lambda workload: True)
    monkeypatch.setattr(cuda_graph, "CaptureCheck", lambda device: nullcontext())
    monkeypatch.setattr(CudaGraphStepper, "_capture_graph", fail)


def test_a_stack_that_does_not_fit_a_gpu_is_halved_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_in_step(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), least_runs=3)
    events = train_in_process(stack_of(tmp_path, 8))
    assert list(ends(events).values()) == ["finished"] * 8
    logs = [event.text for event in events if isinstance(event, Log)]
    assert logs.count("out of memory with 8 runs in the stack; retrying in halves\n") == 1


def test_memory_that_runs_out_in_the_middle_repeats_no_epoch_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_in_step(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), least_runs=4, at_step=6)
    assert list(ends(train_in_process(stack_of(tmp_path, 4))).values()) == ["finished"] * 4


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: operation not permitted when stream is capturing"), RuntimeError("cuBLAS is not ready")],
    ids=["cuda", "library"],
)
def test_a_capture_that_fails_leaves_the_stack_without_a_graph(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_in_capture(monkeypatch, error)
    events = train_in_process(stack_of(tmp_path, 4))
    assert list(ends(events).values()) == ["finished"] * 4
    notes = {event.run: event.text for event in events if isinstance(event, EngineNote)}
    assert len(notes) == 4
    assert all(str(error) in note and note.startswith("stepped without a CUDA graph") for note in notes.values())


def test_memory_that_runs_out_in_a_capture_halves_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_in_capture(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    events = train_in_process(stack_of(tmp_path, 4))
    assert list(ends(events).values()) == ["finished"] * 4
    assert any(isinstance(event, Log) and "retrying in halves" in event.text for event in events)


def test_a_gpu_that_disappears_fails_the_runs_that_have_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_in_step(monkeypatch, torch.AcceleratorError(LOST), at_step=6)
    events = train_in_process(stack_of(tmp_path, 4))
    assert set(ends(events)) == {f"run{seed:05}" for seed in range(4)}
    failures = [event for event in events if isinstance(event, Failed)]
    assert {event.kind for event in failures} == {"crash"}
    assert all(LOST in event.message and "the GPU failed" in event.message for event in failures)


def test_other_runs_train_in_a_new_process_after_one_has_made_the_gpu_fail(tmp_path: Path) -> None:
    with closing(WorkerExecutor(["cpu"])) as executor:
        events = [event for event in executor.execute([stack_of(tmp_path, 4, faulty=2)]) if event is not None]
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert failure.run == "run00002"
    assert failure.kind == "crash"
    assert "the GPU failed" in failure.message
    assert "device-side assert triggered" in failure.traceback
    assert sorted(end for run, end in ends(events).items() if run != "run00002") == ["finished"] * 3
