"""How many runs of a stack go forward and back at a time, timed, and changing nothing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from labbench.train.engine.tile_width import TileWidthTuner


def tried(trial: TileWidthTuner, seconds: dict[int, float]) -> list[int]:
    """The widths that a trial asks for, when steps with them take so long."""
    asked = []
    while trial.best is None:
        asked.append(trial.width)
        trial.record_step(seconds[trial.width], 64)
    return asked


def test_narrower_tiles_are_tried_until_one_is_slower() -> None:
    trial = TileWidthTuner(24)
    assert tried(trial, {24: 9.0, 12: 7.0, 6: 7.2, 3: 9.0}) == 2 * [24, 24, 12, 12, 6, 6, 3, 3]
    assert trial.best == trial.width == 12


def test_a_stack_that_is_best_whole_is_hardly_tried() -> None:
    trial = TileWidthTuner(24)
    assert tried(trial, {24: 5.0, 12: 7.0}) == 2 * [24, 24, 12, 12]
    assert trial.best == 24


def test_a_smaller_last_batch_does_not_count() -> None:
    trial = TileWidthTuner(2)
    for seconds, samples in 2 * ((3.0, 64), (0.1, 9), (3.0, 64), (2.0, 64), (0.1, 9), (2.0, 64)):
        trial.record_step(seconds, samples)
    assert trial.best == 1


def test_a_width_that_was_slow_once_by_chance_wins_all_the_same() -> None:
    trial = TileWidthTuner(4)
    for seconds in (9.0, 9.0, 7.0, 7.0, 8.0, 8.0, 6.0, 6.0, 7.0, 7.0, 8.0, 8.0):  # 4, 2, 1 runs, twice
        trial.record_step(seconds, 64)
    assert trial.best == 4


def test_a_width_that_seemed_the_last_by_chance_is_gone_beyond() -> None:
    trial = TileWidthTuner(4)
    for seconds in (9.0, 9.0, 10.0, 10.0, 9.0, 9.0, 7.0, 7.0, 5.0, 5.0):  # 4, 2; 4, 2, 1
        trial.record_step(seconds, 64)
    assert trial.best == 1


def test_a_stack_that_has_lost_runs_keeps_the_width_it_found() -> None:
    assert TileWidthTuner(5, best=12).width == 5
    assert TileWidthTuner(5, best=2).width == 2


def test_a_trial_goes_on_with_the_same_runs_and_ends_with_fewer() -> None:
    trial = TileWidthTuner(2)
    assert trial.for_runs(2) is trial
    for seconds in (2.0, 2.0, 3.0, 3.0):
        trial.record_step(seconds, 64)
    assert trial.for_runs(2).best is None
    assert TileWidthTuner(2).for_runs(1).best is None
    assert trial.for_runs(1).best == 1
