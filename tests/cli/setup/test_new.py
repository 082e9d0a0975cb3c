"""`labbench new`: the files that it writes train as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench.cli.setup import new
from labbench.params.builtin import BUILTIN
from labbench.runner.expanded_grid import load_grid
from labbench.store.reader import Reader

Labbench = Callable[..., Result]


@pytest.mark.parametrize("task", [*BUILTIN])
def test_the_grid_of_every_built_in_task_is_valid_also_with_its_suggestions(
    task: str, labbench: Labbench, tmp_path: Path
) -> None:
    assert labbench("new", "--task", task).stdout == "written: grid.toml\n"
    grid = tmp_path / "grid.toml"
    (tmp_path / "data.csv").write_text("a,b\n1,2\n3,4\n")
    assert len(load_grid(grid).runs) == 12
    text, _, more = grid.read_text().partition("# More tables")
    lines = [line.removeprefix("# ") for line in text.splitlines() if not line.startswith("# Trains")]
    tables = more.replace("\n# ", "\n").partition("[stop]")
    grid.write_text("\n".join([*lines, "[stop]", tables[2]]).replace("\n#\n", "\n"))
    assert len(load_grid(grid).runs) == 12


@pytest.mark.parametrize("words", [("--task", "my_task.py:Moons"), ("--script", "train.py")])
def test_skeletons_train_in_their_grid(words: tuple[str, str], labbench: Labbench, tmp_path: Path) -> None:
    result = labbench("new", *words, "sub.toml")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / words[1].partition(":")[0]).is_file()
    assert "to train them: labbench run sub.toml" in result.stderr
    trained = labbench("run", "sub.toml", "--limit", "1", "--set", "epochs=1", "--workers", "1")
    assert trained.exit_code == 0, trained.stderr
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
        assert run.status == "finished"
        assert "train/loss" in run.summary


def test_a_script_is_read_into_a_grid_that_runs(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text(
        "import argparse, labbench\np = argparse.ArgumentParser()\n"
        "p.add_argument('--lr', type=float, default=0.1)\np.add_argument('--amp', action='store_true')\n"
        "options = p.parse_args()\n"
        "with labbench.start(config=options) as run:\n    run.log({'loss': options.lr})\n"
    )
    result = labbench("new", "--from", "src/train.py")
    assert result.exit_code == 0, result.stderr
    assert "note" not in result.stderr
    assert labbench("run", "grid.toml", "--workers", "1").exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        assert sorted((run.config["lr"], run.config["amp"], run.summary["loss"].last) for run in reader.runs()) == [
            (0.01, False, 0.01),
            (0.1, False, 0.1),
        ]


def test_two_questions_are_asked_in_a_terminal(
    labbench: Labbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "is_terminal", lambda: True)
    (tmp_path / "fit.py").write_text("import argparse\nargparse.ArgumentParser().add_argument('--lr', default=1.0)\n")
    for answers, grid in (("1\n\n", "a.toml"), ("2\n\n", "b.toml"), ("3\n\n", "c.toml"), ("4\nnew.py\n", "d.toml")):
        result = labbench("new", grid, input=answers)
        assert result.exit_code == 0, result.stderr
        assert load_grid(tmp_path / grid).runs
    assert {path.name for path in tmp_path.glob("*.py")} == {"fit.py", "my_task.py", "new.py"}
    assert labbench("new", "e.toml", input="").exit_code == 1
    assert not (tmp_path / "e.toml").exists()


def test_a_task_in_place_of_a_script_is_answered_with_the_option_for_it(labbench: Labbench) -> None:
    assert labbench("new", "--task", "my_task.py:Moons").exit_code == 0
    result = labbench("new", "a.toml", "--from", "my_task.py")
    assert (result.exit_code, "--task my_task.py:Moons writes a grid of it" in result.stderr) == (2, True)
    assert labbench("new", "a.toml", "--task", "my_task.py:Moons").exit_code == 0


def test_nothing_is_overwritten_and_a_missing_answer_is_named(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text("mine")
    (tmp_path / "train.py").write_text("mine")
    for words in (
        ("new", "--task", "digits"), ("new", "a.toml"), ("new", "a.toml", "--script", "train.py"),
        ("new", "a.toml", "--task", "digit"), ("new", "a.toml", "--task", "digits", "--from", "train.py"),
        ("new", "a.toml", "--from", "nowhere.py"), ("new", "a.toml", "--from", "grid.toml"),
    ):  # fmt: skip
        assert labbench(*words).exit_code == 2, words
    assert "--from train.py" in labbench("new", "a.toml").stderr
    assert "did you mean `digits`?" in labbench("new", "a.toml", "--task", "digit").stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"grid.toml": "mine", "train.py": "mine"}
