"""`method = "tpe"` of `[search]`: proposals of Optuna, and searches that continue with the same proposals."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
pytest.importorskip("torch")

from labbench.metrics import Goal
from labbench.runner.search.candidates import Candidate
from labbench.runner.search.tpe import Proposer, Trial

Labbench = Callable[..., Result]

RATES = [10**-exponent for exponent in range(8)]

GRID = """
name = "g"
task = "digits"
[params]
epochs = 9
hidden = [8]
train_size = 100
[grid]
optimizer = ["sgd", "adam"]
lr = [0.3, 0.1, 0.03, 0.01, 0.003, 0.001]
[search]
method = "tpe"
metric = "val/loss"
batch = 4
budget = 30
"""


def candidates() -> list[Candidate]:
    points = itertools.product(["sgd", "adam", "rmsprop"], RATES)
    return [Candidate(index, {"optimizer": name, "lr": lr}, ()) for index, (name, lr) in enumerate(points)]


def loss(candidate: Candidate) -> float:
    return abs(RATES.index(candidate.config["lr"]) - 5) + (candidate.config["optimizer"] != "adam")


@pytest.mark.parametrize("goal", ["min", "max"])
def test_proposals_approach_the_best_configurations_and_are_never_repeated(goal: Goal) -> None:
    sign = 1 if goal == "min" else -1
    trials: list[Trial] = []
    for batch in range(4):
        proposed = Proposer(candidates(), goal, 0, frozenset()).propose(trials, 5, batch)
        again = Proposer(candidates(), goal, 0, frozenset()).propose(trials, 5, batch)
        assert [candidate.index for candidate in proposed] == [candidate.index for candidate in again]
        trials += [Trial(candidate, sign * loss(candidate), 9, is_complete=True) for candidate in proposed]
    indices = [trial.candidate.index for trial in trials]
    assert len(set(indices)) == 20
    assert min(map(loss, candidates())) in [loss(trial.candidate) for trial in trials]
    first, last = (sum(loss(trial.candidate) for trial in trials[start : start + 5]) for start in (0, 10))
    assert last < first


def test_pruned_and_diverged_trials_are_told() -> None:
    first = candidates()[:3]
    trials = [Trial(first[0], 1.0, 9, True), Trial(first[1], 2.0, 3, False), Trial(first[2], float("nan"), 1, False)]
    proposed = Proposer(candidates(), "min", 0, frozenset()).propose(trials, 30, 1)
    assert len(proposed) == 21
    assert {candidate.index for candidate in proposed} == set(range(3, 24))


def reasons(db: str) -> dict[str, tuple[str, str]]:
    with closing(sqlite3.connect(db)) as connection:
        return {identity: row for identity, *row in connection.execute("SELECT identity, status, reason FROM runs")}


def test_an_interrupted_search_proposes_the_same_configurations(labbench: Labbench, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID)
    whole = labbench("--db", "whole.db", "run", grid, "--workers", "0")
    assert whole.exit_code == 0, whole.output
    assert "best configuration:" in whole.stderr
    grid.write_text(GRID + 'time_limit = "0.001s"\n')
    parts = [labbench("run", grid, "--workers", "0") for _ in range(6)]
    assert "before batch 2, rung 1 of 3" in "".join(part.stderr for part in parts)
    assert "the search has not ended" not in parts[-1].stderr
    assert reasons("runs.db") == reasons("whole.db")
    assert 4 < len(reasons("runs.db")) < 12


def test_settings_of_a_script_are_proposed_from_the_results_of_earlier_batches(
    labbench: Labbench, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(
        "import sys, labbench\nwith labbench.start() as run:\n    run.log({'loss': abs(float(sys.argv[1]) - 0.3)})\n"
    )
    (tmp_path / "grid.toml").write_text(
        'name = "g"\ncommand = ["python", "train.py", "{lr}"]\n[random]\nsamples = 40\nlr = { uniform = [0.0, 1.0] }\n'
        '[search]\nmethod = "tpe"\nmetric = "loss"\nbatch = 4\nbudget = 9\n'
    )
    result = labbench("run", "grid.toml", "--workers", "2")
    assert result.exit_code == 0, result.stderr
    assert "batch 3 of 3: 1 run to train" in result.stderr
    assert "g: 9 of the 40 runs of the full grid" in result.stderr
    with closing(sqlite3.connect("runs.db")) as connection:
        rates = [lr for (lr,) in connection.execute("SELECT json_extract(config, '$.lr') FROM runs ORDER BY id")]
    assert len(set(rates)) == 9
    assert abs(rates[-1] - 0.3) < max(abs(lr - 0.3) for lr in rates[:4])
    assert labbench("run", "grid.toml").stderr.count("9 of the 40 runs") == 1
