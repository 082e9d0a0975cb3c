"""experiments/results.py derives the results in experiments/README.md from a database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from click.testing import Result

from labbench.analysis import Observation
from labbench.grid import read_grid
from labbench.metrics import Goal, default_goal
from labbench.store.reader import Reader

FOLDER = Path(__file__).parents[2] / "experiments"
GRIDS = {path.stem: read_grid(path) for path in FOLDER.glob("*.toml")}
NAMES = {name for name, grid in GRIDS.items() if grid.task and grid.search is None}


def results(db: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(FOLDER / "results.py"), str(db), *options]
    return subprocess.run(words, capture_output=True, text=True, encoding="utf-8")


def test_the_results_are_deterministic_and_agree_with_the_runs(labbench: Callable[..., Result], tmp_path: Path) -> None:
    result = labbench("run", FOLDER / "quickstart.toml", "--set", "epochs=2", "--workers", "0")
    assert result.exit_code == 0, result.stderr
    first, second = (results(tmp_path / "runs.db") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    sections = {part.split("]")[0].strip(): part for part in first.stdout.split("### [")[1:]}
    assert sections.keys() == NAMES
    quickstart = sections.pop("quickstart")
    assert "Adam" in quickstart
    with Reader(tmp_path / "runs.db") as reader:
        runs = reader.runs()
    assert f"{len(runs)} runs" in quickstart
    reached: dict[tuple[str, float], list[float]] = {}
    for run in runs:
        best, _ = run.summary["val/accuracy"].best(default_goal("val/accuracy"))
        assert best is not None
        reached.setdefault((run.config["optimizer"], run.config["lr"]), []).append(best)
    for (optimizer, _), values in reached.items():
        row = next(line for line in quickstart.splitlines() if line.startswith(f"| {optimizer} |"))
        mean = sum(values) / len(values)
        assert any(abs(float(cell.split("±")[0]) - mean) < 0.05 for cell in row.split("|")[2:-1])
    assert all("0 of 0 runs in this database have ended: no answer yet." in part for part in sections.values())


def test_a_missing_database_is_an_error_without_traceback(tmp_path: Path) -> None:
    result = results(tmp_path / "nothing.db")
    assert result.returncode == 1
    assert "nothing.db" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_readme_has_an_answer_for_each_experiment() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    results_part = readme.partition("<!-- results: made by results.py -->")[2]
    assert {part.split("]")[0] for part in results_part.split("### [")[1:]} == NAMES
    assert "no answer yet" not in results_part


@pytest.mark.parametrize("goal", ["max", "min"])
def test_the_lead_of_the_best_learning_rate_is_adjusted_for_its_selection(
    goal: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the best of eight equal configurations with another equal one: the true difference is 0."""
    monkeypatch.syspath_prepend(FOLDER)
    from answers.study import Study

    draws = np.random.default_rng(0)
    adjusted = unadjusted = 0
    for _ in range(100):
        rows = [("adam", rate) for rate in range(8)] + [("sgd", 0)]
        observed = [
            Observation({"optimizer": name, "lr": rate}, seed, float(draws.normal()))
            for name, rate in rows
            for seed in range(3)
        ]
        study = Study(observed, "score", goal)
        adam, sgd = study.where(optimizer="adam"), study.where(optimizer="sgd")
        adjusted += not study.lead({"optimizer": "adam"}, {"optimizer": "sgd"}).excludes(0.0)
        unadjusted += not study.difference(adam[:1], sgd[:1]).excludes(0.0)
    assert unadjusted < 94 <= adjusted
