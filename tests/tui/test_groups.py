"""Groups of runs: what they have in common, their means, and their order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.tui.groups import RunGroup, SampleStats, group_rows, sample_stats, sort_groups

BEST = "best(val/loss)"
ROWS = [
    ("a0", '["adam",true]', "finished", 1.0),
    ("s0", '["sgd",null]', "finished", 2.0),
    ("a1", '["adam",true]', "failed", 3.0),
    ("s1", '["sgd",null]', "queued", None),
    ("q0", '["sgd",1]', "queued", None),
]


def groups(*opened: str) -> list[RunGroup]:
    return group_rows(ROWS, ["optimizer", "bn"], [BEST], opened=opened)


def test_every_run_is_in_one_group_and_groups_come_as_their_first_runs_do() -> None:
    adam, sgd, odd = groups()
    assert (adam.keys, sgd.keys, odd.keys) == (("a0", "a1"), ("s0", "s1"), ("q0",))
    assert adam.settings == {"optimizer": "adam", "bn": True}
    assert adam.statuses == {"finished": 1, "failed": 1}
    assert adam.means == {BEST: SampleStats(2, 2.0, math.sqrt(2))}
    assert sgd.means == {BEST: SampleStats(1, 2.0, None)}
    assert odd.means == {}


def test_a_group_says_what_it_is_and_whether_it_is_open() -> None:
    adam, sgd, odd = groups()
    labels = ["▾ optimizer adam · bn true", "▸ optimizer sgd · bn –", "▸ optimizer sgd · bn 1"]
    assert [one.label() for one in groups(adam.id)] == labels
    assert len({adam.id, sgd.id, odd.id}) == 3


def test_groups_are_sorted_by_their_means_and_those_without_come_last() -> None:
    rows = [("a", "[1]", "finished", 5.0), ("b", "[2]", "queued", None), ("c", "[3]", "finished", 1.0)]
    found = group_rows(rows, ["k"], [BEST], opened=())
    assert [one.keys[0] for one in sort_groups(found, BEST, descending=False)] == ["c", "a", "b"]
    assert [one.keys[0] for one in sort_groups(found, BEST, descending=True)] == ["a", "c", "b"]
    assert sort_groups(found, "name", descending=True) == found


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_the_spread_is_the_standard_deviation(values: list[float]) -> None:
    import numpy as np

    mean = sample_stats([*values, None, math.nan, "word"])
    assert mean is not None
    assert mean.spread is not None
    assert math.isclose(mean.mean, float(np.mean(values)), rel_tol=1e-9, abs_tol=1e-6)
    assert math.isclose(mean.spread, float(np.std(values, ddof=1)), rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize("factor", [1e300, 1e-300, 2.0**1023])
def test_the_mean_of_huge_and_tiny_numbers_is_that_of_others_times_a_factor(factor: float) -> None:
    plain, far = sample_stats([0.25, 0.5, 0.75]), sample_stats([0.25 * factor, 0.5 * factor, 0.75 * factor])
    assert plain is not None
    assert far is not None
    assert far.mean == pytest.approx(plain.mean * factor)
    assert far.spread == pytest.approx(plain.spread * factor)
