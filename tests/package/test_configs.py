"""Definition of keys that differ, in grids, tables, charts and databases."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.store_samples import queue
from labbench.cli.showing.columns import comparison_columns, run_columns
from labbench.configs import compare_configs, constant_values, differing_keys, distinguishing_keys, same_value
from labbench.records import NewRun, RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui.charts.labels import group_labels, run_labels
from labbench.tui.groups import group_rows
from labbench.tui.screens.heatmap import MetricHeatMap

ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1}
SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 1.0, "momentum": 0.9}


def records(*configs: dict[str, Any]) -> list[RunRecord]:
    return [RunRecord(i, f"k{i}", f"run {i}", "e", "finished", config) for i, config in enumerate(configs)]


@pytest.mark.parametrize(
    ("left", "right"), [(1, 1.0), (math.nan, math.nan), ([1, [2]], [1.0, [2.0]]), ({"a": 1}, {"a": 1.0}), (None, None)]
)
def test_equal_values_do_not_differ(left: Any, right: Any) -> None:
    assert same_value(left, right)
    assert differing_keys([{"key": left}, {"key": right}]) == []


@pytest.mark.parametrize(
    ("left", "right"), [(1, True), (0, False), ("1", 1), ([1], [True]), (None, 0), ("", None), ({"a": 1}, {"a": True})]
)
def test_different_values_differ(left: Any, right: Any) -> None:
    assert not same_value(left, right)
    assert differing_keys([{"key": left}, {"key": right}]) == ["key"]


def test_a_missing_key_is_not_a_different_value() -> None:
    assert differing_keys([ADAM, SGD]) == ["optimizer"]
    assert constant_values([ADAM, SGD]) == {"lr": 1}
    assert compare_configs([ADAM, SGD]).varying == ("optimizer", "momentum")


def test_keys_of_only_some_configs_count_if_no_other_key_distinguishes_them() -> None:
    assert distinguishing_keys([ADAM, SGD]) == ["optimizer"]
    assert distinguishing_keys([ADAM, SGD, {"optimizer": "sgd", "lr": 1}]) == ["optimizer", "momentum"]
    assert distinguishing_keys([ADAM, ADAM, SGD]) == ["optimizer"]
    assert distinguishing_keys([{"a": 0}, {"a": 1}, {"b": 2}]) == ["a", "b"]


def test_tables_and_labels_show_the_keys_that_differ() -> None:
    runs = records(ADAM, SGD)
    assert [column.name for column in run_columns(runs, {})] == ["status", "key", "name", "optimizer"]
    assert list(run_labels(runs).values()) == ["0 optimizer=adam", "1 optimizer=sgd"]


def test_comparing_two_runs_shows_a_key_of_only_one_of_them() -> None:
    [names, first, second] = comparison_columns(records(ADAM, SGD), {})
    assert dict(zip(names.cells, zip(first.cells, second.cells, strict=True), strict=True))["momentum"] == ("-", "0.9")


values = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.sampled_from(["", "a", "1", "true"])
configs = st.lists(
    st.dictionaries(st.sampled_from(["lr", "x.lr", "bn", 'odd"key']), values | st.lists(values, max_size=2)), max_size=5
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs") / "runs.db"


numbers = count()


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_a_database_and_the_function_compare_configs_alike(path: Path, drawn: list[dict[str, Any]]) -> None:
    experiment = f"e{next(numbers)}"
    with Writer(path) as writer, Reader(path) as reader:
        queue(writer, [NewRun("run", config, f"{next(numbers):064x}") for config in drawn], experiment)
        run_filter = f"experiment={experiment}"
        assert reader.compare_configs(run_filter) == compare_configs(drawn)
        assert reader.differing(run_filter) == differing_keys(drawn)
        assert reader.constant(run_filter) == constant_values(drawn)


def test_groups_heat_maps_and_labels_count_1_and_1_0_as_one_value() -> None:
    rows = [("a", "[1]", "finished", 0.5), ("b", "[1.0]", "finished", 0.7), ("c", "[true]", "finished", 0.9)]
    assert [group.keys for group in group_rows(rows, ["lr"], ["last(loss)"], opened=(), sources={})] == [
        ("a", "b"),
        ("c",),
    ]
    _, cells = MetricHeatMap(("lr",), "loss", "min", rows, {}).titles_and_rows()
    assert len(cells) == 2
    runs = records({"lr": 1, "seed": 0}, {"lr": 1.0, "seed": 1})
    assert len(set(group_labels(runs, run_labels(runs)).values())) == 1
