"""The example database: real runs of several experiments, small, with pictures, and opened without a trace."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench.files import PORTRAIT, files_folder
from labbench.portraits.file import read_portrait
from labbench.runner.run_grid import load_grid
from labbench.store.reader import Reader
from labbench.store.writer import Writer

EXAMPLE = Path(__file__).parents[2] / "runs.db.example"
PORTRAITS = [*files_folder(EXAMPLE).glob(f"*/{PORTRAIT}")]
Labbench = Callable[..., Result]


def test_it_is_one_small_file_in_rollback_mode() -> None:
    assert sum(file.stat().st_size for file in (EXAMPLE, *PORTRAITS)) < 4_000_000
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
        assert len(steps) == len(values) >= 100


def test_its_runs_are_those_of_the_experiments(labbench: Labbench) -> None:
    """An experiment that has changed since is not shown as it was."""
    pytest.importorskip("torch")
    with Reader(EXAMPLE) as reader:
        experiments = reader.experiments()
        assert len(experiments) >= 6
        for name in experiments:
            asked = load_grid(EXAMPLE.parent / "experiments" / f"{name}.toml")
            assert reader.identities(name) <= {run.identity for run in asked.runs}
        statuses = {run.status for run in reader.runs()}
    assert statuses == {"finished", "diverged"}


def test_its_pictures_belong_to_its_runs_and_are_of_every_kind() -> None:
    with Reader(EXAMPLE) as reader:
        keys = {run.key for run in reader.runs()}
    assert {path.parent.name for path in PORTRAITS} <= keys
    found = [portrait for path in PORTRAITS if (portrait := read_portrait(path)) is not None]
    assert any(one.plane is not None for one in found)  # the decision boundary of a 2-D task
    assert any(one.mistakes is not None and one.weights is not None for one in found)
    assert all(one.confusion is not None and one.histograms for one in found)


def test_what_a_newcomer_opens_first_has_pictures(labbench: Labbench) -> None:
    first = labbench("--db", EXAMPLE, "ls", "experiment=optimizers", "--sort", "val/loss", "--limit", "1", "--json")
    shown = labbench("--db", EXAMPLE, "show", json.loads(first.stdout)[0]["key"]).stdout
    assert "confusion matrix" in shown
    assert "first-layer weights" in shown


def test_demo_shows_it_and_leaves_nothing_behind(labbench: Labbench, tmp_path: Path) -> None:
    before = EXAMPLE.read_bytes(), sorted(EXAMPLE.parent.iterdir())
    result = labbench("demo", "ls")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 191
    assert "perceptron" in result.stderr  # an experiment that is there too
    assert f"labbench --db {EXAMPLE} ls experiment=NAME" in result.stderr
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
    result = labbench("why", "val/accuracy", "experiment=optimizers")
    assert result.exit_code == 0, result.output
    found = re.search(r"of the variance: lr (\d+) %, .*interactions \d+ %, seeds \d+ %$", result.stdout, re.MULTILINE)
    assert found is not None, result.stdout
    assert 50 < int(found[1]) < 75
    assert "averaged over the set-ups that vary it, by their optimizer" in result.stdout
