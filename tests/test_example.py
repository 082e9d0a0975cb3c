"""The example database: real runs, small, in one file, and opened without a trace."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench.store.reader import Reader
from labbench.store.writer import Writer

EXAMPLE = Path(__file__).parents[1] / "runs.db.example"
Labbench = Callable[..., Result]


def test_it_is_one_small_file_in_rollback_mode() -> None:
    assert EXAMPLE.stat().st_size < 4_000_000
    connection = sqlite3.connect(f"file:{EXAMPLE}?mode=ro&immutable=1", uri=True)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_it_holds_every_run_of_the_optimizers_grid_with_curves() -> None:
    with Reader(EXAMPLE) as reader:
        runs = reader.runs("experiment=optimizers")
        assert len(runs) == 189
        assert {run.status for run in runs} <= {"finished", "diverged"}
        assert {run.config["optimizer"] for run in runs} == {"sgd", "adam", "adamw", "rmsprop", "adagrad"}
        assert max(run.summary["test/accuracy"].last for run in runs if "test/accuracy" in run.summary) >= 0.96
        steps, values = reader.series(runs[0].key, "train/loss")
        assert len(steps) == len(values) == 400


def test_demo_shows_it_and_leaves_nothing_behind(labbench: Labbench, tmp_path: Path) -> None:
    before = EXAMPLE.read_bytes(), sorted(EXAMPLE.parent.iterdir())
    result = labbench("demo", "ls")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 191
    assert (EXAMPLE.read_bytes(), sorted(EXAMPLE.parent.iterdir())) == before
    assert list(tmp_path.iterdir()) == []


def test_it_opens_for_writing_in_this_version(tmp_path: Path) -> None:
    copy = tmp_path / "runs.db"
    shutil.copy(EXAMPLE, copy)
    with Writer(copy) as writer, Reader(copy) as reader:
        key = reader.runs()[0].key
        writer.tag([key], add=["seen"])
        assert [run.key for run in reader.runs("tag=seen")] == [key]


def test_its_grid_has_nothing_left_to_train(labbench: Labbench, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    shutil.copy(EXAMPLE, tmp_path / "runs.db")
    grid = EXAMPLE.parent / "experiments" / "optimizers.toml"
    result = labbench("run", grid, "--json")
    assert result.exit_code == 0, result.output
    assert "nothing to do: 189" in result.stderr
    assert len(json.loads(result.stdout)) == 189


def test_momentum_is_judged_under_sgd_which_alone_takes_two_of_it(labbench: Labbench, tmp_path: Path) -> None:
    """The grid is then a full factorial of optimizer and learning rate, and nothing of its variance stays `other`."""
    shutil.copy(EXAMPLE, tmp_path / "runs.db")
    result = labbench("why", "val/accuracy")
    assert result.exit_code == 0, result.output
    assert "of the variance: lr 62 %, optimizer 2 %, momentum 1 %, interactions 31 %, seeds 3 %" in result.stdout
    assert "averaged over the set-ups that vary it, by their optimizer" in result.stdout
