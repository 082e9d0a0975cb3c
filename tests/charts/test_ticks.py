"""Axis ticks: few, round, within the range, and readable."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from labbench.charts import ticks


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9), st.integers(2, 12), st.booleans())
def test_linear_ticks_are_few_round_and_in_range(low: float, extent: float, max_ticks: int, whole: bool) -> None:
    assume(extent > 1e-9 * abs(low))
    axis_ticks = ticks.linear_ticks(low, low + extent, max_ticks, whole=whole)
    slack = 1e-6 * max(abs(low), extent)
    assert len(axis_ticks.values) == len(axis_ticks.labels) <= max_ticks
    assert all(low - slack <= value <= low + extent + slack for value in axis_ticks.values)
    assert all(np.diff(axis_ticks.values) > 0)
    if whole:
        assert all(value == round(value) for value in axis_ticks.values)


@pytest.mark.parametrize(
    ("low", "high", "max_ticks", "labels"),
    [
        (0, 20, 5, ["0", "5", "10", "15", "20"]),
        (0, 0.97, 6, ["0", "0.2", "0.4", "0.6", "0.8"]),
        (0, 1500, 4, ["0", "500", "1000", "1500"]),
        (0, 25140, 6, ["0", "5k", "10k", "15k", "20k", "25k"]),
        (0, 1.1e6, 4, ["0", "0.5M", "1.0M"]),
        (0, 0.0021, 5, ["0", "0.5e-3", "1.0e-3", "1.5e-3", "2.0e-3"]),
        (-1, 1, 3, ["-1", "0", "1"]),
        (0.9781, 0.9783, 3, ["0.9781", "0.9782", "0.9783"]),
        (3, 3, 5, ["3"]),
    ],
)
def test_linear_ticks_have_readable_labels(low: float, high: float, max_ticks: int, labels: list[str]) -> None:
    assert list(ticks.linear_ticks(low, high, max_ticks).labels) == labels


@pytest.mark.parametrize(
    ("low", "high", "max_ticks", "labels"),
    [
        (0.01, 100, 5, ["0.01", "0.1", "1", "10", "100"]),
        (0.08, 2.3, 6, ["0.1", "0.2", "0.5", "1", "2"]),
        (1e-6, 1e6, 7, ["1e-6", "0.0001", "0.01", "1", "100", "10k", "1M"]),
        (0.31, 0.39, 5, ["0.32", "0.34", "0.36", "0.38"]),
        (1, 1e5, 6, ["1", "10", "100", "1000", "10k", "100k"]),
    ],
)
def test_logarithmic_ticks_have_readable_labels(low: float, high: float, max_ticks: int, labels: list[str]) -> None:
    assert list(ticks.log_ticks(low, high, max_ticks).labels) == labels


@given(st.floats(1e-12, 1e12), st.floats(1.0, 1e12), st.integers(2, 12))
def test_logarithmic_ticks_are_few_and_in_range(low: float, ratio: float, max_ticks: int) -> None:
    axis_ticks = ticks.log_ticks(low, low * ratio, max_ticks)
    assert len(axis_ticks.values) == len(axis_ticks.labels) <= max_ticks
    assert all(low * 0.999 <= value <= low * ratio * 1.001 for value in axis_ticks.values)


@pytest.mark.parametrize(
    ("high", "max_ticks", "labels"),
    [
        (2, 5, ["0", "0.5s", "1.0s", "1.5s", "2.0s"]),
        (47, 6, ["0", "10s", "20s", "30s", "40s"]),
        (130, 6, ["0", "30s", "1m", "1m30s", "2m"]),
        (3 * 3600, 4, ["0", "1h", "2h", "3h"]),
        (20 * 86400, 5, ["0", "5d", "10d", "15d", "20d"]),
    ],
)
def test_time_ticks_are_round_durations(high: float, max_ticks: int, labels: list[str]) -> None:
    assert list(ticks.time_ticks(0, high, max_ticks).labels) == labels


def test_clock_ticks_are_round_local_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    start = 1_700_000_000  # 14 Nov 2023, 22:13:20
    assert ticks.clock_ticks(start, start + 3600, 5).labels == ("22:15", "22:30", "22:45", "23:00")
    assert ticks.clock_ticks(start, start + 45, 5).labels == (
        "22:13:20",
        "22:13:30",
        "22:13:40",
        "22:13:50",
        "22:14:00",
    )
    assert ticks.clock_ticks(start, start + 3 * 86400, 4).labels == ("15 Nov", "16 Nov", "17 Nov")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(FLOATS, FLOATS, st.integers(2, 12))
@example(2.0, 1.7e308, 4)
@example(-1.7e308, 1.7e308, 4)
@example(5e-324, 2e-320, 4)
@example(0.0, 1e9, 4)
def test_any_two_numbers_have_few_ticks_between_them(first: float, second: float, max_ticks: int) -> None:
    low, high = sorted((first, second))
    for make in (ticks.linear_ticks, ticks.time_ticks, ticks.clock_ticks):
        axis_ticks = make(low, high, max_ticks)
        assert len(axis_ticks.values) == len(axis_ticks.labels) <= max_ticks
        assert all(math.isfinite(value) for value in axis_ticks.values)
        assert "nan" not in "".join(axis_ticks.labels)
    if low > 0:
        axis_ticks = ticks.log_ticks(low, high, max_ticks)
        assert len(axis_ticks.values) == len(axis_ticks.labels) <= max_ticks
        assert all(0 < value < math.inf for value in axis_ticks.values)


@pytest.mark.parametrize("max_ticks", [3, 4, 12])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.1), (-0.29, 4.31), (0.93, 0.94), (4.75e-11, 5.25e-11)])
def test_any_number_of_rows_has_at_least_three_ticks(low: float, high: float, max_ticks: int) -> None:
    assert 3 <= len(ticks.linear_ticks(low, high, max_ticks, min_ticks=3).values) <= max(4, max_ticks)
    if low > 0:
        assert 3 <= len(ticks.log_ticks(low, high, max_ticks, min_ticks=3).values) <= max(4, max_ticks)
    assert 3 <= len(ticks.log_ticks(2.0, 300.0, max_ticks, min_ticks=3).values) <= max(4, max_ticks)


def test_small_numbers_are_in_scientific_notation() -> None:
    assert ticks.log_ticks(1e-7, 1e-4, 4).labels == ("1e-7", "1e-6", "1e-5", "0.0001")
    assert ticks.linear_ticks(4.75e-11, 5.25e-11, 3, min_ticks=3).labels == ("4.8e-11", "5.0e-11", "5.2e-11")


def test_minor_ticks_are_between_powers_of_ten_while_there_is_room() -> None:
    assert ticks.minor_log_ticks(1, 10, 10) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert ticks.minor_log_ticks(1, 10, 5) == [1, 2, 5, 10]
    assert ticks.minor_log_ticks(1, 1e6, 3) == []
