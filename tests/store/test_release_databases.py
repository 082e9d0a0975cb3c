"""A database of the release 0.1 (tests/databases/releases), which its own code wrote, in today's commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

pytest.importorskip("torch")

from helpers.store_samples import files_beside
from labbench.store.maintenance.health import diagnose

DATABASES = Path(__file__).parents[1] / "databases"
Labbench = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Copy the database, and the grids that filled it: a task of labbench, and a script."""
    for name in ("digits.toml", "script.toml", "train.py"):
        shutil.copyfile(DATABASES / "grids" / name, tmp_path / name)
    return Path(shutil.copyfile(DATABASES / "releases" / "0.1.db", tmp_path / "runs.db"))


def run_documents(labbench: Labbench) -> list[dict[str, object]]:
    documents: list[dict[str, object]] = json.loads(labbench("ls", "archived=true,false", "--json").stdout)
    return documents


def test_a_database_of_release_0_1_is_shown_unchanged(labbench: Labbench, db: Path) -> None:
    before = db.read_bytes()
    assert [(run["name"], run["status"], run["archived"]) for run in run_documents(labbench)] == [
        ("lr=0.1", "finished", False), ("lr=1e+30", "diverged", False),
        ("lr=0.5", "finished", False), ("lr=0.25", "finished", True),
    ]  # fmt: skip
    shown = labbench("show", "lr=0.1").stdout
    assert "the one to compare with" in shown
    assert "best" in shown
    for words in (["why", "val/accuracy"], ["plot", "loss"], ["experiments"], ["export", "--summary"], ["doctor"]):
        result = labbench(*words)
        assert result.exit_code == 0, (words, result.stderr)
        assert result.stdout
    assert db.read_bytes() == before
    assert files_beside(db) == ["runs.db"]


def test_a_database_of_release_0_1_is_upgraded_by_the_first_edit(labbench: Labbench, db: Path) -> None:
    before = run_documents(labbench)
    assert diagnose(db).is_older
    assert labbench("tag", "lr=0.5", "--add", "new").exit_code == 0
    assert diagnose(db).is_sound
    assert not diagnose(db).is_older
    after = run_documents(labbench)
    assert [run["tags"] for run in after] == [["best"], [], ["new"], []]
    without_tags = [[{**run, "tags": []} for run in runs] for runs in (before, after)]
    assert without_tags[0] == without_tags[1]


@pytest.mark.parametrize("grid", ["digits", "script"])
def test_a_grid_trained_by_release_0_1_has_nothing_to_do(labbench: Labbench, db: Path, grid: str) -> None:
    result = labbench("run", f"{grid}.toml", "--workers", "0")
    assert result.exit_code == 0
    assert f"{grid}: nothing to do" in result.stderr
