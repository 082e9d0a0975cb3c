"""Searches from the command line: real training, a real database, interruptions at every kind of moment."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from labbench.store.reader import Reader

pytest.importorskip("torch")

Labbench = Callable[..., Result]

GRID = """
name = "g"
task = "digits"
[params]
epochs = 9
hidden = [8]
dropout = 0.2
train_size = 200
schedule = "cosine"
[grid]
lr = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001]
[runtime]
precision = "float64"
[search]
method = "halving"
metric = "val/loss"
seeds = 2
"""

OWN_TASK = """
import os, signal
from pathlib import Path
import torch
from labbench import Data, Param
plan = Path(__file__).with_name("signals")
class Task:
    params = {"epochs": Param("int", 9)}
    def data(self, config):
        x = torch.randn(64, 4, dtype=torch.float64)
        return Data(train=(x, x[:, :1] * 2), val=(x, x[:, :1] * 2))
    def model(self, config):
        return torch.nn.Linear(4, 1)
    def loss(self, outputs, targets):
        return (outputs - targets).square().mean(1)
    def metrics(self, outputs, targets):
        number, name, *rest = (plan.read_text() if plan.exists() else "0 none").split()
        calls = os.environ["CALLS"] = str(int(os.environ.get("CALLS", 0)) + 1)
        if calls == number:
            plan.write_text(" ".join(rest or ["0", "none"]))
            os.kill(os.getpid(), getattr(signal, name))
        return {"error": (outputs - targets).abs().mean(1)}
