"""Files are written only under names that fit their content, and bare names in filters say what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.tui_samples import grid_of_runs
from labbench.cli import main


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    grid_of_runs(tmp_path / "runs.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs.db"


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("words", "file", "hint"),
    [
        (["export", "-o"], "runs.xlsx", "spreadsheet programs open .csv"),
        (["export", "--summary", "-o"], "runs.csv.gz", ".csv, .txt, .jsonl"),
        (["why", "val/loss", "--html"], "answer.pdf", ".html"),
        (["pack", "lr=0.1", "-o"], "runs.zip", ".labbench"),
        (["plot", "val/loss", "-o"], "curves.xlsx", ".svg, .pdf, .png"),
    ],
)
def test_a_name_whose_ending_does_not_fit_is_refused(words: list[str], file: str, hint: str) -> None:
    result = run(*words, file)
    assert result.exit_code == 2
    assert file in result.stderr
    assert hint in result.stderr
    assert not Path(file).exists()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("words", [["-o", "runs"], ["-o", "runs.CSV"], ["--format", "csv", "-o", "runs.dat"]])
def test_no_ending_capitals_and_a_named_format_are_taken(words: list[str]) -> None:
    result = run("export", *words)
    assert result.exit_code == 0, result.stderr
    assert Path(words[-1]).read_text().startswith("run,name,experiment,metric,step,time,value\n")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["why", "val/loss", "lr", "optimizer"], "compares every configuration key that varies: leave out `lr`, `opti"),
        (["plot", "val/loss", "lr"], "--group KEY: leave out `lr`"),
        (["why", "val/loss", "val/accuracy"], "leave out `val/accuracy`"),
        (["why", "val/loss", "lrr"], "an operator is missing"),
    ],
)
def test_a_bare_name_in_a_filter_is_answered_by_what_the_command_does(words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.usefixtures("database")
def test_a_metric_without_its_split_is_first_taken_for_that_of_validation() -> None:
    assert "did you mean `val/loss`?" in run("why", "loss").stderr


@pytest.mark.usefixtures("database")
def test_by_is_another_name_of_group() -> None:
    assert run("plot", "val/loss", "--by", "optimizer").stdout == run("plot", "val/loss", "--group", "optimizer").stdout
