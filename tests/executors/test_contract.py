"""The contract of executors: this process and worker processes."""

from __future__ import annotations

import pytest

from helpers.executor_contract import ExecutorContract, MakeExecutor
from labbench.executors.in_process import InProcessExecutor
from labbench.executors.worker_pool import WorkerExecutor

pytest.importorskip("torch")


class TestThisProcess(ExecutorContract):
    survives_crashes = False

    @pytest.fixture
    def make_executor(self) -> MakeExecutor:
        return lambda *, timeout=None: InProcessExecutor("cpu")


class TestWorkerProcesses(ExecutorContract):
    @pytest.fixture
    def make_executor(self) -> MakeExecutor:
        return lambda *, timeout=None: WorkerExecutor(["cpu", "cpu"], timeout=timeout)
