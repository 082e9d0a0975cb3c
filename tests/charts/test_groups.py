"""Bands over the runs of a group, compared with plain sums, and the coverage of the 95 % interval."""

from __future__ import annotations

import numpy as np
import pytest

from labbench.charts.groups import SpreadKind, group_bands

NAN = float("nan")


def test_mean_and_spread_use_the_runs_with_a_value() -> None:
    values = np.array([[1.0, 2, NAN], [3, 4, NAN], [10, NAN, 5]])
    owner = np.array([0, 0, 1])
    bands = group_bands(values, owner, 2, "std")
    np.testing.assert_array_equal(bands.n, [[2, 2, 0], [1, 0, 1]])
    np.testing.assert_allclose(bands.mean, [[2, 3, NAN], [10, NAN, 5]])
    np.testing.assert_allclose(bands.high - bands.mean, [[2**0.5, 2**0.5, NAN], [0, NAN, 0]])
    ranges = group_bands(values, owner, 2, "range")
    np.testing.assert_allclose(ranges.low, [[1, 2, NAN], [10, NAN, 5]])
    np.testing.assert_allclose(ranges.high, [[3, 4, NAN], [10, NAN, 5]])


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("uneven", [False, True])
def test_the_interval_covers_the_true_mean_in_95_of_100_cases(seeds: int, uneven: bool) -> None:
    random, groups, places = np.random.default_rng(0), 8, 20_000
    deviation = np.where(np.arange(groups) < groups // 2, 1.0, 3.0 if uneven else 1.0)
    values = random.normal(0.0, 1.0, (groups, seeds, places)) * deviation[:, None, None]
    bands = group_bands(values.reshape(-1, places), np.repeat(np.arange(groups), seeds), groups, "95 %")
    share = np.mean((bands.low <= 0) & (bands.high >= 0))
    assert 0.945 <= share <= 0.955


def test_a_single_run_has_an_interval_of_width_zero() -> None:
    bands = group_bands(np.array([[1.0, 2.0]]), np.array([0]), 1, "95 %")
    np.testing.assert_allclose([bands.low, bands.mean, bands.high], [[[1.0, 2.0]]] * 3)


def test_the_band_of_a_group_is_students_t_whatever_the_other_groups_do() -> None:
    random = np.random.default_rng(0)
    calm = random.normal(0.0, 1.0, (10, 50))
    exploding = random.normal(0.0, 1.0, (10, 50)) * np.geomspace(1.0, 1e6, 50)
    together = group_bands(np.concatenate([calm, exploding]), np.repeat([0, 1], 10), 2, "95 %")
    half_width = 2.2621571627 * calm.std(axis=0, ddof=1) / 10**0.5  # the 97.5 % quantile at 9 degrees of freedom
    np.testing.assert_allclose(together.high[0] - together.mean[0], half_width)
    np.testing.assert_allclose(together.mean[0] - together.low[0], half_width)


@pytest.mark.parametrize("spread", ["95 %", "std", "range"])
@pytest.mark.parametrize("factor", [1e300, 1e-300])
def test_bands_scale_with_huge_and_tiny_values(spread: SpreadKind, factor: float) -> None:
    values, owner = (
        np.array([[1.0, 2.0, NAN], [3.0, 4.5, 1.0], [2.0, 7.0, 0.0], [5.0, 5.0, 5.0]]),
        np.array([0, 0, 1, 1]),
    )
    plain, far = group_bands(values, owner, 2, spread), group_bands(values * factor, owner, 2, spread)
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(far, name), getattr(plain, name) * factor, rtol=1e-12)


def test_the_mean_of_the_largest_floats_is_finite() -> None:
    np.testing.assert_allclose(group_bands(np.full((3, 1), 1.7e308), np.zeros(3, int), 1, "std").mean, [[1.7e308]])
