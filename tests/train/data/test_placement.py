"""Data that stays on the host because it does not fit the device: the same batches, the same curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from helpers.cuda import needs_cuda
from helpers.training import CPU, histories, run_of
from labbench.grid.read import read_grid
from labbench.records import Config, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data, load_digits
from labbench.train.data.placement import fits_on_device, place_data, total_bytes
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, Task, load_task

MLP: Config = {"epochs": 2, "hidden": [16], "dropout": 0.3, "batch_size": 50}
CNN: Config = {"epochs": 1, "model": "cnn", "batchnorm": True, "train_size": 320}


def curves(config: Config, runs: int, placement: str, task: Task | None = None) -> list[dict[str, dict[int, float]]]:
    """Train runs with their data at `placement`; return the curves of each by metric, without times."""
    runtime = Runtime(data=placement)  # type: ignore[arg-type]
    members = [run_of({**config, "seed": seed}, str(seed)) for seed in range(runs)]
    stack = make_stack(members, task="digits", stop=None, runtime=runtime)
    by_run = histories(train(stack, task or load_task("digits"), "cpu"))
    return [{name: curve for name, curve in h.curves.items() if not name.startswith("time/")} for h in by_run.values()]


@pytest.mark.parametrize("config", [MLP, CNN])
@pytest.mark.parametrize("runs", [1, 3])
def test_data_on_the_host_gives_bit_equal_curves(config: Config, runs: int) -> None:
    assert curves(config, runs, "host") == curves(config, runs, "device")


def test_a_batch_is_gathered_on_the_host_by_the_same_indices() -> None:
    resident, remote = (place_data(load_digits(), CPU, torch.float64, placement) for placement in ("device", "host"))
    assert (resident.resident, remote.resident) == (True, False)
    indices = torch.tensor([7, 0, 7, 1000])
    for ours, theirs in zip(remote.gather(indices), resident.gather(indices), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_data_stays_on_the_host_if_it_exceeds_half_of_the_free_memory() -> None:
    data = Data(
        (torch.zeros(10, 3), torch.zeros(10, dtype=torch.int64)), (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    )
    assert total_bytes(data, torch.float32) == 12 * (3 * 4 + 8)
    assert total_bytes(data, torch.float64) == 12 * (3 * 8 + 8)
    assert fits_on_device(500, 1000)
    assert not fits_on_device(501, 1000)
    assert fits_on_device(10**12, None)


def test_a_memory_mapped_file_trains_without_being_loaded_into_memory(tmp_path: Path) -> None:
    digits = load_digits()
    file = np.lib.format.open_memmap(
        tmp_path / "train.npy", mode="w+", dtype=np.float32, shape=tuple(digits.train[0].shape)
    )
    file[:] = digits.train[0].numpy()
    mapped = torch.from_numpy(file)
    data = Data((mapped, digits.train[1]), digits.val, digits.test)
    assert place_data(data, CPU, torch.float32, "host").train[0].data_ptr() == mapped.data_ptr()
    config = {"epochs": 2, "batch_size": 50}
    assert curves(config, 2, "host", task_with(data)) == curves(config, 2, "device", task_with(digits))


def task_with(data: Data) -> FileTask:
    return FileTask({}, lambda config: data, small, cross_entropy, accuracy)


def small(config: Config) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def test_the_placement_is_read_from_a_grid(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "digits"\n[runtime]\ndata = "host"\n')
    assert read_grid(grid).runtime.data == "host"


@needs_cuda
def test_on_a_gpu_batches_come_from_pinned_memory() -> None:
    cuda = torch.device("cuda:0")
    remote = place_data(load_digits(), cuda, torch.float32, "host")
    assert remote.home == CPU
    indices = torch.tensor([3, 1, 2])
    for ours, theirs in zip(remote.gather(indices), load_digits().train, strict=True):
        assert ours.device == cuda
        assert torch.equal(ours.cpu(), theirs[indices])
