"""The contract of executors: jobs of a SLURM whose commands are fakes that run jobs as processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import fake_slurm
from helpers.executor_contract import ExecutorContract, MakeExecutor
from labbench.executors import Executor
from labbench.executors.slurm import executor as slurm_executor
from labbench.executors.slurm import job as slurm_job
from labbench.executors.slurm.executor import JobSettings, SlurmExecutor
from labbench.records import Event, SlurmOptions

pytest.importorskip("torch")
pytest.importorskip("submitit")


class RecordingExecutor(SlurmExecutor):
    """Executor whose events are recorded as soon as they arrive, as a driver does."""

    def execute(self, stacks: object) -> Iterator[Event | None]:
        for event in super().execute(stacks):  # type: ignore[arg-type]
            if event is not None:
                self.acknowledge([event])
            yield event


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_executor, "QUERY_SECONDS", 0.5)
    monkeypatch.setattr(slurm_executor, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(slurm_job, "SETTLE_SECONDS", 0.5)


def make(tmp_path: Path, options: SlurmOptions) -> Executor:
    return RecordingExecutor(JobSettings(options, tmp_path / "runs.db.files" / "slurm-jobs", "cpu"))


class TestFakeSlurm(ExecutorContract):
    @pytest.fixture
    def make_executor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeExecutor]:
        for name, value in fake_slurm.install(tmp_path / "slurm").items():
            monkeypatch.setenv(name, value)
        yield lambda: make(tmp_path, SlurmOptions(array=2))
        fake_slurm.stop_all(tmp_path / "slurm" / "state")

    @pytest.mark.skipif(
        not os.environ.get("LABBENCH_CLUSTER_TESTS"), reason="takes minutes: set LABBENCH_CLUSTER_TESTS=1 to run it"
    )
    def test_an_interrupt_stops_runs_at_a_boundary_from_which_they_resume(
        self, make_executor: MakeExecutor, tmp_path: Path
    ) -> None:
        super().test_an_interrupt_stops_runs_at_a_boundary_from_which_they_resume(make_executor, tmp_path)
