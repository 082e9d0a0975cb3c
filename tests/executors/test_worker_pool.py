"""Executors: a worker that dies, hangs or prints does not affect other runs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from helpers.executor_contract import ends, stacks_of
from labbench.executors.attempt import train_attempt
from labbench.executors.in_process import InProcessExecutor
from labbench.executors.worker_pool import WorkerExecutor, cause_of_death
from labbench.records import Failed, Finished, Log, Points, RunRecord, Runtime
from labbench.runner.planner import make_stack
from labbench.system.cgroups import cgroup_quota
from labbench.train.active_runs import StopRequests

pytest.importorskip("torch")


def test_ctrl_c_in_a_task_still_interrupts_this_process(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(InProcessExecutor("cpu").execute(stacks_of(tmp_path, "ctrl-c", "good")))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("exit", "exit status 3"),
        ("crash", "killed by SIGSEGV"),
        ("real-time signal", "killed by signal 40"),
        ("half a message", "killed by SIGKILL"),
        ("no messages", "killed by SIGKILL"),
        ("fork", "exit status 3"),
    ],
)
def test_a_worker_that_dies_fails_its_run_with_the_reason_and_its_last_lines(
    tmp_path: Path, behaviour: str, message: str
) -> None:
    with closing(WorkerExecutor(["cpu"])) as executor:
        last = ends(list(executor.execute(stacks_of(tmp_path, "good", behaviour, "good"))))
    assert isinstance(last["run0"], Finished)
    assert isinstance(last["run2"], Finished)
    failure = last["run1"]
    assert isinstance(failure, Failed)
    assert failure.kind == "crash"
    assert message in failure.message
    assert behaviour != "exit" or "leaving now" in failure.traceback


@pytest.mark.parametrize("behaviour", ["hang", "hang in data"])
def test_a_run_that_hangs_is_ended_at_its_timeout(tmp_path: Path, behaviour: str) -> None:
    with closing(WorkerExecutor(["cpu"], timeout=3.0)) as executor:
        last = ends(list(executor.execute(stacks_of(tmp_path, behaviour, "good"))))
    failure = last["run0"]
    assert isinstance(failure, Failed)
    assert failure.kind == "timeout"
    assert "3 s" in failure.message
    assert isinstance(last["run1"], Finished)


def test_every_run_of_a_stack_that_hangs_is_ended(tmp_path: Path) -> None:
    stacks = stacks_of(tmp_path, "hang", "hang")
    runs = [run for stack in stacks for run in stack.runs]
    stack = make_stack(runs, task=stacks[0].task, stop=None, runtime=Runtime())
    with closing(WorkerExecutor(["cpu"], timeout=2.0)) as executor:
        last = ends(list(executor.execute([stack])))
    assert len(last) == 2
    assert all(isinstance(event, Failed) and event.kind == "timeout" for event in last.values())


def test_a_stack_has_the_timeout_of_each_of_its_runs(tmp_path: Path) -> None:
    stacks = stacks_of(tmp_path, *["slow"] * 8)
    runs = [run for stack in stacks for run in stack.runs]
    stack = make_stack(runs, task=stacks[0].task, stop=None, runtime=Runtime())
    with closing(WorkerExecutor(["cpu"], timeout=3.5)) as executor:  # it takes at least 4 s
        last = ends(list(executor.execute([stack])))
    assert {type(event) for event in last.values()} == {Finished}


def test_output_of_a_worker_becomes_events_and_not_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(WorkerExecutor(["cpu"])) as executor:
        events = list(executor.execute(stacks_of(tmp_path, "print")))
    assert "hello from the model\n" in "".join(event.text for event in events if isinstance(event, Log))
    assert capfd.readouterr().out == ""


def test_a_cgroup_quota_limits_the_cores(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5


def test_the_end_of_a_worker_is_described_by_signal_or_exit_status() -> None:
    assert cause_of_death(-9) == "the worker process was killed by SIGKILL; the system may have run out of memory"
    assert cause_of_death(1) == "the worker process ended with exit status 1"


TOUCHY = """
import torch
from torch import nn
from labbench.params import Param
from labbench.train.data import Data

class Touchy(nn.Module):
    def __init__(self, patience):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("left", torch.tensor(patience))

    def forward(self, inputs):
        if self.training:
            self.left -= 1
        # index out of range after `patience` steps
        return self.linear(inputs) + 0 * torch.zeros(1).index_select(0, (self.left < 0).long().reshape(1))

class Task:
    params = {"patience": Param("int", 1000, per_run=True)}

    def data(self, config):
        inputs = torch.randn(64, 4)
        return Data(train=(inputs, (inputs[:, 0] > 0).long()), val=(inputs, (inputs[:, 0] > 0).long()))

    def model(self, config):
        return Touchy(config["patience"])
"""


def test_only_the_failing_run_fails_and_the_others_have_the_curves_of_a_stack_without_it(tmp_path: Path) -> None:
    file = tmp_path / "touchy.py"
    file.write_text(TOUCHY)
    configs = [{"seed": seed, "epochs": 8, "patience": 5 if seed == 2 else 1000} for seed in range(5)]
    runs = [RunRecord(seed, f"run{seed}", "", "touchy", "running", config) for seed, config in enumerate(configs)]

    def curves(chosen: list[RunRecord]) -> dict[str, dict[tuple[str, int], float]]:
        stack = make_stack(chosen, task=f"{file}:Task", stop=None, runtime=Runtime(precision="float64"))
        losses: dict[str, dict[tuple[str, int], float]] = {run.key: {} for run in chosen}
        events = list(train_attempt(stack, "cpu", StopRequests()))
        failures = [event for event in events if isinstance(event, Failed)]
        assert [event.run for event in failures] == ["run2"] * (len(chosen) == 5)
        assert len(ends(list(events))) == len(chosen)
        for event in events:
            if isinstance(event, Points) and event.run != "run2" and event.metric == "train/loss":
                points = zip(event.steps, event.values, strict=True)
                losses[event.run].update({(event.metric, step): value for step, value in points})
        return losses

    together, without = curves(runs), curves([run for run in runs if run.key != "run2"])
    for key, curve in without.items():
        assert together[key] == pytest.approx(curve, rel=1e-10)
