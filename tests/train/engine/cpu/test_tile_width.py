"""The tuner finds the fastest tile width of a stack."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from labbench.train.engine.cpu.tile_width import TileWidthTuner


def tune(tuner: TileWidthTuner, seconds: dict[int, float]) -> list[int]:
    """Return the widths that a tuner tries, given the seconds of a step with each width."""
    widths = []
    while tuner.best is None:
        widths.append(tuner.width)
        tuner.record_step(seconds[tuner.width], 64)
    return widths


def test_narrower_tiles_are_tried_until_one_is_slower() -> None:
    tuner = TileWidthTuner(24)
    assert tune(tuner, {24: 9.0, 12: 7.0, 6: 7.2, 3: 9.0}) == 2 * [24, 24, 12, 12, 6, 6, 3, 3]
    assert tuner.best == tuner.width == 12


def test_narrow_tiles_are_not_tried_if_half_the_stack_is_slower() -> None:
    tuner = TileWidthTuner(24)
    assert tune(tuner, {24: 5.0, 12: 7.0}) == 2 * [24, 24, 12, 12]
    assert tuner.best == 24


def test_steps_with_a_smaller_batch_are_ignored() -> None:
    tuner = TileWidthTuner(2)
    for seconds, samples in 2 * ((3.0, 64), (0.1, 9), (3.0, 64), (2.0, 64), (0.1, 9), (2.0, 64)):
        tuner.record_step(seconds, samples)
    assert tuner.best == 1


def test_a_single_slow_measurement_does_not_rule_out_the_fastest_width() -> None:
    tuner = TileWidthTuner(4)
    for seconds in (9.0, 9.0, 7.0, 7.0, 8.0, 8.0, 6.0, 6.0, 7.0, 7.0, 8.0, 8.0):  # 4, 2, 1 runs, twice
        tuner.record_step(seconds, 64)
    assert tuner.best == 4


def test_the_second_round_tries_narrower_tiles_than_the_first() -> None:
    tuner = TileWidthTuner(4)
    for seconds in (9.0, 9.0, 10.0, 10.0, 9.0, 9.0, 7.0, 7.0, 5.0, 5.0):  # 4, 2; 4, 2, 1
        tuner.record_step(seconds, 64)
    assert tuner.best == 1


def test_a_known_width_is_used_and_limited_to_the_number_of_runs() -> None:
    assert TileWidthTuner(5, best=12).width == 5
    assert TileWidthTuner(5, best=2).width == 2


def test_tuning_continues_with_the_same_runs_and_ends_with_fewer() -> None:
    tuner = TileWidthTuner(2)
    assert tuner.for_runs(2) is tuner
    for seconds in (2.0, 2.0, 3.0, 3.0):
        tuner.record_step(seconds, 64)
    assert tuner.for_runs(2).best is None
    assert TileWidthTuner(2).for_runs(1).best is None
    assert tuner.for_runs(1).best == 1
