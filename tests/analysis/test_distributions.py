"""Student's t and Fisher's F, compared with SciPy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.analysis.distributions import f_tail, incomplete_beta, t_quantile, t_tail

stats = pytest.importorskip("scipy.stats", reason="SciPy is the reference: pip install scipy")

DEGREES = (0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 4.7, 10.0, 48.0, 333.3, 5_000.0, 9_999.0, 10_001.0, 1e6, 1e9)


@pytest.mark.parametrize("df", DEGREES)
def test_t_quantiles_agree_with_scipy_to_eight_digits(df):
    for p in (0.5001, 0.6, 0.75, 0.9, 0.975, 0.995, 0.9999, 1 - 1e-6, 0.01, 0.3):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-8), p


@pytest.mark.parametrize("df", DEGREES)
def test_t_tails_agree_with_scipy_to_eight_digits(df):
    for x in (-2.0, 0.0, 1e-3, 0.5, 1.0, 3.0, 10.0, 50.0):
        assert t_tail(x, df) == pytest.approx(stats.t.sf(x, df), rel=1e-8, abs=1e-12), x


@pytest.mark.parametrize("df1", [1.0, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("df2", [0.7, 1.0, 3.0, 20.0, 500.0, 1e5])
def test_f_tails_agree_with_scipy_to_eight_digits(df1, df2):
    for x in (0.0, 0.01, 0.5, 1.0, 3.0, 20.0):
        assert f_tail(x, df1, df2) == pytest.approx(stats.f.sf(x, df1, df2), rel=1e-8, abs=1e-12), x


def test_infinite_degrees_of_freedom_give_the_normal_distribution():
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959963984540054, rel=1e-12)
    assert t_tail(1.959963984540054, math.inf) == pytest.approx(0.025, rel=1e-12)


@given(st.floats(0.001, 0.999), st.floats(0.2, 1e6))
def test_the_quantile_inverts_the_tail(p, df):
    assert 1.0 - t_tail(t_quantile(p, df), df) == pytest.approx(p, rel=1e-9)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0.01, 0.99))
def test_the_incomplete_beta_function_is_symmetric(a, b, x):
    assert incomplete_beta(a, b, x) + incomplete_beta(b, a, 1.0 - x) == pytest.approx(1.0, abs=1e-9)
