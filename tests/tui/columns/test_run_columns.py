"""Columns of the runs table, their cells and their layout."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from helpers.store_samples import new_run, start
from labbench.metrics import metric_rank
from labbench.records import MetricSummary, RunRecord
from labbench.sharing.union import copy_union
from labbench.store.writer import Writer
from labbench.text import format_delta
from labbench.tui.columns.run_column import ColumnLayout
from labbench.tui.columns.run_columns import ColumnContext, RunColumn, run_columns
from labbench.tui.queries import Query, read_snapshot

RUN = RunRecord(
    id=1,
    key="k3f9a2b1",
    name="adam lr=0.01",
    experiment="e",
    status="finished",
    config={"lr": 0.01, "batchnorm": True, "optimizer": "adam", "hidden": [128, 64]},
    summary={"val/loss": MetricSummary(20, 0, None, 0.0812, 200, 0.0791, 170, 2.3, 10)},
)


CONTEXT = ColumnContext(["lr", "batchnorm", "optimizer", "momentum"], ["epochs"], "val/loss", {"val/loss": "min"})


def shown_columns(contents: ColumnContext, layout: ColumnLayout | None = None) -> list[RunColumn]:
    layout = layout or ColumnLayout()
    return [column for column in layout.arrange(run_columns(contents)) if layout.is_shown(column)]


def with_rate(lr: str) -> RunRecord:
    return replace(RUN, config={"lr": lr})


def cells(run: RunRecord) -> dict[str, str]:
    columns = shown_columns(CONTEXT)
    for column in columns:
        column.widen_for([run])
    return {column.full_title: column.cell(run) for column in columns}


def test_a_row_has_the_chart_metric_and_the_settings_that_differ() -> None:
    started = time.time() - 7300
    assert cells(replace(RUN, started=started, finished=started + 125)) == {
        "name": "adam lr=0.01",
        "last val/loss": "0.0812",
        "best val/loss": "0.0791",
        "best step val/loss": "170",
        "curve val/loss": "",
        "lr": "0.01",
        "batchnorm": "true",
        "optimizer": "adam",
        "momentum": "",
        "took": "2m05s",
        "age": "2h",
    }


def test_missing_values_are_blank() -> None:
    bare = cells(RunRecord(2, "b", "b", "e", "queued", {}))
    assert {title for title, cell in bare.items() if cell} == {"name"}


def test_a_metric_without_finite_values_is_nan_and_has_no_best() -> None:
    summary = {"val/loss": MetricSummary(2, 2, 0, float("nan"), 1, None, None, None, None)}
    row = cells(replace(RUN, summary=summary))
    assert [row[f"{title} val/loss"] for title in ("last", "best", "best step")] == ["nan", "", ""]


def test_other_metrics_have_best_columns_and_axes_have_none() -> None:
    metrics = {"epoch": "max", "train/loss": "min", "val/accuracy": "max", "val/loss": "min", "time/compute_s": "max"}
    columns = shown_columns(ColumnContext(metric="val/loss", metrics=metrics))
    assert [column.full_title for column in columns] == [
        "name",
        *("last val/loss", "best val/loss", "best step val/loss", "curve val/loss"),
        *("best val/accuracy", "best train/loss"),
        *("took", "age"),
    ]


def test_metrics_are_ranked_by_what_they_say_of_a_run() -> None:
    metrics = ["extra", "train/loss", "val/accuracy", "test/accuracy", "val/loss"]
    assert sorted(metrics, key=metric_rank) == ["val/loss", "val/accuracy", "test/accuracy", "train/loss", "extra"]


def test_a_column_grows_to_fit_its_cells_and_never_shrinks() -> None:
    column = RunColumn("lr", "lr", "lr", lambda run: str(run.config["lr"]))
    column.widen_for([with_rate("0.1"), with_rate("10")])
    assert [column.fit_cell(cell) for cell in ("0.1", "10")] == [" 0.1", "10  "]
    column.widen_for([with_rate("0.001")])
    assert column.width == 6
    column.widen_for([with_rate("1")])
    assert column.width == 6
    assert column.fit_title() == "    lr"
    column.fixed_width = 3
    assert (column.fit_cell("0.001"), column.fit_title()) == ("  …", " lr")


def test_measured_values_of_a_column_share_a_format() -> None:
    summary = RUN.summary["val/loss"]
    runs = [replace(RUN, summary={"val/loss": replace(summary, last=last)}) for last in (0.5, 0.000461, 0.0)]
    [column] = [column for column in shown_columns(CONTEXT) if column.id == "metric:last"]
    column.widen_for(runs)
    assert [column.cell(run) for run in runs] == ["0.500000", "0.000461", "0"]


def test_a_column_of_text_is_left_aligned() -> None:
    column = RunColumn("optimizer", "optimizer", "optimizer", lambda run: run.config["optimizer"], words=True)
    column.widen_for([RUN])
    assert column.fit_cell("adam") == "adam     "
    assert column.fit_title() == "optimizer"


def test_columns_keep_the_chosen_order_and_new_ones_follow_their_neighbours() -> None:
    context = ColumnContext(["lr", "seed"], [], "val/loss", {"val/loss": "min"})
    layout = ColumnLayout(
        order=("age", "config:lr", "name", "metric:best", "config:seed", "metric:last", "took"),
        hidden=frozenset({"metric:step", "metric:spark"}),
        shown=frozenset({"key"}),
        widths={"age": 9},
    )
    columns = shown_columns(context, layout)
    assert [column.title for column in columns] == ["name", "age", "key", "lr", "best", "seed", "last", "took"]
    assert columns[1].width == 9
    more = [column.id for column in shown_columns(replace(context, differing=["lr", "dropout", "seed"]), layout)]
    assert more[more.index("config:lr") + 1] == "config:dropout"


def test_with_a_baseline_every_run_shows_its_difference() -> None:
    columns = shown_columns(replace(CONTEXT, baseline=RUN))
    [column] = [column for column in columns if column.id == "metric:delta"]
    worse = MetricSummary(20, 0, None, 0.0812, 200, 0.1002, 170, 2.3, 10)
    assert column.cell(RUN) == "base"
    assert column.cell(replace(RUN, key="other", summary={"val/loss": worse})) == "▼ +0.02110"
    assert column.cell(replace(RUN, key="other", summary={})) == ""
    assert [format_delta(1.0, 2.0, "min"), format_delta(1.0, 2.0, "max"), format_delta(2.0, 2.0, "max")] == [
        "▲ −1",
        "▼ −1",
        "= 0",
    ]


def test_runs_of_several_databases_can_be_sorted_by_their_source(tmp_path: Path) -> None:
    paths = [tmp_path / "b.db", tmp_path / "a.db"]
    for path in paths:
        with Writer(path) as writer:
            start(writer, [new_run(0)])
    columns = {column.id: column for column in run_columns(ColumnContext(has_sources=True))}
    with copy_union(paths) as union:
        snapshot = read_snapshot(union, Query(sort=columns["source"].sort), record_keys=[], rows=2)
    assert [run.source for run in snapshot.records] == sorted(map(str, paths))
    for context in (ColumnContext(), ColumnContext(["source"], has_sources=True)):  # none, or a config key's
        assert [column.sort for column in run_columns(context) if column.id == "source"] == [None]


def test_a_number_that_does_not_fit_is_replaced_and_not_cut() -> None:
    column = RunColumn("best:loss", "best", None, fixed_width=6)
    assert column.fit_cell("1.584e-2") == "     …"
    assert column.fit_cell("0.1234") == "0.1234"
    words = RunColumn("optimizer", "optimizer", None, numeric=False, fixed_width=6)
    assert words.fit_cell("momentum") == "momen…"
