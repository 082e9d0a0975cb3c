"""Example database: small, current, with pictures, and never changed by opening it."""

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
from labbench.runner.expanded_grid import load_grid
from labbench.store.reader import Reader
from labbench.store.writer import Writer

EXAMPLE = Path(__file__).parents[2] / "runs.db.example"
PORTRAITS = [*files_folder(EXAMPLE).glob(f"*/{PORTRAIT}")]
Labbench = Callable[..., Result]


def test_the_example_is_small_and_in_rollback_mode() -> None:
    assert sum(file.stat().st_size for file in (EXAMPLE, *PORTRAITS)) < 4_000_000
    connection = sqlite3.connect(f"file:{EXAMPLE}?mode=ro&immutable=1", uri=True)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_the_example_holds_every_run_of_the_optimizers_grid_with_curves() -> None:
    with Reader(EXAMPLE) as reader:
        runs = reader.runs("experiment=optimizers")
        assert len(runs) == 189
        assert {run.status for run in runs} <= {"finished", "diverged"}
        assert {run.config["optimizer"] for run in runs} == {"sgd", "adam", "adamw", "rmsprop", "adagrad"}
        assert max(run.summary["test/accuracy"].last for run in runs if "test/accuracy" in run.summary) >= 0.96
        steps, values = reader.series(runs[0].key, "train/loss")
        assert len(steps) == len(values) >= 100


def test_every_run_of_the_example_is_in_its_present_grid_file(labbench: Labbench) -> None:
    pytest.importorskip("torch")
    with Reader(EXAMPLE) as reader:
        experiments = reader.experiments()
        assert len(experiments) >= 6
        for name in experiments:
            expanded = load_grid(EXAMPLE.parent / "experiments" / f"{name}.toml")
            assert reader.identities(name) <= {run.identity for run in expanded.runs}
        statuses = {run.status for run in reader.runs()}
    assert statuses == {"finished", "diverged"}


def test_the_pictures_belong_to_the_runs_and_are_of_every_kind() -> None:
    with Reader(EXAMPLE) as reader:
        keys = {run.key for run in reader.runs()}
    assert {path.parent.name for path in PORTRAITS} <= keys
    portraits = [portrait for path in PORTRAITS if (portrait := read_portrait(path)) is not None]
    assert any(portrait.plane is not None for portrait in portraits)  # the decision boundary of a 2-D task
    assert any(portrait.mistakes is not None and portrait.weights is not None for portrait in portraits)
    assert all(portrait.confusion is not None and portrait.histograms for portrait in portraits)


def test_the_first_run_of_the_demo_has_pictures(labbench: Labbench) -> None:
    first = labbench("--db", EXAMPLE, "ls", "experiment=optimizers", "--sort", "val/loss", "--limit", "1", "--json")
    text = labbench("--db", EXAMPLE, "show", json.loads(first.stdout)[0]["key"]).stdout
    assert "confusion matrix" in text
    assert "first-layer weights" in text


def test_demo_suggests_no_change_of_the_example(labbench: Labbench) -> None:
    assert "define" not in labbench("demo", "ls").stderr


def test_demo_changes_no_file(labbench: Labbench, tmp_path: Path) -> None:
    before = EXAMPLE.read_bytes(), sorted(EXAMPLE.parent.iterdir())
    result = labbench("demo", "ls")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 191
    assert "perceptron" in result.stderr  # another experiment of the example
    assert f"labbench --db {EXAMPLE} ls experiment=NAME" in result.stderr
    assert (EXAMPLE.read_bytes(), sorted(EXAMPLE.parent.iterdir())) == before
    assert list(tmp_path.iterdir()) == []


def test_this_version_opens_the_example_for_writing(tmp_path: Path) -> None:
    copy = tmp_path / "runs.db"
    shutil.copy(EXAMPLE, copy)
    with Writer(copy) as writer, Reader(copy) as reader:
        key = reader.runs()[0].key
        writer.tag([key], add=["seen"])
        assert [run.key for run in reader.runs("tag=seen")] == [key]


def test_the_grid_of_the_example_has_nothing_left_to_train(labbench: Labbench, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    shutil.copy(EXAMPLE, tmp_path / "runs.db")
    grid = EXAMPLE.parent / "experiments" / "optimizers.toml"
    result = labbench("run", grid, "--json")
    assert result.exit_code == 0, result.output
    assert "nothing to do: 189" in result.stderr
    assert len(json.loads(result.stdout)) == 189


def test_why_averages_momentum_over_the_optimizers_that_vary_it(labbench: Labbench, tmp_path: Path) -> None:
    """Only sgd has two values of momentum; the rest is a full factorial, so that no variance is left unexplained."""
    shutil.copy(EXAMPLE, tmp_path / "runs.db")
    result = labbench("why", "val/accuracy", "experiment=optimizers")
    assert result.exit_code == 0, result.output
    match = re.search(
        r"come from: lr (\d+) %, .*interactions\) \d+ %, luck \(seeds\) \d+ %$", result.stdout, re.MULTILINE
    )
    assert match is not None, result.stdout
    assert 50 < int(match[1]) < 75
    assert "averaged over the configurations that vary it (depends on optimizer)" in result.stdout
