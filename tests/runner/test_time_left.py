"""The estimate of the time left begins when it means something."""

from __future__ import annotations

from labbench.runner.time_left import TimeLeft


def test_the_time_left_is_estimated_from_the_progress_without_the_start_of_the_processes() -> None:
    time_left = TimeLeft()
    assert time_left.estimate(0.0, 0.0) is None
    assert time_left.estimate(20.0, 0.001) is None  # the first progress
    assert time_left.estimate(22.0, 0.1) is None
    assert time_left.estimate(30.0, 0.201) == 10 * 0.799 / 0.2
    assert time_left.estimate(70.0, 1.0) is None


def test_slow_work_has_an_estimate_after_a_minute() -> None:
    time_left = TimeLeft()
    time_left.estimate(0.0, 0.001)
    assert time_left.estimate(59.0, 0.002) is None
    assert time_left.estimate(60.0, 0.002) == 60 * 0.998 / 0.001
