"""Devices of a machine with several GPUs, of which some are split by MIG; the list of GPUs is made up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from labbench.errors import InputError
from labbench.train import devices
from labbench.train.devices import list_gpus, resolve_devices, select_part, visible_name, worker_devices

LISTING = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa)
  MIG 3g.40gb     Device  0: (UUID: MIG-22222222-bbbb)
  MIG 3g.40gb     Device  1: (UUID: MIG-33333333-cccc)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-44444444-dddd)
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pretend that CUDA is installed and shows four GPUs, unless CUDA_VISIBLE_DEVICES names others."""

    def count() -> int:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return 4 if visible is None else len([name for name in visible.split(",") if name])

    (tmp_path / "nvidiactl").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "CUDA_DEVICE_FILES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr(devices, "list_gpus", lambda: [f"GPU-{index}" for index in range(4)])
    monkeypatch.setattr(torch.cuda, "device_count", count)


def test_every_visible_gpu_is_used() -> None:
    assert resolve_devices("auto") == resolve_devices("cuda") == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert resolve_devices("cuda:2") == ["cuda:2"]
    with pytest.raises(InputError, match="the last CUDA device of this machine is cuda:3"):
        resolve_devices("cuda:4")


def test_cuda_visible_devices_limits_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert resolve_devices("cuda") == ["cuda:0", "cuda:1"]
    assert [visible_name(device) for device in resolve_devices("cuda")] == ["3", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resolve_devices("auto") == ["cpu"]


def test_each_mig_device_is_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, LISTING)

    monkeypatch.setattr(subprocess, "run", run)
    assert list_gpus() == ["GPU-11111111-aaaa", "MIG-22222222-bbbb", "MIG-33333333-cccc", "GPU-44444444-dddd"]


def test_a_process_sees_its_own_mig_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-22222222-bbbb, MIG-33333333-cccc")
    assert resolve_devices("cuda") == ["cuda:MIG-22222222-bbbb", "cuda:MIG-33333333-cccc"]
    assert resolve_devices("cuda:1") == ["cuda:MIG-33333333-cccc"]
    assert visible_name("cuda:MIG-33333333-cccc") == "MIG-33333333-cccc"
    assert select_part("cuda:MIG-33333333-cccc") == "cuda:0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-33333333-cccc"
    assert resolve_devices("cuda:MIG-33333333-cccc") == ["cuda:MIG-33333333-cccc"]  # in the worker, for the next stack
    assert select_part("cuda:1") == "cuda:1"


def test_mig_devices_of_a_whole_machine_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_gpus", lambda: ["GPU-1", "MIG-1", "MIG-2"])
    assert resolve_devices("auto") == ["cuda:MIG-1", "cuda:MIG-2"]


def test_a_whole_gpu_beside_a_divided_one_is_used_too(monkeypatch: pytest.MonkeyPatch) -> None:
    uuids = ["GPU-1", "MIG-1", "MIG-2", "GPU-2"]
    monkeypatch.setattr(devices, "list_gpus", lambda: uuids)
    assert resolve_devices("cuda") == ["cuda:MIG-1", "cuda:MIG-2", "cuda:GPU-2"]
    assert resolve_devices("cuda:GPU-2") == ["cuda:GPU-2"]
    assert visible_name("cuda:GPU-2") == "GPU-2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2")  # in a worker that was started for it
    assert select_part("cuda:GPU-2") == "cuda:0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-2"
    assert resolve_devices("cuda:GPU-2") == ["cuda:GPU-2"]  # for the next stack


def test_a_part_of_a_gpu_per_stack_lets_several_workers_share_it() -> None:
    gpus = ["cuda:0", "cuda:1"]
    assert worker_devices(gpus, 0) == worker_devices(gpus, 1) == worker_devices(gpus, 0.7) == gpus
    assert worker_devices(gpus, 0.5) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert worker_devices(gpus, 0.25) == gpus * 4
