"""Smoothing of points and of buckets, compared with slow reference implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.charts.smoothing import ema, smooth
from labbench.charts.smoothing_spec import Smoothing, SmoothingKind, parse_smoothing

finite = st.floats(-1e6, 1e6, width=32)
gappy = st.one_of(finite, st.sampled_from([math.nan, math.inf, -math.inf]))


def array(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def plain_ema(values: list[float], weight: float) -> list[float]:
    smoothed, total, seen = [], 0.0, 0
    for value in values:
        if not math.isfinite(value):
            smoothed.append(value)
            continue
        total, seen = weight * total + (1 - weight) * value, seen + 1
        smoothed.append(total / (1 - weight**seen))
    return smoothed


@given(st.lists(gappy, max_size=300), st.sampled_from([0.0, 0.3, 0.6, 0.97, 0.999]))
def test_ema_equals_the_recursion_and_skips_gaps(values: list[float], weight: float) -> None:
    np.testing.assert_allclose(ema(array(values), weight), plain_ema(values, weight), rtol=1e-9, atol=1e-6)


def test_ema_of_a_long_series_equals_the_recursion() -> None:
    values = np.random.default_rng(0).normal(size=20_000).cumsum()
    np.testing.assert_allclose(ema(values, 0.99), plain_ema(values.tolist(), 0.99), rtol=1e-10)


def test_a_constant_is_unchanged_by_smoothing() -> None:
    np.testing.assert_allclose(ema(np.full(1000, 7.0), 0.95), 7.0, rtol=1e-13)


def test_an_invalid_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        ema(array([1.0]), 1.0)


# Buckets


@given(st.lists(st.tuples(gappy, st.integers(1, 40)), max_size=60), st.sampled_from([0.0, 0.3, 0.9, 0.999]))
def test_a_bucket_moves_the_average_like_its_points_at_their_mean(buckets, weight: float) -> None:
    means, counts = array([mean for mean, _ in buckets]), np.array([n for _, n in buckets], dtype=np.int64)
    points = np.repeat(means, counts)
    at_ends = np.cumsum(counts) - 1
    np.testing.assert_allclose(
        ema(means, weight, counts), ema(points, weight)[at_ends] if len(points) else [], rtol=1e-7, atol=1e-6
    )


@pytest.mark.parametrize(
    ("smoothing", "error"),
    [
        (Smoothing("ema", 0.99), 0.02),
        (Smoothing("ema", 0.999), 0.002),
        (Smoothing("mean", 301), 0.006),
        (Smoothing("gauss", 100), 0.003),
    ],
    ids=str,
)
def test_the_smoothed_curve_hardly_depends_on_the_zoom(smoothing: Smoothing, error: float) -> None:
    """Compare 2,000 buckets of 50 noisy points with the exact curve; errors are fractions of the curve's range.

    The largest error is that of an average whose memory (100 points) is only twice a bucket.
    """
    steps = np.arange(100_000)
    noise = np.random.default_rng(0).normal(0.0, 0.1, len(steps))
    values = 2.0 * np.exp(-steps / 20_000) + 0.3 + noise
    exact = smooth(values, smoothing).reshape(-1, 50)
    exact = exact.mean(axis=1) if smoothing.is_centred else exact[:, -1]
    from_buckets = smooth(values.reshape(-1, 50).mean(axis=1), smoothing, np.full(2_000, 50))
    assert np.abs(from_buckets - exact).max() <= error * (exact.max() - exact.min())


# Symmetric windows


def test_a_running_mean_shrinks_at_the_ends_and_skips_gaps() -> None:
    values = array([1, 2, math.nan, 6, 4, 7])
    np.testing.assert_allclose(smooth(values, Smoothing("mean", 3)), [1.5, 3, math.nan, 4, 17 / 3, 5.5])


def test_gauss_smoothing_is_close_to_a_gaussian() -> None:
    values = np.zeros(201)
    values[100] = 1.0
    bell = np.exp(-0.5 * ((np.arange(201) - 100) / 8.0) ** 2) / (8.0 * math.sqrt(2 * math.pi))
    assert np.abs(smooth(values, Smoothing("gauss", 8)) - bell).max() < 0.07 * bell.max()


@given(st.lists(gappy, max_size=60), st.sampled_from([Smoothing("mean", 5), Smoothing("gauss", 3)]))
def test_windows_preserve_the_length_and_the_gaps(values: list[float], smoothing: Smoothing) -> None:
    smoothed = smooth(array(values), smoothing)
    np.testing.assert_array_equal(np.isfinite(smoothed), np.isfinite(array(values)))


@pytest.mark.parametrize("words", ["0.9", "0.99999999", "mean 3", "mean 1e308", "gauss 2", "gauss 1e308"])
def test_a_diverging_curve_can_be_smoothed(words: str) -> None:
    values = array([2.0, 1e100, -1.7e308, 1.7e308, 1.7e308, math.nan, 1.5e308])
    smoothed = smooth(values, parse_smoothing(words))
    np.testing.assert_array_equal(np.isfinite(smoothed), np.isfinite(values))
    assert np.nanmax(np.abs(smoothed)) <= 1.7e308 * (1 + 1e-12)


# As text


@given(st.floats(5e-324, 1, exclude_max=True) | st.floats(1, allow_infinity=False))
def test_smoothing_survives_a_round_trip_through_text(amount: float) -> None:
    windows: tuple[SmoothingKind, ...] = ("ema",) if amount < 1 else ("mean", "gauss")
    for window in windows:
        smoothing = Smoothing(window, amount)
        assert parse_smoothing(str(smoothing)) == smoothing


@pytest.mark.parametrize(
    ("words", "smoothing"),
    [
        ("0.9", Smoothing("ema", 0.9)),
        (" EMA 0.95 ", Smoothing("ema", 0.95)),
        ("mean 21", Smoothing("mean", 21)),
        ("gauss 5", Smoothing("gauss", 5)),
        ("none", Smoothing()),
        ("", Smoothing()),
    ],
)
def test_smoothing_is_parsed_from_a_number_or_a_window(words: str, smoothing: Smoothing) -> None:
    assert parse_smoothing(words) == smoothing


@pytest.mark.parametrize("words", ["1", "ema 1.5", "mean", "mean x", "median 3", "0.9 ema", "nan", "mean 0", "none 3"])
def test_other_texts_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (smoothing|weight)"):
        parse_smoothing(words)
