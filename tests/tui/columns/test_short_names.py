"""Names of runs that do not repeat the columns of the runs table."""

from __future__ import annotations

from dataclasses import replace

from labbench.records import MetricSummary, RunRecord
from labbench.tui.columns.run_column import ColumnLayout
from labbench.tui.columns.run_columns import ColumnContext, run_columns
from labbench.tui.columns.short_names import fit_names, short_name

KEYS = ["optimizer", "lr", "seed"]
RUN = RunRecord(
    id=1,
    key="k",
    name="adam lr=0.01 s0",
    experiment="e",
    status="finished",
    config={"optimizer": "adam", "lr": 0.01, "seed": 0},
    summary={"val/loss": MetricSummary(20, 0, None, 0.0812, 200, 0.0791, 170, 2.3, 10)},
)


def titles(runs: list[RunRecord], width: int, layout: ColumnLayout | None = None) -> list[str]:
    layout = layout or ColumnLayout()
    columns = fit_names(run_columns(ColumnContext(KEYS, [], "val/loss", {"val/loss": "min"})), runs, layout, width)
    return [column.title for column in columns if layout.is_shown(column)]


def test_a_wide_table_has_the_settings_as_columns_in_place_of_names_made_of_them() -> None:
    assert titles([RUN], 80)[:5] == ["optimizer", "lr", "seed", "last", "best"]


def test_a_narrow_table_has_names_in_place_of_the_settings_that_they_mention() -> None:
    assert titles([RUN], 50) == ["name", "last", "best", "best step", "curve", "took", "age"]
    assert "lr" in titles([RUN], 50, ColumnLayout(shown=frozenset({"config:lr"})))


def test_words_that_no_column_explains_stay_in_the_name() -> None:
    renamed = replace(RUN, name="adam lr=0.01 s0 first try")
    assert titles([RUN, renamed], 80)[:2] == ["name", "optimizer"]
    assert short_name(renamed, KEYS) == "first try"
    assert short_name(renamed, ["optimizer"]) == "lr=0.01 s0 first try"


def test_names_of_the_user_keep_numbers_that_happen_to_equal_a_setting() -> None:
    assert short_name(replace(RUN, name="run 0"), KEYS) == "run 0"


def test_a_setting_that_names_do_not_mention_is_a_column_beside_them() -> None:
    named = replace(RUN, name="baseline", config={**RUN.config, "seed": 3})
    assert titles([named], 50)[:3] == ["name", "last", "best"]
    assert {"optimizer", "lr", "seed"} < set(titles([named], 50))


def test_a_list_of_texts_in_a_name_is_one_word() -> None:
    run = replace(RUN, name='layers=["conv 8","relu"] s0', config={"layers": ["conv 8", "relu"], "seed": 0})
    assert short_name(run, ["layers", "seed"]) == ""
