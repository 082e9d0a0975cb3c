"""A stack of two runs, and the folder of its job."""

from __future__ import annotations

from pathlib import Path

import pytest

from labbench.executors.slurm.job_folder import JobFolder
from labbench.records import RunRecord, Runtime, Stack
from labbench.runner.planner import make_stack


@pytest.fixture
def stack() -> Stack:
    runs = [RunRecord(index, f"run{index}", "", "e", "running", {"epochs": 9}) for index in range(2)]
    return make_stack(runs, task="digits", stop=None, runtime=Runtime())


@pytest.fixture
def folder(tmp_path: Path, stack: Stack) -> JobFolder:
    return JobFolder.create(tmp_path / "jobs" / "job", stack, "cpu")
