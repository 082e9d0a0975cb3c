"""`[stop]` of a grid that starts scripts: labbench ends them by the values that they log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench.records import RunRecord
from labbench.store.reader import Reader

Labbench = Callable[..., Result]

SCRIPT = """
import sys, time
import labbench
n_steps = int(sys.argv[1])
with labbench.start() as run:
    for step in range(n_steps):
        run.log({"loss": max(1.0 - step / 10, 0.5)}, step)
        time.sleep(0.01)
"""
"""Script whose loss falls to 0.5 in five steps and then stays there."""

GRID = """
name = "g"
command = ["python", "train.py", "{steps}"]
[grid]
steps = [3, 100000]
"""


def run_grid(labbench: Labbench, folder: Path, stop: str) -> tuple[Result, dict[int, RunRecord]]:
    (folder / "train.py").write_text(SCRIPT)
    (folder / "grid.toml").write_text(GRID + stop)
    result = labbench("run", "grid.toml", "--workers", "2")
    with Reader(folder / "runs.db") as reader:
        return result, {run.config["steps"]: run for run in reader.runs()}


@pytest.mark.parametrize(
    ("rule", "reason", "fewest"), [("patience = 4", "early stop", 10), ("target = 0.7", "target reached", 4)]
)
def test_a_script_ends_by_its_rule_and_a_shorter_one_by_itself(
    labbench: Labbench, tmp_path: Path, rule: str, reason: str, fewest: int
) -> None:
    result, runs = run_grid(labbench, tmp_path, f'[stop]\nmetric = "loss"\n{rule}\n')
    assert result.exit_code == 0, result.stderr
    assert {steps: (run.status, run.reason) for steps, run in runs.items()} == {
        3: ("finished", "exit status 0"),
        100000: ("finished", reason),
    }
    assert fewest <= runs[100000].summary["loss"].n < 100000
    assert labbench("run", "grid.toml").stderr.startswith("g: nothing to do: 2 finished")


def test_a_metric_that_no_script_logs_is_noted(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('done')")
    (tmp_path / "grid.toml").write_text('command = ["python", "train.py"]\n[stop]\nmetric = "val/loss"\npatience = 4\n')
    result = labbench("run", "grid.toml", "--workers", "1")
    assert (result.exit_code, "no run has logged val/loss, the metric of [stop]" in result.stderr) == (0, True)


SECOND_ATTEMPT_SCRIPT = """
import os, sys, time
import labbench
if os.path.exists("failed"):
    time.sleep(1.0)
    values = [0.9 - step / 20 for step in range(12)]
else:
    values = [0.1, 1.0, 1.0]
with labbench.start() as run:
    for step, value in enumerate(values):
        run.log({"loss": value}, step)
        run.flush()
        time.sleep(0.1)
    if len(values) == 3:
        open("failed", "w").close()
        raise SystemExit(1)
"""


def test_values_of_an_attempt_that_the_next_one_replaces_do_not_stop_it(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SECOND_ATTEMPT_SCRIPT)
    stop = '[stop]\nmetric = "loss"\npatience = 4\n[resources]\nretries = 1\n'
    (tmp_path / "grid.toml").write_text('command = ["python", "train.py"]\n' + stop)
    result = labbench("run", "grid.toml", "--workers", "1")
    assert result.exit_code == 0, result.stderr
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
    assert (run.attempt, run.reason, run.summary["loss"].n) == (2, "exit status 0", 12)
