"""Checkpoints: atomic writes, exact restore, and removal of those no longer needed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from labbench.errors import LabbenchError
from labbench.files import discard_checkpoints, discard_older_checkpoints
from labbench.records import RunRecord
from labbench.train import checkpoints

CPU = torch.device("cpu")


def run_at(boundary: int) -> RunRecord:
    return RunRecord(1, "k3f9wxyz", "adam", "demo", "running", {}, boundary=boundary)


def test_a_checkpoint_is_restored_exactly_with_nan_and_dtypes(tmp_path: Path) -> None:
    tensors = {
        "model.0.weight": torch.randn(3, 4, dtype=torch.float64).T,  # not contiguous
        "optimizer.step": torch.tensor(7.0),
        "buffer": torch.tensor([1, 2], dtype=torch.int64),
    }
    checkpoints.save_checkpoint(tmp_path, run_at(0), 40, tensors, {"best": math.nan, "since": 2, "epoch": 3})
    read, state = checkpoints.load_checkpoint(tmp_path, run_at(40), CPU)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)
    assert math.isnan(state.pop("best"))
    assert state == {"since": 2, "epoch": 3}


def test_checkpoints_stay_until_the_database_names_a_newer_one(tmp_path: Path) -> None:
    for step in (20, 40, 100):
        checkpoints.save_checkpoint(tmp_path, run_at(0), step, {"w": torch.tensor(float(step))}, {})
    assert checkpoints.load_checkpoint(tmp_path, run_at(20), CPU)[0]["w"] == 20
    discard_older_checkpoints(tmp_path, "k3f9wxyz", 40)
    assert checkpoints.load_checkpoint(tmp_path, run_at(40), CPU)[0]["w"] == 40
    assert checkpoints.load_checkpoint(tmp_path, run_at(100), CPU)[0]["w"] == 100
    with pytest.raises(LabbenchError, match="cannot resume from step 20"):
        checkpoints.load_checkpoint(tmp_path, run_at(20), CPU)
    discard_checkpoints(tmp_path, "k3f9wxyz")
    assert list(tmp_path.parent.glob(f"{tmp_path.name}/*")) == []


def test_a_damaged_checkpoint_is_an_error_that_names_the_retry_command(tmp_path: Path) -> None:
    files = tmp_path / "mine.db.files"
    checkpoints.save_checkpoint(files, run_at(0), 40, {"w": torch.zeros(100)}, {})
    file = files / "k3f9wxyz" / "snapshot-40.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(LabbenchError, match=f"labbench --db {tmp_path}/mine.db retry k3f9wxyz --from-start"):
        checkpoints.load_checkpoint(files, run_at(40), CPU)


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    checkpoints.save_checkpoint(tmp_path, run_at(0), 40, {"w": torch.ones(1)}, {})
    with pytest.raises(TypeError):
        checkpoints.save_checkpoint(tmp_path, run_at(0), 60, {"w": torch.ones(1)}, {"not": object()})
    assert [file.name for file in (tmp_path / "k3f9wxyz").iterdir()] == ["snapshot-40.safetensors"]


def test_discarding_checkpoints_leaves_the_kept_model(tmp_path: Path) -> None:
    checkpoints.save_checkpoint(tmp_path, run_at(0), 40, {"w": torch.ones(1)}, {})
    checkpoints.save_model(tmp_path, run_at(0), {"w": torch.ones(1)}, {"step": 40})
    discard_checkpoints(tmp_path, "k3f9wxyz")
    assert [file.name for file in (tmp_path / "k3f9wxyz").iterdir()] == ["model.safetensors"]
