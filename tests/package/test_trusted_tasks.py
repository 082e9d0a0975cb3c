"""Trusted task files: a model is loaded only with a file that this user has trained with or names."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from click.testing import Result

import labbench as labbench_package
from labbench.errors import InputError
from labbench.store.reader import Reader
from labbench.system.user_folders import state_path
from labbench.trusted_tasks import MOST_VERSIONS, is_trusted, trust_task

Labbench = Callable[..., Result]

TASK = """
import torch
from torch import nn
from labbench.train.data import Data

class Task:
    params = {}

    def data(self, config):
        split = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
        return Data(split, split)

    def model(self, config):
        return nn.Linear(2, 2)
"""
EVIL = "open('owned', 'w').close()\n" + TASK


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of trusted tasks of a user who has not trained anything."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return state_path("tasks.json")


@pytest.fixture
def key(labbench: Labbench, tmp_path: Path) -> str:
    """Return the key of a run in runs.db that trained the user's task and kept its model."""
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "grid.toml").write_text('task = "my_task.py:Task"\n[params]\nepochs = 1\n[runtime]\nkeep = "last"\n')
    trained = labbench("run", "grid.toml", "--workers", "0")
    assert trained.exit_code == 0, trained.stderr
    with Reader("runs.db") as reader:
        [key] = reader.keys()
    return key


def change(path: str, statement: str, *values: object) -> None:
    """Execute a statement that labbench itself would not."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def refused(key: str) -> str:
    """Return the error message of `load_model` on a run, whose task file must not be run."""
    with pytest.raises(InputError) as error:
        labbench_package.load_model(key)
    assert not Path("owned").exists()
    return str(error.value)


def test_a_file_that_this_user_has_trained_with_is_trusted(key: str, state: Path) -> None:
    assert isinstance(labbench_package.load_model(key), torch.nn.Linear)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


def test_a_changed_file_is_run_only_if_the_user_names_it(key: str) -> None:
    Path("my_task.py").write_text(TASK + "# another\n")
    assert 'task="my.py:Task"' in refused(key)
    assert isinstance(labbench_package.load_model(key, task="my_task.py:Task"), torch.nn.Linear)
    refused(key)  # naming a file once does not make it trusted


def test_a_run_of_an_earlier_release_needs_the_name_of_the_file(key: str, state: Path) -> None:
    state.unlink()
    assert f'load_model("{key}", task="my.py:Task")' in refused(key)
    assert isinstance(labbench_package.load_model(key, task="my_task.py:Task"), torch.nn.Linear)


def test_a_dry_run_does_not_make_a_file_trusted(labbench: Labbench, key: str, state: Path) -> None:
    state.unlink()
    assert labbench("run", "grid.toml", "--dry-run").exit_code == 0
    refused(key)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "null", "\xff", '{"a": 1}', "[" * 100_000, json.dumps({"x": [1, None, {}]})]
)
def test_a_damaged_list_trusts_nothing_and_is_rewritten(
    labbench: Labbench, key: str, state: Path, content: str
) -> None:
    state.write_bytes(content.encode("latin-1"))
    refused(key)
    assert labbench("run", "grid.toml", "--rerun", "--workers", "0").exit_code == 0
    assert isinstance(labbench_package.load_model(key), torch.nn.Linear)


def test_a_grid_trains_even_if_the_state_folder_cannot_be_written(labbench: Labbench, tmp_path: Path, key: str) -> None:
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("a file")
    assert labbench("run", "grid.toml", "--rerun", "--workers", "0").exit_code == 0
    refused(key)


def test_a_task_that_does_not_fit_the_model_is_refused(key: str, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(TASK.replace("nn.Linear(2, 2)", "nn.Linear(3, 2)"))
    with pytest.raises(InputError, match="does not fit the model of"):
        labbench_package.load_model(key, task="other.py:Task")
    [model] = tmp_path.glob("runs.db.files/*/model.safetensors")
    model.write_bytes(b"torn")
    with pytest.raises(InputError, match="does not fit the model of"):
        labbench_package.load_model(key)


@pytest.mark.parametrize("place", ["brought", "link", "elsewhere", "missing", "folder", "pipe", "zero byte"])
def test_a_file_that_is_named_only_by_a_database_is_not_run(
    labbench: Labbench, key: str, tmp_path: Path, place: str
) -> None:
    evil = tmp_path / "evil"
    brought = evil / "other.db.files" / key / "task.py"
    shutil.copytree("runs.db.files", evil / "other.db.files")
    shutil.copy("runs.db", evil / "other.db")
    brought.write_text(EVIL)
    ours = tmp_path / "ours.db.files" / key / "task.py"
    tasks = {
        "brought": "ours.db.files/" + key + "/task.py",
        "link": str(tmp_path / "link.py"),
        "elsewhere": str(brought),
        "missing": str(tmp_path / "missing.py"),
        "folder": str(tmp_path / "folder.py"),
        "pipe": str(tmp_path / "pipe.py"),
        "zero byte": "a\0b.py",
    }
    (tmp_path / "link.py").symlink_to(ours)
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    change(str(evil / "other.db"), "UPDATE runs SET task = ?", tasks[place] + ":Task")
    assert labbench("import", "labbench", evil / "other.db", "--db", "ours.db").exit_code == 0
    assert ours.is_file()
    with pytest.raises(InputError, match="task="):
        labbench_package.load_model(key, db="ours.db")
    assert not Path("owned").exists()
    assert isinstance(labbench_package.load_model(key, db="ours.db", task="my_task.py:Task"), torch.nn.Linear)


def test_the_number_of_trusted_versions_of_a_file_is_limited(tmp_path: Path, state: Path) -> None:
    file = tmp_path / "my_task.py"
    for version in range(MOST_VERSIONS + 1):
        file.write_text(f"# {version}\n")
        trust_task(f"{file}:Task")
    assert is_trusted(f"{file}:Task")
    file.write_text("# 0\n")
    assert not is_trusted(f"{file}:Task")
    assert len(json.loads(state.read_text())[str(file)]) == MOST_VERSIONS
