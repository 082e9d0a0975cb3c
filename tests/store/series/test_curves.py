"""Curves of many runs read together equal curves read one at a time."""

from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from helpers.store_samples import points, start
from labbench.store.reader import Reader
from labbench.store.series import curves
from labbench.store.series.curves import CurveRequest
from labbench.store.writer import Writer

RANDOM = np.random.default_rng(0)
SERIES: list[dict[int, float]] = [
    {step: float(step) for step in range(1000)},  # dense
    {step: math.nan if step % 7 == 0 else -float(step) for step in range(5, 605)},  # starts at step 5
    {7 * step: [math.inf, -math.inf, 1.5][step % 3] for step in range(300)},  # one step of seven
    {int(step): float(step) ** 2 for step in np.unique(RANDOM.integers(0, 5000, 400))},  # gaps
    {3: 1.0},
    {},
    {step: 1.0 / (step + 1) for step in range(9000)},  # long enough for a rollup
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create twenty runs of each kind of series, in turn."""
    path = tmp_path_factory.mktemp("curves") / "runs.db"
    with Writer(path) as writer:
        runs = start(writer, 20 * len(SERIES))
        writer.write([points(run, "loss", SERIES[number % len(SERIES)]) for number, run in enumerate(runs)])
    return path


@pytest.mark.parametrize("columns", [1, 40, 400, 5000])
@pytest.mark.parametrize("limits", [{}, {"first_step": 100}, {"last_step": 450}, {"first_step": 90, "last_step": 95}])
@pytest.mark.parametrize("times", [False, True])
def test_series_read_together_equal_series_read_alone(
    database: Path, columns: int, limits: dict[str, int], times: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader(database) as reader:
        ids = [run.id for run in reader.runs()]
        together = reader.curves(ids, "loss", CurveRequest(columns, times=times, **limits))
        monkeypatch.setattr(curves, "_read_together", lambda *_: iter(()))
        alone = reader.curves(ids, "loss", CurveRequest(columns, times=times, **limits))
    assert len(alone) >= 20 * 3
    assert alone.keys() == together.keys()
    for run_id, curve in alone.items():
        for expected, actual in zip(astuple(curve), astuple(together[run_id]), strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("columns", [40, 5000])
@pytest.mark.parametrize("times", [False, True])
def test_rounded_series_are_exact_to_fifteen_digits(tmp_path: Path, columns: int, times: bool) -> None:
    """Numbers of any magnitude, with missing steps and between non-finite values."""
    numbers = (RANDOM.normal(size=1000) * 10.0 ** RANDOM.integers(-300, 300, 1000)).tolist()
    special = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7e308]
    kinds = [
        dict(enumerate(numbers)),
        {step: special[step // 2 % 6] if step % 2 else numbers[step] for step in range(900)},
        {step**2: number for step, number in enumerate(numbers)},
        {10**15: 0.1 + 0.2},
    ]
    with Writer(tmp_path / "runs.db") as writer:
        runs = start(writer, 100)
        writer.write([points(run, "loss", kinds[number % len(kinds)]) for number, run in enumerate(runs)])
    with Reader(tmp_path / "runs.db") as reader:
        ids = [run.id for run in reader.runs()]
        exact, rounded = (
            reader.curves(ids, "loss", CurveRequest(columns, times=times, coarse=coarse)) for coarse in (False, True)
        )
    assert exact.keys() == rounded.keys() == set(ids)
    for run_id, curve in exact.items():
        for field in ("first_step", "last_step", "first_time", "last_time", "n", "n_nonfinite"):
            np.testing.assert_array_equal(getattr(curve, field), getattr(rounded[run_id], field))
        for field in ("low", "high"):
            np.testing.assert_allclose(getattr(rounded[run_id], field), getattr(curve, field), rtol=5e-15)
        size = np.maximum(np.abs(curve.low), np.abs(curve.high))
        assert np.nanmax(np.abs(rounded[run_id].mean - curve.mean) / np.where(size > 0, size, 1)) < 5e-15
