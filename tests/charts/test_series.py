"""The arithmetic of curves, compared with slow reference implementations."""

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labbench.charts import groups, series

finite = st.floats(-1e6, 1e6, width=32)
gappy = st.one_of(finite, st.sampled_from([math.nan, math.inf, -math.inf]))


def array(values: list[float]) -> series.Floats:
    return np.array(values, dtype=np.float64)


# Decimation


def plain_spans(x: list[float], y: list[float], left: float, right: float, columns: int) -> list[tuple[float, float]]:
    """Return the extent of all segments, clipped to each column, and of all points."""
    edges = np.linspace(left, right, columns + 1)
    values_of_column: list[list[float]] = [[] for _ in range(columns)]
    for point_x, value in zip(x, y, strict=True):
        if left <= point_x <= right and math.isfinite(value):
            values_of_column[min(columns - 1, int(np.searchsorted(edges, point_x, side="right")) - 1)].append(value)
    for (x0, y0), (x1, y1) in pairwise(zip(x, y, strict=True)):
        if math.isfinite(y0) and math.isfinite(y1) and x1 > x0:
            for column in range(columns):
                a, b = max(x0, edges[column]), min(x1, edges[column + 1])
                if a < b:
                    values_of_column[column] += [y0 + (y1 - y0) * (at - x0) / (x1 - x0) for at in (a, b)]
    return [(min(values), max(values)) if values else (math.nan, math.nan) for values in values_of_column]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.one_of(st.floats(-100, 100, width=32), st.just(math.nan))), max_size=40),
    st.sampled_from([(0.0, 60.0), (10.0, 30.5), (-20.0, 90.0), (25.0, 26.0)]),
    st.integers(1, 25),
)
def test_spans_are_the_exact_extent_of_the_line_in_each_column(points, window, columns: int) -> None:
    by_step = sorted(dict(points).items())
    x, y = [float(step) + 0.01 for step, _ in by_step], [value for _, value in by_step]
    low, high = series.column_spans(array(x), array(y), *window, columns)
    expected = plain_spans(x, y, *window, columns)
    np.testing.assert_allclose(low, [pair[0] for pair in expected], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(high, [pair[1] for pair in expected], rtol=1e-6, atol=1e-4)


@given(st.lists(finite, min_size=1, max_size=2000), st.integers(1, 50))
def test_spans_keep_the_extremes(values: list[float], columns: int) -> None:
    y = array(values)
    low, high = series.column_spans(np.arange(len(y), dtype=float), y, 0, max(1, len(y) - 1), columns)
    rounding = 1e-12 * np.abs(y).max()  # interpolation at an edge rounds to the size of its ends
    np.testing.assert_allclose([np.nanmin(low), np.nanmax(high)], [y.min(), y.max()], rtol=0, atol=rounding)


def test_no_line_crosses_a_gap() -> None:
    x, y = np.arange(30.0), np.ones(30)
    y[10:20] = [math.nan, math.inf, *[math.nan] * 8]
    low, _ = series.column_spans(x, y, 0, 30, 30)
    assert np.isnan(low[10:20]).all()
    assert np.isfinite(low[:9]).all()
    assert np.isfinite(low[20:29]).all()


def test_two_points_at_one_x_are_a_vertical_line() -> None:
    low, high = series.column_spans(array([1, 1]), array([0, 5]), 0, 2, 4)
    assert low[2] == 0
    assert high[2] == 5
    assert np.isnan(low[[0, 1, 3]]).all()


@given(st.lists(finite, max_size=3000), st.integers(4, 300))
def test_thinning_keeps_the_ends_and_the_extremes_within_its_budget(values: list[float], points: int) -> None:
    y = array(values)
    x = np.arange(len(y), dtype=float)
    thin_x, thin_y = series.thin(x, y, points)
    assert len(thin_x) <= max(points, 0)
    assert (np.diff(thin_x) > 0).all()
    assert (y[thin_x.astype(int)] == thin_y).all()
    if len(y):
        assert {y[0], y[-1], y.min(), y.max()} <= set(thin_y)


@given(st.lists(gappy, max_size=50))
def test_pieces_are_finite_and_hold_every_finite_point(values: list[float]) -> None:
    y = array(values)
    pieces = series.split_at_gaps(np.arange(len(y), dtype=float), y)
    assert all(len(piece_y) and np.isfinite(piece_y).all() for _, piece_y in pieces)
    rejoined = [int(step) for piece_x, _ in pieces for step in piece_x]
    assert rejoined == np.flatnonzero(np.isfinite(y)).tolist()
    assert all(before[0][-1] + 1 < behind[0][0] for before, behind in pairwise(pieces))


# Joins and bands


def test_a_join_is_linear_between_the_logged_points_and_extrapolated_outside() -> None:
    epochs = series.join_by_step(np.array([0, 10, 15, 20, 25]), np.array([10, 20]), array([1.0, 2.0]))
    np.testing.assert_allclose(epochs, [0, 1, 1.5, 2, 2.5])


def test_a_join_with_one_point_is_proportional_and_with_none_is_nan() -> None:
    np.testing.assert_allclose(series.join_by_step(np.array([0, 5]), np.array([10]), array([1.0])), [0, 0.5])
    assert np.isnan(series.join_by_step(np.array([0, 5]), np.array([], dtype=np.int64), array([]))).all()
    assert np.isnan(series.join_by_step(np.array([0, 5]), np.array([3]), array([math.nan]))).all()
    np.testing.assert_allclose(series.join_by_step(np.array([0, 1]), np.array([0]), array([4.0])), [0, 4])


def test_a_band_is_the_mean_and_spread_of_the_runs_with_a_value() -> None:
    x = np.arange(4.0)
    runs = [(x, array([1, 2, 3, 4])), (x[:3], array([3, 4, math.nan])), (x[:2], array([2, 6]))]
    band = groups.make_band(runs, x)
    np.testing.assert_array_equal(band.n, [3, 3, 1, 1])
    np.testing.assert_allclose(band.mean, [2, 4, 3, 4])
    np.testing.assert_allclose(band.deviation, [1, 2, 0, 0])
    np.testing.assert_allclose(band.low, [1, 2, 3, 4])
    np.testing.assert_allclose(band.high, [3, 6, 3, 4])


def test_a_band_of_nothing_is_all_nan() -> None:
    band = groups.make_band([], np.arange(3.0))
    assert np.isnan(band.mean).all()
    assert (band.n == 0).all()


# Ranges


def test_ranges_use_finite_values_and_only_positive_ones_on_a_logarithmic_axis() -> None:
    arrays = [array([math.nan, -1, 5]), array([math.inf, 0.01]), array([])]
    assert series.value_range(arrays) == (-1, 5)
    assert series.value_range(arrays, log=True) == (0.01, 5)
    assert series.value_range([array([math.nan])]) is None
    assert series.value_range([array([-2.0, 0.0])], log=True) is None


def test_epochs_before_the_first_logged_one_are_not_extrapolated() -> None:
    steps, logged = np.array([0, 5, 10, 20]), np.array([10, 20])
    np.testing.assert_array_equal(series.join_by_step(steps, logged, array([0.0, 1.0])), [0, 0, 0, 1])
    np.testing.assert_array_equal(series.join_by_step(steps, logged, array([2.0, 3.0])), [0, 1, 2, 3])
