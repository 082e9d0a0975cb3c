"""Bounds of metrics: means and intervals within the possible values."""

from __future__ import annotations

import pytest

from labbench.analysis.intervals import Interval
from labbench.analysis.scales.bounds import Bounds

ACCURACY = Bounds(0.0, 1.0)


@pytest.mark.parametrize(
    ("interval", "clipped"),
    [
        (Interval(0.9, 0.7, 1.1), Interval(0.9, 0.7, 1.0)),
        (Interval(1.0, 1.0, 1.0), Interval(1.0, 1.0, 1.0)),
        (Interval(-0.1), Interval(0.0)),
        (Interval(-0.1, -0.3, 0.1), Interval(0.0, 0.0, 0.1)),
        (Interval(-0.2, -0.3, -0.1), Interval(0.0)),
    ],
    ids=["limit", "all equal", "no interval", "impossible mean", "impossible interval"],
)
def test_impossible_values_are_not_reported(interval: Interval, clipped: Interval) -> None:
    assert ACCURACY.clip(interval) == clipped
