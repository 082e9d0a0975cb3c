"""Active runs: their boundaries, their ends, and requests to stop them."""

from __future__ import annotations

from helpers.training import run_of
from labbench.records import Boundary, Failed, Finished, Started
from labbench.runner.planner import StackSettings, plan_stacks
from labbench.train.active_runs import ActiveRuns, StopRequests


def test_retried_runs_share_a_stack_only_if_they_reached_the_same_boundary() -> None:
    active = ActiveRuns(run_of({"seed": seed}, key) for seed, key in enumerate(("first", "second", "third")))
    for key, step in (("first", 20), ("second", 40), ("third", 40)):
        active.update(Started(key, 1, "box", 1, "cpu", "stacked"))
        active.update(Boundary(key, 1, step))
    stacks = plan_stacks(list(active), StackSettings("digits"))
    assert sorted([run.key for run in stack.runs] for stack in stacks) == [["first"], ["second", "third"]]
    assert {run.way for run in active} == {"stacked"}


def test_a_run_is_active_until_it_ends() -> None:
    active = ActiveRuns(run_of({}, key) for key in ("finishes", "fails", "waits"))
    active.update(Started("finishes", 1, "box", 1, "cpu"))
    active.update(Finished("finishes", 1, "finished", "all epochs"))
    active.update(Failed("fails", 1, "user", "no such file"))
    assert active.keys == ["waits"]
    assert not any(active.has_started(run) for run in active)


def test_a_stop_request_concerns_single_runs() -> None:
    stop_requests = StopRequests()
    stop_requests.request(["first"])
    assert stop_requests.is_requested("first")
    assert not stop_requests.is_requested("second")
