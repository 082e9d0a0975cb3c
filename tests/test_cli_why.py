"""`labbench why`: the answer in words, figures and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from labbench.cli import main
from tui_samples import grid_of_runs


@pytest.fixture
def database(tmp_path: Path) -> str:
    grid_of_runs(tmp_path / "runs.db")
    return str(tmp_path / "runs.db")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(words), env={"COLUMNS": "120"})  # not what the tests happen to run in
    return result.exit_code, result.stdout, result.stderr


def test_the_answer_is_sentences_and_then_figures(database: str) -> None:
    status, said, _ = run("--db", database, "why", "val/loss")
    lines = said.splitlines()
    assert status == 0
    assert lines[0].startswith("best: adam, lr 0.01: val/loss 0.062")
    figures = lines[lines.index("where the variance comes from") :]
    assert any(line.split()[0] == "optimizer" and "42%" in line for line in figures)
    assert any(line.split()[:2] == ["★", "adam"] and "●" in line for line in figures)


def test_a_filter_narrows_what_is_asked_about(database: str) -> None:
    _, said, _ = run("--db", database, "why", "val/loss", "optimizer=sgd")
    assert said.startswith("best: lr 0.01")


def test_the_json_is_one_document(database: str) -> None:
    _, said, _ = run("--db", database, "why", "val/accuracy", "--json")
    answer = json.loads(said)
    assert answer["goal"] == "max"
    assert answer["best"]["config"]["lr"] == 0.01
    assert {one["name"] for one in answer["parameters"]} == {"optimizer", "lr"}


def test_a_metric_that_there_is_not_is_answered_with_the_nearest(database: str) -> None:
    status, _, said = run("--db", database, "why", "val/los")
    assert status == 2
    assert "did you mean `val/loss`?" in said


def test_without_results_it_says_so(database: str) -> None:
    status, said, _ = run("--db", database, "why", "val/loss", "status=queued")
    assert status == 0
    assert "no" in said.splitlines()[0]
