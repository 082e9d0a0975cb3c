"""The contract of executors: jobs of a SLURM whose commands are fakes that run jobs as processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from helpers import fake_slurm
from helpers.executor_contract import (
    ExecutorContract,
    MakeExecutor,
    ends,
    joined,
    points_of,
    require_order,
    stacks_of,
)
from labbench.executors import Executor
from labbench.executors.attempt import train_attempt
from labbench.executors.slurm import executor as slurm_executor
from labbench.executors.slurm import job as slurm_job
from labbench.executors.slurm.executor import JobSettings, SlurmExecutor
from labbench.records import Event, Failed, Finished, SlurmOptions
from labbench.train.active_runs import StopRequests

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
    monkeypatch.setattr(slurm_executor, "INTERRUPTED_QUERY_SECONDS", 0.5)
    monkeypatch.setattr(slurm_executor, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(slurm_job, "SETTLE_SECONDS", 0.5)


def make(tmp_path: Path, options: SlurmOptions, timeout: float | None) -> Executor:
    return RecordingExecutor(JobSettings(options, tmp_path / "runs.db.files" / "slurm-jobs", "cpu", timeout))


class TestFakeSlurm(ExecutorContract):
    @pytest.fixture
    def make_executor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeExecutor]:
        for name, value in fake_slurm.install(tmp_path / "slurm").items():
            monkeypatch.setenv(name, value)
        yield lambda *, timeout=None: make(tmp_path, SlurmOptions(array=2), timeout)
        fake_slurm.stop_all(tmp_path / "slurm" / "state")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves its logs open
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_jobs_of_this_machine_report_every_point_once(tmp_path: Path, cluster: Literal["local", "debug"]) -> None:
    stacks = stacks_of(tmp_path, "good", "print", "raise", epochs=3)
    expected = [event for stack in stacks for event in train_attempt(stack, "cpu", StopRequests())]
    with closing(make(tmp_path, SlurmOptions(cluster=cluster), None)) as executor:
        events = list(executor.execute(stacks))
    require_order(events)
    assert points_of(events) == points_of(expected)
    assert {run: type(event) for run, event in ends(events).items()} == {
        "run0": Finished,
        "run1": Finished,
        "run2": Failed,
    }


def test_a_local_job_that_is_killed_fails_its_run_alone(tmp_path: Path) -> None:
    with closing(make(tmp_path, SlurmOptions(cluster="local"), None)) as executor:
        last = ends(executor.execute([joined(stacks_of(tmp_path, "good", "exit"))]))
    assert {run: type(event) for run, event in last.items()} == {"run0": Finished, "run1": Failed}
