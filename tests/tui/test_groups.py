"""Groups of runs: settings, means and order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.tui.groups import RunGroup, SampleStats, group_rows, sample_stats, sort_groups
from labbench.tui.screens.heatmap import MetricHeatMap

BEST = "best(val/loss)"
ROWS = [
    ("a0", '["adam",true]', "finished", 1.0),
    ("s0", '["sgd",null]', "finished", 2.0),
    ("a1", '["adam",true]', "failed", 3.0),
    ("s1", '["sgd",null]', "queued", None),
    ("q0", '["sgd",1]', "queued", None),
]


def groups(*opened: str) -> list[RunGroup]:
    return group_rows(ROWS, ["optimizer", "bn"], [BEST], opened=opened, sources={})


def test_every_run_is_in_one_group_and_groups_follow_the_order_of_their_first_runs() -> None:
    adam, sgd, odd = groups()
    assert (adam.keys, sgd.keys, odd.keys) == (("a0", "a1"), ("s0", "s1"), ("q0",))
    assert adam.settings == {"optimizer": "adam", "bn": True}
    assert adam.statuses == {"finished": 1, "failed": 1}
    assert adam.means == {BEST: SampleStats(2, 2.0, math.sqrt(2))}
    assert sgd.means == {BEST: SampleStats(1, 2.0, None)}
    assert odd.means == {}


def test_a_label_shows_the_settings_and_whether_the_group_is_open() -> None:
    adam, sgd, odd = groups()
    labels = ["▾ adam bn=true", "▸ sgd", "▸ sgd bn=1"]
    assert [group.label() for group in groups(adam.id)] == labels
    assert len({adam.id, sgd.id, odd.id}) == 3


def test_pruned_runs_are_counted_but_not_averaged() -> None:
    values = [("finished", 0.9, 10.0), ("pruned", 0.5, 20.0), ("finished", 0.7, 30.0)]
    rows = [(f"run{i}", '["adam"]', status, best, created) for i, (status, best, created) in enumerate(values)]
    (group,) = group_rows(rows, ["optimizer"], [BEST, "created"], opened=(), sources={})
    assert group.statuses == {"finished": 2, "pruned": 1}
    assert (group.means[BEST].n, group.means[BEST].mean) == (2, pytest.approx(0.8))
    assert group.means["created"].n == 3


def test_a_run_and_its_continuations_are_averaged_once() -> None:
    sources = {"b": "a", "c": "b", "e": "d", "g": "f"}  # a, b, c are one run of more and more epochs; g has just begun
    values = {"a": 9.0, "b": 8.0, "c": 1.0, "d": 3.0, "f": 5.0, "g": None}
    rows = [(key, '["adam"]', "finished", value) for key, value in values.items()]
    (group,) = group_rows(rows, ["optimizer"], [BEST], opened=(), sources=sources)
    assert (group.means[BEST].n, group.means[BEST].mean) == (3, 3.0)
    assert len(group.keys) == 6
    heat_map = MetricHeatMap(("optimizer",), "val/loss", "min", rows, sources)
    assert heat_map.titles_and_rows()[1][0].cells[0].text == "3"


def test_groups_are_sorted_by_their_means_and_groups_without_one_come_last() -> None:
    rows = [("a", "[1]", "finished", 5.0), ("b", "[2]", "queued", None), ("c", "[3]", "finished", 1.0)]
    unsorted = group_rows(rows, ["k"], [BEST], opened=(), sources={})
    assert [group.keys[0] for group in sort_groups(unsorted, BEST, descending=False)] == ["c", "a", "b"]
    assert [group.keys[0] for group in sort_groups(unsorted, BEST, descending=True)] == ["a", "c", "b"]
    assert sort_groups(unsorted, "name", descending=True) == unsorted


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_the_spread_is_the_standard_deviation(values: list[float]) -> None:
    import numpy as np

    stats = sample_stats([*values, None, math.nan, "word"])
    assert stats is not None
    assert stats.spread is not None
    assert math.isclose(stats.mean, float(np.mean(values)), rel_tol=1e-9, abs_tol=1e-6)
    assert math.isclose(stats.spread, float(np.std(values, ddof=1)), rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize("factor", [1e300, 1e-300, 2.0**1023])
def test_mean_and_spread_scale_with_huge_and_tiny_numbers(factor: float) -> None:
    plain, scaled = sample_stats([0.25, 0.5, 0.75]), sample_stats([0.25 * factor, 0.5 * factor, 0.75 * factor])
    assert plain is not None
    assert scaled is not None
    assert scaled.mean == pytest.approx(plain.mean * factor)
    assert scaled.spread == pytest.approx(plain.spread * factor)


def test_groups_of_one_key_are_named_by_key_and_value() -> None:
    rows = [("a", "[0.0]", "finished", 1.0), ("b", "[0.3]", "finished", 2.0)]
    names = [group.name for group in group_rows(rows, ["dropout"], [BEST], opened=(), sources={})]
    assert names == ["dropout 0", "dropout 0.3"]


def test_groups_of_several_keys_are_named_by_what_differs_like_runs() -> None:
    settings = ['["sgd",0.3,0.0,false]', '["sgd",0.3,0.3,true]', '["sgd",0.3,0.3,false]']
    rows = [(str(row), each, "finished", 1.0) for row, each in enumerate(settings)]
    by = ["optimizer", "lr", "dropout", "batchnorm"]
    names = [group.name for group in group_rows(rows, by, [BEST], opened=(), sources={})]
    assert names == ["drop=0", "drop=0.3 bn", "drop=0.3"]


def test_the_interval_of_a_group_is_that_of_its_mean_and_missing_for_one_run() -> None:
    adam, sgd, _ = groups()
    half_width = adam.means[BEST].half_width
    assert half_width == pytest.approx(12.706, rel=1e-4)  # Student's t with one degree of freedom, over two runs
    assert sgd.means[BEST].half_width is None
