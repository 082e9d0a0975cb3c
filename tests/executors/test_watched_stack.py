"""Time limit of runs: shares of the time in which they train together, and silence."""

from __future__ import annotations

import pytest

from labbench.executors import watched_stack
from labbench.executors.watched_stack import TimeLimit, WatchedStack
from labbench.records import Boundary, Failed, Points, RunRecord, Runtime, Started
from labbench.runner.planner import make_stack


class Clock:
    """Replacement of the module `time`, set by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watched_stack, "time", clock)
    return clock


def test_runs_that_train_together_share_the_time(clock: Clock) -> None:
    limit = TimeLimit(4.0)
    runs = [f"run{index}" for index in range(32)]
    clock.now += 3.2  # loading
    limit.charge(runs)
    clock.now += 120
    limit.charge(runs)
    assert limit.over(runs) == []
    clock.now += 5
    limit.charge(runs)
    assert limit.over(runs) == runs


def test_a_run_that_trains_alone_has_the_whole_time(clock: Clock) -> None:
    limit = TimeLimit(4.0)
    limit.charge(["a", "b"])
    clock.now += 3
    limit.charge(["a"])
    clock.now += 3
    limit.charge(["b"])
    assert limit.over(["a", "b"]) == []
    clock.now += 2
    limit.charge(["b"])
    assert limit.over(["a", "b"]) == ["b"]


def test_time_in_which_a_stack_waits_for_a_node_does_not_count(clock: Clock) -> None:
    limit = TimeLimit(4.0)
    clock.now += 3
    limit.charge(["a"])
    clock.now += 1000
    limit.skip()
    assert not limit.is_silent
    limit.charge(["a"])
    assert limit.over(["a"]) == []
    clock.now += 2
    limit.charge(["a"])
    assert limit.over(["a"]) == ["a"]


def test_only_a_new_boundary_and_the_end_of_a_run_advance_a_stack() -> None:
    run = RunRecord(0, "run0", "", "e", "running", {"epochs": 9}, boundary=4)
    stack = make_stack([run], task="digits", stop=None, runtime=Runtime())
    for event, advances in (
        (Started("run0", 1, "host", 1, "cpu"), False),
        (Points("run0", 1, "train/loss", [5], [5], [0.5]), False),
        (Boundary("run0", 1, 4), False),
        (Boundary("run0", 1, 8), True),
        (Failed("run0", 1, "user", "message"), True),
    ):
        watched = WatchedStack(stack, None)
        watched.update(event)
        assert watched.has_advanced == advances, event


def test_silence_is_limited_whatever_the_number_of_runs(clock: Clock) -> None:
    limit = TimeLimit(4.0)
    clock.now += 3
    limit.report()
    clock.now += 4
    assert not limit.is_silent
    clock.now += 1
    assert limit.is_silent
    assert not TimeLimit(None).is_silent
    assert TimeLimit(None).over(["a"]) == []
