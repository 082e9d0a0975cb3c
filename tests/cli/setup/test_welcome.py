"""`labbench` in a folder without a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.event_files import write_event_file
from labbench.cli import tui
from labbench.cli.setup import new
from labbench.store.reader import Reader
from labbench.store.writer import Writer

Labbench = Callable[..., Result]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Write runs of two programs, files that are no runs, and a database of another program."""
    write_event_file(tmp_path / "runs" / "a", [("loss", 0, 0.5)])
    (tmp_path / "lightning_logs" / "version_0").mkdir(parents=True)
    (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").write_text("epoch,step,loss\n0,5,1.0\n")
    for folder in (".hidden", "venv", "data"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ("metrics.csv" if folder != "data" else "table.csv")).write_text("step,loss\n0,1.0\n")
    (tmp_path / "notes.db").write_text("no database")
    return tmp_path


@pytest.fixture
def in_terminal(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let questions be asked, and return the databases that the terminal interface would open."""
    opened: list[Path] = []
    monkeypatch.setattr(new, "is_terminal", lambda: True)
    monkeypatch.setattr(tui.tui, "callback", lambda db, **_: opened.append(db))
    return opened


def test_without_a_terminal_the_commands_are_named(labbench: Labbench, logs: Path) -> None:
    Writer(logs / "other.db").close()
    result = labbench()
    assert (result.exit_code, result.stdout) == (2, "")
    commands = [line.split("  ")[1] for line in result.stderr.splitlines()[1:]]
    assert commands == [
        "labbench --db other.db", "labbench import auto lightning_logs runs", "labbench demo", "labbench new",
        "labbench tui",
    ]  # fmt: skip
    assert not (logs / "runs.db").exists()
    for command in commands[:3]:
        words = command.split()[1:]
        assert labbench(*words).exit_code == 0, words


def test_in_an_empty_folder_the_demo_comes_first(labbench: Labbench, in_terminal: list[Path]) -> None:
    result = labbench(input="1\n")
    assert result.exit_code == 0, result.stderr
    assert "1  look at an example" in result.stderr
    assert "perceptron" in result.stderr or "sgd" in result.stdout  # the table: the output of a test is no terminal


def test_the_runs_found_are_imported_and_opened(labbench: Labbench, logs: Path, in_terminal: list[Path]) -> None:
    result = labbench(input="1\n")
    assert result.exit_code == 0, result.stderr
    with Reader(logs / "runs.db") as reader:
        assert sorted(run.name for run in reader.runs()) == ["a", "version_0"]
    assert [path.name for path in in_terminal] == ["runs.db"]


def test_a_first_grid_is_written(labbench: Labbench, tmp_path: Path, in_terminal: list[Path]) -> None:
    result = labbench(input="2\n1\ndigits\n")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "grid.toml").is_file()


def test_an_answer_that_is_no_number_is_asked_again(labbench: Labbench, in_terminal: list[Path]) -> None:
    result = labbench(input="demo\n9\n3\n")
    assert result.exit_code == 0, result.stderr
    assert len(in_terminal) == 1


def test_a_grid_is_trained_and_another_one_is_written_beside_it(
    labbench: Labbench, tmp_path: Path, in_terminal: list[Path]
) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]")
    assert labbench(input="2\n1\n\n").exit_code == 0
    assert labbench(input="3\n1\ntoy\n").exit_code == 0
    assert (tmp_path / "grid-2.toml").read_text().startswith("# Trains the task toy")
    (tmp_path / "grid-2.toml").unlink()
    (tmp_path / "grid.toml").write_text('command = ["true"]')
    result = labbench(input="1\n")
    assert "1  train the runs of grid.toml" in result.stderr
    assert (result.exit_code, "grid: 1 finished" in result.stderr) == (0, True), result.stderr
