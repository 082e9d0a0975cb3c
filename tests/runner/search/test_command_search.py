"""Searches over the options of a script, which runs to its end in every run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

Labbench = Callable[..., Result]

SCRIPT = """
import argparse
import labbench
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
with labbench.start(config=options) as run:
    run.log({"loss": 2.0 + options.lr})
    run.log({"loss": abs(options.lr - 0.3) + options.seed / 1000})
"""

GRID = """
name = "g"
command = ["python", "train.py", "--lr", "{lr}", "--seed", "{seed}"]
[random]
samples = 6
lr = { loguniform = [0.01, 1.0] }
[repeat]
seeds = 1
[search]
method = "random"
metric = "loss"
budget = 5
seeds = 1
finalists = 2
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def read_runs() -> list[tuple[float, int, str]]:
    """Return learning rate, seed and status of all runs."""
    query = "SELECT json_extract(config, '$.lr'), json_extract(config, '$.seed'), status FROM runs ORDER BY id"
    with closing(sqlite3.connect("runs.db")) as connection:
        return connection.execute(query).fetchall()


def test_a_random_search_runs_what_the_budget_allows_and_judges_the_best_on_new_seeds(
    labbench: Labbench, grid: Path
) -> None:
    preview = labbench("run", grid, "--dry-run")
    assert [" ".join(line.split()) for line in preview.stdout.splitlines()] == [
        "stage runs of full grid",
        "search 3 50.0%",
        "1 new seed of 2 finalists 2 33.3%",
        "total 5 83.3%",
    ]
    assert "to train: 5 runs (of 6 in the grid)" in preview.stderr
    result = labbench("run", grid, "--workers", "2")
    assert result.exit_code == 0, result.stderr
    runs = read_runs()
    drawn = sorted((lr for lr, seed, _ in runs if seed == 0), key=lambda lr: abs(lr - 0.3))
    assert len(drawn) == 3
    assert {lr for lr, seed, _ in runs if seed == 1} == set(drawn[:2])
    assert [status for _, _, status in runs] == ["finished"] * 5
    value = f"loss {abs(drawn[0] - 0.3) + 0.001:.4f}"
    best = next(line for line in result.stderr.splitlines() if line.startswith("g: best configuration: "))
    assert f": lr={drawn[0]:g} (" in best
    assert best.endswith(f"): {value} (mean of 1 new seed, best of 2 finalists)")
    assert "g: 5 of the 6 runs of the full grid (83%), all seeds included" in result.stderr
    again = labbench("run", grid)
    assert (again.exit_code, read_runs()) == (0, runs)


def test_a_search_that_was_limited_continues_and_full_runs_the_rest(labbench: Labbench, grid: Path) -> None:
    grid.write_text(GRID.replace("budget = 5", "budget = 4"))
    assert labbench("run", grid, "--workers", "2").exit_code == 0
    few = read_runs()
    grid.write_text(GRID)
    assert labbench("run", grid, "--workers", "2").exit_code == 0
    assert len(read_runs()) == len(few) + 1
    assert labbench("run", grid, "--full", "--workers", "2").exit_code == 0
    assert len([seed for _, seed, _ in read_runs() if seed == 0]) == 6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (', "--seed", "{seed}"]', "]\n", "the runs of this command have no seed"),
        ('metric = "loss"', 'metric = "los"\ngoal = "min"', "`los` is not logged; use one of loss"),
        ("budget = 5", "budget = 3", "a search over 2 configurations takes 4 runs"),
        ('"--lr"', '"--rate"', "all 3 runs diverged or failed: none can be compared"),
    ],
)
def test_a_search_that_cannot_compare_says_why(
    labbench: Labbench, grid: Path, old: str, new: str, message: str
) -> None:
    text = GRID.replace(old, new)
    grid.write_text(text.replace("[repeat]\nseeds = 1\n", "") if "no seed" in message else text)
    result = labbench("run", grid, "--workers", "2")
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
