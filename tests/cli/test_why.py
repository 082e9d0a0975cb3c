"""`labbench why`: its sentences, tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import labbench
from helpers.tui_samples import grid_of_runs
from labbench.cli import main


@pytest.fixture
def database(tmp_path: Path) -> str:
    grid_of_runs(tmp_path / "runs.db")
    return str(tmp_path / "runs.db")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(words), env={"COLUMNS": "120"})  # whatever terminal the tests run in
    return result.exit_code, result.stdout, result.stderr


def test_the_answer_is_sentences_then_charts(database: str) -> None:
    status, text, _ = run("--db", database, "why", "val/loss")
    lines = text.splitlines()
    assert status == 0
    assert lines[0].startswith("best: adam, lr 0.01: val/loss 0.06 [")
    figures = lines[lines.index("where the variance comes from") :]
    assert any(line.split()[0] == "optimizer" and "42%" in line for line in figures)
    assert any(line.split()[:2] == ["★", "adam"] and "●" in line for line in figures)


def test_a_filter_limits_the_runs_that_are_compared(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss", "optimizer=sgd")
    assert text.startswith("best: lr 0.01")


def test_the_json_is_one_document(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/accuracy", "--json")
    answer = json.loads(text)
    assert answer["goal"] == "max"
    assert answer["best"]["config"]["lr"] == 0.01
    assert {parameter["name"] for parameter in answer["parameters"]} == {"optimizer", "lr"}


def test_an_unknown_metric_is_refused_with_the_closest_name(database: str) -> None:
    status, _, error = run("--db", database, "why", "val/los")
    assert status == 2
    assert "did you mean `val/loss`?" in error


def test_without_results_the_answer_is_that_there_are_none(database: str) -> None:
    status, text, _ = run("--db", database, "why", "val/loss", "status=queued")
    assert status == 0
    assert "no" in text.splitlines()[0]


def test_a_table_lists_the_configurations_with_their_seeds(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss", "lr<1")
    lines = text.splitlines()
    table = lines[lines.index("configurations by val/loss") + 1 :]
    assert table[0].split()[0] == "configuration"
    assert table[0].split()[-4:] == ["seeds", "time", "per", "run"]
    assert table[1].strip().startswith("adam, lr 0.01")


def test_the_two_way_table_marks_the_best_configuration(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss")
    lines = text.splitlines()
    at = lines.index("val/loss by optimizer and lr, mean over the rest (✗ diverged)")
    assert lines[at + 1].split() == ["optimizer", "\\", "lr", "0.001", "0.01", "1"]
    assert "★" in lines[at + 2]
    assert lines[at + 2].split() == ["adam", "0.074", "★", "0.062", "0.055", "✗1"]  # not the one that diverges


def test_costs_are_reported_for_the_given_target(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss", "--target", "1")
    assert "fastest to val/loss 1: " in text
    assert "cost of reaching val/loss 1, median over seeds" in text
    _, document, _ = run("--db", database, "why", "val/loss", "--target", "1", "--json")
    answer = json.loads(document)
    assert answer["efficiency"]["target"] == 1.0
    assert answer["efficiency"]["setups"][0]["steps"] > 0
    assert {"ranking", "heat_maps", "rate_ranges"} <= answer.keys()


@pytest.mark.parametrize("target", ["nan", "inf", "1e999"])
def test_a_target_that_no_run_can_reach_is_wrong_usage(database: str, target: str) -> None:
    status, text, error = run("--db", database, "why", "val/loss", "--target", target)
    assert (status, text) == (2, "")
    assert "--target" in error
    assert "finite" in error


def test_scripts_whose_last_value_is_nan_count_as_diverged(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    for lr in (0.1, 1.0):
        for seed in range(2):
            with labbench.start(config={"lr": lr, "seed": seed}, db=db, system_metrics=False) as script:
                for loss in (1.0, 0.5, float("nan")):
                    script.log({"loss": loss})
    status, text, _ = run("--db", str(db), "why", "loss")
    assert status == 0
    assert text.splitlines()[0] == "no run has a value of loss: 4 of 4 runs diverged"
