"""Changed code: the runs that train again, those that stay valid, and the marks of older code."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

pytest.importorskip("torch")

from labbench.grid import identity, read_grid
from labbench.grid.identity import former_task_identity
from labbench.runner.expanded_grid import task_params
from labbench.store.reader import Reader
from labbench.tui.queries import Query, read_snapshot

GRIDS = Path(__file__).parents[1] / "databases" / "grids"

Train = Callable[..., Result]


@pytest.fixture
def train(labbench: Callable[..., Result], tmp_path: Path) -> Train:
    """Function that trains a small grid, whose task imports `layers.py`, in an empty folder."""
    shutil.copytree(GRIDS, tmp_path, dirs_exist_ok=True)

    def train(*words: str) -> Result:
        result = labbench("run", "blobs.toml", "--workers", "0", "--set", "width=4", *words)
        assert result.exit_code == 0, result.stderr
        return result

    return train


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def older_code_flags(folder: Path) -> list[bool]:
    """Return `older_code` of each run, in the order of queueing."""
    with Reader(folder / "runs.db") as reader:
        return [run.older_code for run in reader.runs()]


def test_a_changed_comment_trains_nothing_again(train: Train, tmp_path: Path) -> None:
    train("--limit", "2")
    edit(tmp_path / "task.py", "class Blobs:", "# Blobs.\nclass Blobs:\n    '''Three of them.'''\n")
    edit(tmp_path / "layers.py", "# two inputs, three classes", "# 2 to 3")
    assert "2 runs to train, 2 done before" in train().stderr
    assert "nothing to do: 4 finished" in train().stderr
    assert older_code_flags(tmp_path) == [False] * 4


def test_a_changed_module_trains_the_grid_again_beside_the_old_runs(train: Train, tmp_path: Path) -> None:
    train()
    edit(tmp_path / "layers.py", "nn.ReLU", "nn.Tanh")
    dry = train("--dry-run").stderr
    result = train()
    for text in (dry, result.stderr):
        assert "blobs: layers.py has changed: 4 runs train again (about " in text
        assert "count as older code; --keep-code takes them as they are" in text
    assert older_code_flags(tmp_path) == [True] * 4 + [False] * 4
    assert "nothing to do: 4 finished" in train().stderr

    edit(tmp_path / "layers.py", "nn.Tanh", "nn.ReLU")  # the original code again
    assert "nothing to do: 4 finished" in train().stderr
    assert older_code_flags(tmp_path) == [False] * 4 + [True] * 4


def test_keep_code_keeps_runs_of_older_code(train: Train, tmp_path: Path) -> None:
    train()
    edit(tmp_path / "layers.py", "nn.ReLU()", "nn.ReLU(inplace=False)")
    assert "to train: no runs (of 4 in the grid)" in train("--keep-code", "--dry-run").stderr
    assert "nothing to do: 4 finished" in train("--keep-code").stderr
    assert "nothing to do: 4 finished" in train().stderr  # the decision is recorded
    assert older_code_flags(tmp_path) == [False] * 4
    with Reader(tmp_path / "runs.db") as reader:
        [recorded] = {reader.sources(run.key)["code"] for run in reader.runs()}
        assert json.loads(recorded).keys() == {"task.py", "layers.py"}  # the code that computed them


def test_training_a_part_of_a_grid_marks_all_runs_of_older_code(train: Train, tmp_path: Path) -> None:
    train()
    edit(tmp_path / "task.py", "2.0 *", "3.0 *")
    assert "task.py has changed: 1 run trains again" in train("--limit", "1").stderr
    assert older_code_flags(tmp_path) == [True] * 4 + [False]


def test_runs_that_never_began_are_trained_with_the_present_code(train: Train, tmp_path: Path) -> None:
    train()
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        connection.execute("UPDATE runs SET status = 'queued', heartbeat = NULL, started = NULL WHERE id > 2")
        connection.commit()
    edit(tmp_path / "layers.py", "nn.ReLU", "nn.Tanh")
    assert "2 runs train again" in train().stderr
    assert older_code_flags(tmp_path) == [True, True, False, False, False, False]


def test_averages_exclude_runs_of_older_code_by_default(
    train: Train, labbench: Callable[..., Result], tmp_path: Path
) -> None:
    train()
    edit(tmp_path / "layers.py", "nn.ReLU", "nn.Tanh")
    train()

    def mean(*words: str) -> float:
        [lr] = json.loads(labbench("why", "val/loss", "--json", *words).stdout)["parameters"]
        return float(lr["effects"][0]["mean"])

    assert mean() == mean("older_code=false") != mean("older_code=true")
    assert mean("--all-code") == mean("older_code=true,false")
    assert mean("--all-code") == pytest.approx((mean("older_code=false") + mean("older_code=true")) / 2)
    assert "runs of older code left out: 4 (--all-code includes" in labbench("why", "val/accuracy").stderr
    plots = [labbench("plot", "val/loss", "--group", "lr", *words).stdout for words in ((), ("--all-code",))]
    assert ["n=2" in plot for plot in plots] == [True, False]
    assert ["n=4" in plot for plot in plots] == [False, True]
    header, _, *rows = labbench("ls").stdout.splitlines()
    assert header.split()[3] == "code"
    assert ["older" in row for row in rows] == [True] * 4 + [False] * 4
    assert [run["older_code"] for run in json.loads(labbench("ls", "--json").stdout)] == [True] * 4 + [False] * 4
    assert len(labbench("ls", "older_code=true").stdout.splitlines()) == 6


def test_a_changed_script_of_a_command_is_named(
    labbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.sh").write_text("true\n")
    (tmp_path / "grid.toml").write_text('command = ["sh", "train.sh", "{x}"]\n[grid]\nx = [1, 2]\n')
    assert labbench("run", "grid.toml", "--workers", "0").exit_code == 0
    (tmp_path / "train.sh").write_text("true # a comment\n")
    result = labbench("run", "grid.toml", "--workers", "0", "--keep-code")
    assert "nothing to do: 2 finished" in result.stderr
    (tmp_path / "train.sh").write_text("echo {x}\n".replace("{x}", "$1"))
    result = labbench("run", "grid.toml", "--workers", "0")
    assert "train.sh has changed: 2 runs train again" in result.stderr
    assert older_code_flags(tmp_path) == [True, True, False, False]


def test_two_tasks_with_the_same_name_in_two_folders_are_not_older_code_of_each_other(
    train: Train, labbench: Callable[..., Result], tmp_path: Path
) -> None:
    train("--limit", "1")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "blobs.toml", tmp_path / "other")
    shutil.copy(tmp_path / "layers.py", tmp_path / "other")
    (tmp_path / "other" / "task.py").write_text((tmp_path / "task.py").read_text().replace("2.0 *", "3.0 *"))
    assert labbench("run", "other/blobs.toml", "--workers", "0", "--limit", "1").exit_code == 0
    assert older_code_flags(tmp_path) == [False, False]


def test_first_release_runs_of_a_task_with_a_key_of_the_loop_are_older_code(train: Train, tmp_path: Path) -> None:
    """The first release used a task's `eps` for the optimizer, too."""
    edit(tmp_path / "task.py", "params = {", 'params = {"eps": Param("float", 0.5), ')
    grid = read_grid(tmp_path / "blobs.toml", overrides=["width=4"])
    train("--limit", "1")
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
    first = identity(former_task_identity(grid), run.config, task_params(grid), grid.stop)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        connection.execute("UPDATE runs SET identity = ?, code_version = NULL", (first,))
        connection.execute("DELETE FROM run_sources WHERE kind = 'code'")
        connection.commit()
    assert "its code has changed: 1 run trains again" in train("--limit", "1").stderr
    assert older_code_flags(tmp_path) == [True, False]


def test_groups_in_the_tui_exclude_runs_of_older_code(train: Train, tmp_path: Path) -> None:
    train()
    edit(tmp_path / "layers.py", "nn.ReLU", "nn.Tanh")
    train()
    path, query = tmp_path / "runs.db", Query(group=("lr",))

    def sizes(query: Query) -> list[int]:
        return [len(group.keys) for group in read_snapshot(path, query, record_keys=(), rows=9).groups.values()]

    assert sizes(query) == [2, 2]
    assert sizes(replace(query, expression="older_code=true,false")) == [4, 4]
    assert len(read_snapshot(path, Query(), record_keys=(), rows=9).keys) == 8