"""
"""Task that sends its process the signals in the file `signals`, each after a number of calls in the process."""

OWN_GRID = """
name = "g"
task = "task.py:Task"
[params]
batch_size = 32
[grid]
lr = [0.3, 0.1, 0.03, 0.01, 0.003, 0.001]
[runtime]
precision = "float64"
engine = "loop"
[search]
method = "halving"
metric = "val/error"
goal = "min"
seeds = 1
"""


def points(db: Path | str) -> dict[tuple[str, str, int], float]:
    """Return every point by (identity of its run, metric, step), without times."""
    query = """SELECT identity, metrics.name, step, value FROM points
               JOIN runs ON runs.id = run_id JOIN metrics ON metrics.id = metric_id
               WHERE metrics.name NOT LIKE 'time/%'"""
    with closing(sqlite3.connect(db)) as connection:
        return {(identity, metric, step): value for identity, metric, step, value in connection.execute(query)}


def ends(db: Path | str) -> dict[str, tuple[str, str, int]]:
    """Return (status, reason, boundary) of every run by its identity."""
    query = "SELECT identity, status, reason, CASE WHEN status = 'pruned' THEN boundary END FROM runs"
    with closing(sqlite3.connect(db)) as connection:
        return {identity: row for identity, *row in connection.execute(query)}


def rows(db: str = "runs.db") -> list[tuple[Any, ...]]:
    query = "SELECT name, status, reason FROM runs ORDER BY id"
    with closing(sqlite3.connect(db)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


@pytest.fixture
def own_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLS", "0")
    (tmp_path / "task.py").write_text(OWN_TASK)
    path = tmp_path / "grid.toml"
    path.write_text(OWN_GRID)
    return path


def start_search(grid: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "labbench", "--db", "runs.db", "run", str(grid), "--workers", "0"]
    return subprocess.Popen(words, cwd=grid.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_halving_prunes_the_losers_and_judges_the_winner_on_new_seeds(labbench: Labbench, grid: Path) -> None:
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 0, result.output
    search_rows = rows()
    losers = [reason for _, status, reason in search_rows if status == "pruned"]
    assert sorted(losers) == [
        *(f"rung 1 of 3, {place} of 7" for place in ("3rd", "4th", "5th", "6th", "7th")),
        "rung 2 of 3, 2nd of 2",
    ]
    assert [status for _, status, _ in search_rows].count("finished") == 3
    winner = next(name for name, status, _ in search_rows if status == "finished")
    with Reader(Path("runs.db")) as reader:
        new = reader.runs("tag=new-seed")
    assert [run.name for run in new] == [f"{winner} s1", f"{winner} s2"]
    assert {run.config["seed"] for run in new} == {1, 2}
    mean = sum(run.summary["val/loss"].best("min")[0] or 0.0 for run in new) / 2
    assert f"best configuration: {winner}" in result.stderr
    printed = result.stderr.partition("): val/loss ")[2].split()[0]
    assert float(printed) == pytest.approx(mean, rel=1e-3)
    assert "35 of the 63 epochs of the full grid (56%)" in result.stderr
    again = labbench("run", grid, "--workers", "0")
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr
    assert f"best configuration: {winner}" in again.stderr


def test_a_search_followed_by_the_full_grid_equals_the_grid_alone(labbench: Labbench, grid: Path) -> None:
    text = grid.read_text().replace("seeds = 2\n", "")
    grid.write_text(text)
    assert labbench("run", grid, "--workers", "0").exit_code == 0
    assert any(status == "pruned" for _, status, _ in rows())
    assert labbench("run", grid, "--workers", "0", "--full").exit_code == 0
    assert {status for _, status, _ in rows()} == {"finished"}
    grid.write_text(text.partition("[search]")[0])
    assert labbench("--db", "alone.db", "run", grid, "--workers", "0").exit_code == 0
    searched, alone = points("runs.db"), points("alone.db")
    assert searched.keys() == alone.keys()
    assert all(abs(searched[key] - alone[key]) <= 1e-10 * max(1.0, abs(alone[key])) for key in alone)


def test_pruned_runs_without_checkpoints_train_from_the_start(labbench: Labbench, grid: Path) -> None:
    text = grid.read_text().replace("seeds = 2", 'keep_pruned = "none"')
    grid.write_text(text)
    result = labbench("run", grid, "--workers", "0")
    assert "checkpoint" not in result.stderr
    assert not list(grid.parent.glob("runs.db.files/*/snapshot-*"))
    assert labbench("run", grid, "--workers", "0").stderr.count("nothing to do") == 1
    assert labbench("run", grid, "--workers", "0", "--full").exit_code == 0
    assert {status for _, status, _ in rows()} == {"finished"}


def test_the_checkpoints_of_pruned_runs_can_be_deleted(labbench: Labbench, grid: Path) -> None:
    grid.write_text(grid.read_text().replace("seeds = 2\n", ""))
    assert "6 checkpoints of pruned runs" in labbench("run", grid, "--workers", "0").stderr
    assert "6 states" in labbench("vacuum", "--states").stdout
    assert not list(grid.parent.glob("runs.db.files/*/snapshot-*"))
    assert labbench("run", grid, "--workers", "0", "--full").exit_code == 0
    assert {status for _, status, _ in rows()} == {"finished"}


def test_a_retried_run_trains_to_its_end_and_is_not_pruned_again(labbench: Labbench, grid: Path) -> None:
    labbench("run", grid, "--workers", "0")
    loser = next(name for name, status, _ in rows() if status == "pruned")
    assert labbench("retry", loser).exit_code == 0
    before = len(rows())
    assert labbench("run", grid, "--workers", "0").exit_code == 0
    assert (loser, "finished", "all epochs") in rows()
    assert len(rows()) == before


def test_a_killed_search_continues_to_the_result_of_an_uninterrupted_one(
    labbench: Labbench, own_grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert labbench("--db", "whole.db", "run", own_grid, "--workers", "0").exit_code == 0
    (own_grid.parent / "signals").write_text("9 SIGKILL 31 SIGKILL")  # in the first rung, and in a later one
    monkeypatch.setenv("CALLS", "0")
    assert [start_search(own_grid).wait() for _ in range(2)] == [-signal.SIGKILL] * 2
    assert "running" in {status for _, status, _ in rows()}
    assert labbench("run", own_grid, "--workers", "0").exit_code == 0
    assert points("runs.db") == points("whole.db")
    assert ends("runs.db") == ends("whole.db")


def test_a_search_interrupted_by_ctrl_c_continues(
    labbench: Labbench, own_grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert labbench("--db", "whole.db", "run", own_grid, "--workers", "0").exit_code == 0
    monkeypatch.setenv("CALLS", "0")
    (own_grid.parent / "signals").write_text("25 SIGINT")
    assert labbench("run", own_grid, "--workers", "0").exit_code == 130
    assert labbench("run", own_grid, "--workers", "0").exit_code == 0
    assert points("runs.db") == points("whole.db")
    assert ends("runs.db") == ends("whole.db")


def test_two_drivers_of_one_search_have_the_result_of_one(labbench: Labbench, own_grid: Path) -> None:
    assert labbench("--db", "whole.db", "run", own_grid, "--workers", "0").exit_code == 0
    drivers = [start_search(own_grid), start_search(own_grid)]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert points("runs.db") == points("whole.db")
    assert ends("runs.db") == ends("whole.db")


def test_a_time_limit_ends_a_search_at_a_rung_and_says_so(labbench: Labbench, grid: Path) -> None:
    labbench("--db", "whole.db", "run", grid, "--workers", "0")
    grid.write_text(grid.read_text() + 'time_limit = "0.001s"\n')
    first = labbench("run", grid, "--workers", "0")
    assert first.exit_code == 0
    assert "the search has not ended: time_limit" in first.stderr
    assert "reached before rung 2 of 3; the same command continues it" in first.stderr
    assert {status for _, status, _ in rows()} == {"pruned", "queued"}
    for _ in range(3):
        labbench("run", grid, "--workers", "0")
    assert points("runs.db") == points("whole.db")
    assert ends("runs.db") == ends("whole.db")


def test_hyperband_draws_each_configuration_once(labbench: Labbench, grid: Path) -> None:
    grid.write_text(grid.read_text().replace('"halving"', '"hyperband"').replace("seeds = 2\n", ""))
    assert labbench("run", grid, "--workers", "0").exit_code == 0
    outcomes = rows()
    assert len(outcomes) == 7
    assert {status for _, status, _ in outcomes} == {"pruned", "finished"}
    reasons = {reason for _, status, reason in outcomes if status == "pruned"}
    assert reasons == {*(f"bracket 1, rung 1 of 3, {place} of 4" for place in ("2nd", "3rd", "4th")),
                       "bracket 2, rung 1 of 2, 2nd of 2"}  # fmt: skip


def test_a_random_search_trains_what_the_budget_allows(labbench: Labbench, grid: Path) -> None:
    text = grid.read_text().replace('"halving"', '"random"').replace("seeds = 2", "budget = 30")
    grid.write_text(text)
    assert labbench("run", grid, "--workers", "0").exit_code == 0
    assert [status for _, status, _ in rows()] == ["finished"] * 3
    first = {name for name, _, _ in rows()}
    grid.write_text(text.replace("budget = 30", "budget = 40"))
    assert labbench("run", grid, "--workers", "0").exit_code == 0
    assert first < {name for name, _, _ in rows()}
    assert len(rows()) == 4


def test_seeds_of_one_configuration_stay_together(labbench: Labbench, grid: Path) -> None:
    text = grid.read_text().replace("seeds = 2\n", "").replace("lr = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001]",
                                                               "lr = [0.1, 0.01, 0.001]")  # fmt: skip
    grid.write_text(text + "[repeat]\nseeds = 2\n")
    assert labbench("run", grid, "--workers", "0").exit_code == 0
    reasons = [(name.rpartition(" ")[0], reason) for name, _, reason in rows()]
    assert len(set(reasons)) == 3
    assert len(reasons) == 6


@pytest.mark.parametrize(
    ("old", "new", "position", "message"),
    [
        ("seeds = 2", "min_epochs = 10", (17, 14), "min_epochs = 10 is more than the 9 epochs of a run"),
        ("seeds = 2", "budget = 5", (17, 10), "budget = 5 is too small: a search over 2 configurations takes 10"),
        ("seeds = 2", "seeds = [5, 0]", (17, 13), "the grid has runs with seed 0"),
        ('"val/loss"', '"train/loss"', (16, 10), "`train/loss` is not measured at the end of an epoch"),
        ('"val/loss"', '"val/lss"', (16, 10), "`val/lss` is not measured at the end of an epoch"),
        ("[grid]", "[grid]\nepochs = [9, 18]", (11, 14), "runs of 9 and of 18 epochs"),
    ],
)
def test_a_search_that_does_not_fit_its_grid_changes_nothing(
    labbench: Labbench, grid: Path, old: str, new: str, position: tuple[int, int], message: str
) -> None:
    goal = "" if "loss" not in new and "lss" not in new else '\ngoal = "min"'
    grid.write_text(grid.read_text().replace(old, new + goal if goal else new))
    for options in ([], ["--dry-run"]):
        result = labbench("run", grid, "--workers", "0", *options)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"{grid}:{position[0]}:{position[1]}: ")
        assert message in result.stderr
    assert not Path("runs.db").exists()


def test_tpe_without_optuna_says_how_to_install_it(
    labbench: Labbench, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labbench.runner.search.plan.is_installed", lambda: False)
    grid.write_text(grid.read_text().replace('"halving"', '"tpe"'))
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{grid}:15:10: ")
    assert '"tpe" needs Optuna, which is not installed: pip install' in result.stderr


def test_a_first_rung_in_which_all_runs_diverge_ends_the_search(labbench: Labbench, grid: Path) -> None:
    diverging = grid.read_text().replace("lr = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001]", "lr = [1e200, 1e250]")
    grid.write_text(diverging.replace("hidden = [8]", 'hidden = [8]\noptimizer = "sgd"'))
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 2
    assert "all 2 runs diverged or failed before rung 1 of 3 (epoch 1)" in result.stderr
    assert "[search]" in result.stderr


def test_a_metric_that_a_task_does_not_measure_ends_the_search(labbench: Labbench, own_grid: Path) -> None:
    own_grid.write_text(OWN_GRID.replace("val/error", "val/auc"))
    result = labbench("run", own_grid, "--workers", "0")
    assert result.exit_code == 2
    assert "`val/auc` is not measured at the end of an epoch" in result.stderr
    assert "val/error" in result.stderr


def test_a_dry_run_prints_the_rungs_and_their_cost(labbench: Labbench, grid: Path) -> None:
    result = labbench("run", grid, "--workers", "0", "--dry-run")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [
        ["rung", "runs", "epoch", "run-epochs", "of", "full", "grid"],
        ["1", "of", "3", "7", "1", "7", "11.1%"],
        ["2", "of", "3", "2", "3", "4", "6.3%"],
        ["3", "of", "3", "1", "9", "6", "9.5%"],
        ["2", "new", "seeds", "of", "1", "finalist", "2", "9", "18", "28.6%"],
        ["total", "35", "55.6%"],
    ]
    assert not Path("runs.db").exists()
    documents = json.loads(labbench("run", grid, "--dry-run", "--json").stdout)
    assert len(documents) == 7
