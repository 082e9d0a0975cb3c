"""Time limit of runs: shares of the time in which they train together, and silence."""

from __future__ import annotations

import pytest

from labbench.executors import watched_stack
from labbench.executors.watched_stack import TimeLimit


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
