"""What is kept of a run's losses, and that it does not depend on when it is handed over."""

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
def test_each_window_keeps_its_smallest_and_its_largest_value(values: list[int], window: int) -> None:
    keep = extremes_mask(np.array(values, dtype=float), window)
    for start in range(0, len(values), window):
        part, kept = values[start : start + window], keep[start : start + window]
        remaining = [value for value, there in zip(part, kept, strict=True) if there]
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
    """All points of train/loss when these losses come and the recorder is flushed after some of the steps."""
    recorder = MetricBuffer(run_of({}), log_every, total)  # type: ignore[arg-type]
    points = []
    for loss in losses:
        recorder.update(np.array([loss]), [0])
        if recorder.step in flush_after:
            points += recorder.drain_points()
    points += recorder.drain_points(ended=True)
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
def test_what_is_kept_does_not_depend_on_when_it_is_handed_over(
    count: int, flush_after: set[int], window: int, non_finite: int | None, log_every: int | str, seed: int
) -> None:
    losses = np.random.default_rng(seed).normal(size=count)
    if non_finite is not None and non_finite < count:
        losses[non_finite] = [math.nan, math.inf, -math.inf][seed % 3]
    total = window * MAX_UNTHINNED_STEPS // 2 if window > 2 else count
    kept = logged(losses.tolist(), flush_after, log_every=log_every, total=total)
    once = logged(losses.tolist(), set(), log_every=log_every, total=total)
    assert kept.steps == once.steps
    assert kept.values == pytest.approx(once.values, nan_ok=True, abs=0)
    assert kept.values == pytest.approx(losses[kept.steps].tolist(), nan_ok=True, abs=0)
    end = count - 1 if non_finite is None or non_finite >= count else non_finite
    assert kept.steps[0] == 0
    assert kept.steps[-1] == end
    assert kept.steps == sorted(set(kept.steps))


def test_log_every_keeps_its_multiples_and_the_last_step() -> None:
    points = logged([float(i) for i in range(12)], {5}, log_every=5, total=12)
    assert points.steps == [0, 5, 10, 11]


def test_a_batchs_loss_is_the_mean_over_its_samples_of_each_run() -> None:
    losses = LossBuffer()
    for number, batch in enumerate(([1.0, 2.0], [3.0, 5.0], [7.0])):
        losses.add(torch.tensor([batch, [0.0] * len(batch)]), number)
    values, times = losses.drain()
    assert values.tolist() == [[1.5, 0], [4, 0], [7, 0]]
    assert times == [0, 1, 2]
    assert losses.drain()[1] == []
    recorder = MetricBuffer(run_of({}), "auto", 3)
    recorder.update(values[:, 0], times)
    (points,) = recorder.drain_points()
    assert points.values == [1.5, 4.0, 7.0]
    assert recorder.pop_epoch_loss() == pytest.approx(12.5 / 3)


def test_the_time_that_the_receiver_takes_is_not_the_runs() -> None:
    watch = Stopwatch()
    recorder = MetricBuffer(run_of({}), "auto", 1)
    recorder.add_metrics({"a": 1, "b": 2}, watch.elapsed_milliseconds())
    for _ in watch.exclude_consumer_time(recorder.drain_points()):
        time.sleep(0.1)
    assert watch.compute_seconds() < 0.1
    assert watch.elapsed_milliseconds() >= 200
