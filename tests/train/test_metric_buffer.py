"""Thinning of a run's losses, independent of flush times; batch means; consumer time."""

from __future__ import annotations

import math
import time

import pytest

torch = pytest.importorskip("torch")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.training import run_of
from labbench.records import Points
from labbench.train.metric_buffer import (
    MAX_UNTHINNED_STEPS,
    LossBuffer,
    MetricBuffer,
    Stopwatch,
    extremes_mask,
    window_size,
)


@given(
    values=st.lists(st.integers(-9, 9), max_size=80),
    window=st.integers(1, 20),
)
def test_each_window_keeps_its_minimum_and_maximum(values: list[int], window: int) -> None:
    keep = extremes_mask(np.array(values, dtype=float), window)
    for start in range(0, len(values), window):
        part, mask = values[start : start + window], keep[start : start + window]
        remaining = [value for value, is_kept in zip(part, mask, strict=True) if is_kept]
        assert 1 <= len(remaining) <= 2
        assert {min(remaining), max(remaining)} == {min(part), max(part)}


@given(st.integers(1, 10**7))
def test_auto_keeps_every_step_of_a_short_run_and_some_thousands_of_a_long_one(total_steps: int) -> None:
    window = window_size(total_steps)
    most = min(2, window) * math.ceil(total_steps / window)
    assert most <= MAX_UNTHINNED_STEPS + 2
    assert window == 1 or total_steps > MAX_UNTHINNED_STEPS
    assert most >= min(total_steps, MAX_UNTHINNED_STEPS / 2)


def logged(losses: list[float], flush_after: set[int], *, log_every: int | str = "auto", total: int) -> Points:
    """Record losses with a flush after some of the steps; return all points of train/loss."""
    buffer = MetricBuffer(run_of({}), log_every, total)  # type: ignore[arg-type]
    points = []
    for loss in losses:
        buffer.update(np.array([loss]), [0])
        if buffer.step in flush_after:
            points += buffer.drain_points()
    points += buffer.drain_points(ended=True)
    assert all(point.metric == "train/loss" for point in points)
    steps, values = [s for p in points for s in p.steps], [v for p in points for v in p.values]
    return Points("", 1, "", steps, [], values)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 60),
    flush_after=st.sets(st.integers(1, 60)),
    window=st.integers(1, 9),
    non_finite=st.none() | st.integers(0, 59),
    log_every=st.just("auto") | st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_thinning_does_not_depend_on_flush_times(
    count: int, flush_after: set[int], window: int, non_finite: int | None, log_every: int | str, seed: int
) -> None:
    losses = np.random.default_rng(seed).normal(size=count)
    if non_finite is not None and non_finite < count:
        losses[non_finite] = [math.nan, math.inf, -math.inf][seed % 3]
    total = window * MAX_UNTHINNED_STEPS // 2 if window > 2 else count
    points = logged(losses.tolist(), flush_after, log_every=log_every, total=total)
    unflushed = logged(losses.tolist(), set(), log_every=log_every, total=total)
    assert points.steps == unflushed.steps
    assert points.values == pytest.approx(unflushed.values, nan_ok=True, abs=0)
    assert points.values == pytest.approx(losses[points.steps].tolist(), nan_ok=True, abs=0)
    end = count - 1 if non_finite is None or non_finite >= count else non_finite
    assert points.steps[0] == 0
    assert points.steps[-1] == end
    assert points.steps == sorted(set(points.steps))


def test_log_every_keeps_its_multiples_and_the_last_step() -> None:
    points = logged([float(i) for i in range(12)], {5}, log_every=5, total=12)
    assert points.steps == [0, 5, 10, 11]


def test_a_batch_loss_is_the_mean_over_the_samples_of_each_run() -> None:
    losses = LossBuffer()
    for number, batch in enumerate(([1.0, 2.0], [3.0, 5.0], [7.0])):
        losses.add(torch.tensor([batch, [0.0] * len(batch)]), number)
    values, times = losses.drain()
    assert values.tolist() == [[1.5, 0], [4, 0], [7, 0]]
    assert times == [0, 1, 2]
    assert losses.drain()[1] == []
    buffer = MetricBuffer(run_of({}), "auto", 3)
    buffer.update(values[:, 0], times)
    (points,) = buffer.drain_points()
    assert points.values == [1.5, 4.0, 7.0]
    assert buffer.pop_epoch_loss() == pytest.approx(12.5 / 3)


def test_the_consumers_time_is_not_compute_time() -> None:
    watch = Stopwatch()
    buffer = MetricBuffer(run_of({}), "auto", 1)
    buffer.add_metrics({"a": 1, "b": 2}, watch.elapsed_milliseconds())
    for _ in watch.exclude_consumer_time(buffer.drain_points()):
        time.sleep(0.1)
    assert watch.compute_seconds() < 0.1
    assert watch.elapsed_milliseconds() >= 200
