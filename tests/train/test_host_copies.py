"""Training waits for its device at the listed points only; on `meta`, which stands for a GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from helpers.meta_training import (
    META,
    STACKED_MODELS,
    full_config,
    images,
    single_stepper,
    stacked_stepper,
    workload_of,
)
from helpers.training import run_of
from labbench.files import PORTRAIT, run_folder
from labbench.portraits.file import read_portrait
from labbench.records import Config, Event, Finished, Points, Runtime, Stack
from labbench.runner.planner import make_stack
from labbench.train import metric_buffer
from labbench.train.active_runs import StopRequests
from labbench.train.data.dataset import Data
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.cuda.device_check import DeviceCheck
from labbench.train.engine.cuda.meta_kernels import gpu_optimizers
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.grouping.arrange import ReadyStack
from labbench.train.host_copies import SyncPoint
from labbench.train.run_state import TrainingRun
from labbench.train.stack_trainer import StackTrainer

STEPS = 2  # per epoch, of two
WAYS = {"loop": 1, "stacked": 3, "vmap": 3, "captured": 3}


def make_stepper(way: str, workload: Workload) -> Stepper:
    if way == "loop":
        return single_stepper(workload, {})
    if way == "captured":
        return CudaGraphStepper(stacked_stepper("stacked", workload, {}), workload.batch_size)
    return stacked_stepper(way, workload, {})


def train_on_meta(
    way: str, runtime: Runtime, files: Path | None = None, **task: Any
) -> tuple[list[Event], DeviceCheck]:
    """Train two epochs; return the events and the check in which it ran."""
    workload = workload_of(task.pop("model", STACKED_MODELS["dropout"]), task.pop("data", images), **task)
    records = [run_of(full_config(seed, {}), f"run{seed:05}") for seed in range(WAYS[way])]
    stack: Stack = make_stack(records, task="digits", stop=None, runtime=runtime, files=files and str(files))
    with gpu_optimizers():
        stepper = make_stepper(way, workload)
        runs = [TrainingRun(record, record.config, None, runtime) for record in records]
        counter = stepper.stack.step_counter if isinstance(stepper, CudaGraphStepper) else stepper.step_counter
        trainer = StackTrainer(ReadyStack(runs, stepper, counter), workload, stack, "cpu", StopRequests())
        with DeviceCheck(META) as check:
            return list(trainer.events()), check


@pytest.mark.parametrize("way", WAYS)
def test_an_epoch_copies_its_losses_and_its_means_once_each(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_buffer, "FLUSH_SECONDS", 1e9)
    events, check = train_on_meta(way, Runtime())
    assert sum(isinstance(event, Finished) for event in events) == WAYS[way]
    assert check.copies == Counter(
        {SyncPoint.FLUSH: 2, SyncPoint.MEANS: 3}
    )  # the last means are those of the test data


@pytest.mark.parametrize("way", WAYS)
def test_a_flush_copies_once_for_all_runs(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_buffer, "FLUSH_SECONDS", -1.0)  # after every step
    events, check = train_on_meta(way, Runtime())
    assert check.copies == Counter({SyncPoint.FLUSH: 2 * STEPS, SyncPoint.MEANS: 3})
    losses = [event for event in events if isinstance(event, Points) and event.metric == "train/loss"]
    assert sum(len(event.steps) for event in losses) == 2 * STEPS * WAYS[way]


def test_files_probes_and_task_metrics_wait_at_their_own_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_buffer, "FLUSH_SECONDS", 1e9)

    def epoch_metrics(outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        return {"largest": outputs.max().item()}

    for way, runs in WAYS.items():
        runtime = Runtime(watch=True, keep="best", snapshot_every=0.0)
        _, check = train_on_meta(way, runtime, tmp_path, epoch_metrics=epoch_metrics)
        assert check.copies.pop(SyncPoint.FILE) > 0
        assert check.copies.pop(SyncPoint.PORTRAIT) > 0
        assert check.copies == Counter(
            {SyncPoint.FLUSH: 2, SyncPoint.MEANS: 3, SyncPoint.PROBE: 2 * runs, SyncPoint.TASK_METRICS: 3 * runs}
        )


def points_of_a_plane(config: Config) -> Data:
    return Data(*[(torch.zeros(count, 2), torch.zeros(count, dtype=torch.int64)) for count in (12, 8, 8)])


@pytest.mark.parametrize("way", WAYS)
def test_portraits_are_computed_without_mixing_host_and_device(way: str, tmp_path: Path) -> None:
    train_on_meta(way, Runtime(watch=True), tmp_path, model=STACKED_MODELS["max pool 2d"])
    portrait = read_portrait(run_folder(tmp_path, "run00000") / PORTRAIT)
    assert portrait is not None
    assert portrait.confusion is not None
    assert portrait.mistakes is not None
    assert portrait.weights is not None
    assert portrait.histograms


def test_decision_boundaries_are_computed_without_mixing_host_and_device(tmp_path: Path) -> None:
    train_on_meta(
        "stacked",
        Runtime(watch=True),
        tmp_path,
        model=lambda config: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)),
        data=points_of_a_plane,
    )
    portrait = read_portrait(run_folder(tmp_path, "run00000") / PORTRAIT)
    assert portrait is not None
    assert portrait.plane is not None


def test_every_sync_point_states_its_reason() -> None:
    assert all(len(point.value) > 40 for point in SyncPoint)
    assert len({point.value for point in SyncPoint}) == len(SyncPoint)
