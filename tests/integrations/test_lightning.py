"""LightningLogger beyond the example of the documentation."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labbench.store.reader import Reader


def test_checkpoint_that_cannot_be_read_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning.pytorch")
    from labbench.integrations.lightning import LightningLogger

    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    logger = LightningLogger("run", db=tmp_path / "runs.db", quiet=True)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.after_save_checkpoint(SimpleNamespace(best_model_path=str(checkpoint)))
    monkeypatch.setattr(hashlib, "file_digest", fail)
    logger.finalize("success")
    assert capsys.readouterr().err == f"labbench: run.artifact: {checkpoint} cannot be read: Input/output error\n"
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
        assert (run.status, run.summary["loss"].n) == ("finished", 1)
