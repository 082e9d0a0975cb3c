"""What the table says of a run, and which columns it has."""

from __future__ import annotations

import time
from dataclasses import replace

from labbench.records import MetricSummary, RunRecord
from labbench.tui.columns import Column, metric_rank, run_columns
from labbench.tui.overlay import Overlay

RUN = RunRecord(
    id=1,
    key="k3f9a2b1",
    name="adam lr=0.01",
    experiment="e",
    status="finished",
    config={"lr": 0.01, "batchnorm": True, "optimizer": "adam", "hidden": [128, 64]},
    summary={"val/loss": MetricSummary(20, 0, None, 0.0812, 200, 0.0791, 170, 2.3, 10)},
)


def cells(run: RunRecord) -> dict[str, str]:
    columns = run_columns(["lr", "batchnorm", "optimizer", "momentum"], "val/loss", {"val/loss": "min"})
    return {column.title: column.cell(run) for column in columns}


def test_a_row_has_the_settings_that_differ_and_the_metric_in_question() -> None:
    began = time.time() - 7300
    assert cells(replace(RUN, started=began, finished=began + 125)) == {
        "name": "adam lr=0.01",
        "val/loss": "0.0812",
        "best": "0.0791",
        "@": "170",
        "lr": "0.01",
        "batchnorm": "✓",
        "optimizer": "adam",
        "momentum": "",
        "took": "2m05s",
        "age": "2h",
    }


def test_what_is_not_known_is_blank() -> None:
    bare = cells(RunRecord(2, "b", "b", "e", "queued", {}))
    assert {title for title, cell in bare.items() if cell} == {"name"}


def test_a_metric_without_finite_values_is_nan_and_has_no_best() -> None:
    summary = {"val/loss": MetricSummary(2, 2, 0, float("nan"), 1, None, None, None, None)}
    row = cells(replace(RUN, summary=summary))
    assert (row["val/loss"], row["best"], row["@"]) == ("nan", "", "")


def test_other_metrics_follow_with_their_best_and_axes_are_left_out() -> None:
    metrics = {"epoch": "max", "train/loss": "min", "val/accuracy": "max", "val/loss": "min", "time/compute_s": "max"}
    titles = [column.title for column in run_columns([], "val/loss", metrics)]
    assert titles == ["name", "val/loss", "best", "@", "val/accuracy", "train/loss", "took", "age"]


def test_metrics_are_ranked_by_what_they_say_of_a_run() -> None:
    metrics = ["extra", "train/loss", "val/accuracy", "test/accuracy", "val/loss"]
    assert sorted(metrics, key=metric_rank) == ["val/loss", "val/accuracy", "test/accuracy", "train/loss", "extra"]


def test_a_column_grows_to_what_it_shows_and_never_shrinks() -> None:
    column = Column("lr", "lr", lambda run: str(run.config["lr"]))
    column.learn([replace(RUN, config={"lr": 0.1}), replace(RUN, config={"lr": 10})])
    assert [column.fitted(replace(RUN, config={"lr": value})) for value in (0.1, 10)] == [" 0.1", "10  "]
    column.learn([replace(RUN, config={"lr": 0.001})])
    assert column.width == 6
    column.learn([replace(RUN, config={"lr": 1})])
    assert column.width == 6
    assert column.heading() == "    lr"


def test_a_column_of_words_is_flush_left() -> None:
    column = Column("optimizer", "optimizer", lambda run: run.config["optimizer"], words=True)
    column.learn([RUN])
    assert column.fitted(RUN) == "adam     "
    assert column.heading() == "optimizer"


def test_marked_runs_get_the_first_free_slot() -> None:
    overlay = Overlay()
    for key in "abc":
        overlay.toggle(key)
    assert overlay.marks == {"a": 1, "b": 2, "c": 3}
    overlay.toggle("a")
    overlay.toggle("d")
    assert overlay.marks == {"b": 2, "c": 3, "d": 1}
    for number in range(20):
        overlay.toggle(f"more {number}")
    assert set(overlay.marks.values()) == set(range(1, 9))
    assert overlay.shown("c") == list(overlay.marks)
    assert overlay.shown("new") == [*overlay.marks, "new"]
