"""Coverage of the band of the best of n random configurations, a part of bench/budget_coverage.py."""

import pytest

from helpers.programs import load_program


@pytest.fixture(scope="module")
def bench():
    return load_program("bench/budget_coverage.py")


@pytest.mark.parametrize("size", [6, 40, 250])
@pytest.mark.parametrize("name", ["continuous", "ties", "10 % diverged", "half of a grid"])
def test_the_band_holds_for_all_budgets_at_once(bench, name, size):
    """The same 1,000 searches in every run of the test; the goal of the benchmark's 10,000 is 0.94."""
    assert bench.measure_band(bench.DISTRIBUTIONS[name], size=size, searches=1000) >= 0.93


def test_the_mean_is_unbiased_and_the_one_with_replacement_is_too_low(bench):
    unbiased, with_replacement = bench.measure_means(10, 10, searches=1000)
    assert abs(unbiased) < 0.01
    assert with_replacement < -0.03
