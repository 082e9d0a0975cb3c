"""The table at the end of `labbench run`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import new_run, points, queue, start
from labbench.cli.run_preview import MAX_NAMES, print_names
from labbench.cli.run_report import print_outcome, print_report
from labbench.records import Failed, Finished
from labbench.runner.expanded_grid import load_grid
from labbench.runner.run_grid import Outcome
from labbench.store.writer import Writer


def test_a_preview_on_a_terminal_prints_the_first_names_and_the_number_of_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_names([f"run{number}" for number in range(300)], MAX_NAMES)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"run{number}" for number in range(MAX_NAMES)]
    assert printed.err == "... and 280 more runs (in a pipe or with --json: all)\n"
    print_names(["run0"], MAX_NAMES)
    assert capsys.readouterr().err == ""


def test_the_best_runs_are_ranked_by_a_metric_of_their_own(
    tiny_grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "runs.db"
    with Writer(db) as writer:
        [other] = start(writer, [new_run(1, name="other")], experiment="others")
        [mine, archived] = queue(writer, [new_run(2, name="mine"), new_run(3, name="archived")])
        writer.claim([mine.key, archived.key])
        writer.write([points(other, "val/loss", [0.1]), points(mine, "reward", [5.0], attempt=1)])
        writer.write([points(archived, "reward", [6.0], attempt=1)])
        writer.archive([archived.key])
    outcome = Outcome([mine, archived], 1, {"finished": 1}, (), False, 1.0)
    print_report(load_grid(tiny_grid), outcome, db, with_table=True)
    table = capsys.readouterr().out
    assert "mine" in table
    assert "reward" in table
    assert "other" not in table
    assert "archived" not in table


def test_the_suggested_command_quotes_the_name_of_the_metric_for_the_shell(
    tiny_grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "runs.db"
    metric = "loss; rm -r ~ \x1b]0;owned\x07"
    with Writer(db) as writer:
        [run] = start(writer, [new_run(1)])
        writer.define_metric(metric, "min")
        writer.write([points(run, metric, [5.0])])
    print_report(load_grid(tiny_grid), Outcome([run], 1, {"finished": 1}, (), False, 1.0), db, with_table=True)
    hint = capsys.readouterr().err
    assert "plot 'loss; rm -r ~ ␛]0;owned␇' --group KEY" in hint


def test_diverged_runs_are_followed_by_the_command_that_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome([], 3, {"finished": 2, "diverged": 1}, (), False, 1.0)
    print_outcome("high rates", outcome, "labbench")
    assert """labbench ls 'experiment="high rates" status=diverged'""" in capsys.readouterr().err
    print_outcome("tiny", Outcome([], 3, {"finished": 3}, (), False, 1.0), "labbench")
    assert "diverged" not in capsys.readouterr().err


SCRIPT = """
import sys
import labbench

with labbench.start(system_metrics=False) as run:
    for step, loss in enumerate((1.0, 0.1, float(sys.argv[1]))):
        run.log({"val/loss": loss}, step=step)
"""


def test_scripts_that_end_with_nan_are_reported_as_diverged(tmp_path: Path, labbench: Callable[..., Result]) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    command = json.dumps([sys.executable, "train.py", "{loss}"])
    (tmp_path / "scripts.toml").write_text(f"command = {command}\n[grid]\nloss = ['nan', '0.5']\n")
    result = labbench("run", "scripts.toml", "--workers", "1")
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert any(line.startswith("2/2 runs") and "1 diverged" in line for line in lines), result.stderr
    [summary] = [line for line in lines if line.startswith("scripts: ") and " in " in line]
    assert {*summary.removeprefix("scripts: ").partition(" in ")[0].split(", ")} == {"1 diverged", "1 finished"}
    assert "to list the diverged runs: labbench ls 'experiment=scripts status=diverged'" in lines
    listed = json.loads(labbench("ls", "status=diverged", "--json").stdout)
    assert [run["config"] for run in listed] == [{"loss": "nan"}]


TASK = """
import torch
from torch import nn
from labbench import Data


class BrokenValidation:
    params = {}

    def data(self, config):
        inputs, targets = torch.randn(8, 2), torch.arange(8) % 2
        return Data(train=(inputs, targets), val=(inputs * float("nan"), targets))

    def model(self, config):
        return nn.Linear(2, 2)
"""


def test_runs_whose_validation_loss_ends_with_nan_are_reported_as_diverged(
    tmp_path: Path, labbench: Callable[..., Result]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "broken.toml").write_text(
        "task = 'task.py:BrokenValidation'\n[params]\nepochs = 1\n[grid]\nlr = [0.1, 0.2]\n"
    )
    result = labbench("run", "broken.toml", "--workers", "0", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "broken: 2 diverged in " in result.stderr
    assert labbench("ls", "status=diverged", "--format", "csv").stdout.count("diverged") == 2


def queued_words(labbench: Callable[..., Result], *words: str | Path) -> str:
    """Train, and return the command that deletes the queued runs of earlier versions of the grid, or ""."""
    result = labbench("run", *words, "--workers", "0", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    line = next((line for line in result.stderr.splitlines() if "not in this grid file" in line), "")
    return line.partition(": labbench ")[2]


def test_runs_that_an_earlier_version_of_the_grid_left_in_the_queue_are_named(
    tiny_grid: Path, tmp_path: Path, labbench: Callable[..., Result]
) -> None:
    pytest.importorskip("torch")
    former, name = load_grid(tiny_grid, overrides=["epochs=3"]), load_grid(tiny_grid).grid.name
    with Writer(tmp_path / "runs.db") as writer:
        queue(writer, former.runs, experiment=name)  # as Ctrl-C leaves them
    assert queued_words(labbench, tiny_grid, "--limit", "1") == ""  # the rest of the grid is not known to be gone
    command = queued_words(labbench, tiny_grid)
    assert command == f"rm --filter 'experiment={name} status=queued'"
    assert labbench(*shlex.split(command), "--yes").stdout == f"deleted {len(former.runs)} runs\n"
    assert queued_words(labbench, tiny_grid) == ""


def test_the_table_has_the_settings_that_the_grid_varies_and_says_what_it_leaves_out(
    tmp_path: Path, labbench: Callable[..., Result]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "g.toml").write_text(
        "task = 'digits'\n[params]\nepochs = 1\nhidden = [4]\n[grid]\noptimizer = ['sgd', 'adam']\n"
        "lr = [0.001, 0.1]\n[repeat]\nseeds = 2\n"
    )
    result = labbench("run", "g.toml", "--workers", "0", "--device", "cpu")
    heading, _, *rows = result.stdout.splitlines()
    assert heading.split()[-3:] == ["optimizer", "lr", "seed"]
    assert len(rows) == 5
    assert "the best 5 of 8 runs by val/loss; all: labbench ls experiment=g" in result.stderr


def test_the_hint_at_failed_runs_names_one(tiny_grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "runs.db"
    with Writer(db) as writer:
        [run] = start(writer, [new_run(1)])
        writer.write([Failed(run.key, 1, "user", "KeyError: 'x'")])
    print_report(load_grid(tiny_grid), Outcome([run], 1, {"failed": 1}, (), False), db, with_table=False)
    assert f"to see why a run failed: labbench --db {db} show {run.key}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("losses", "is_untrained"),
    [
        ([2.3] + [50.0] * 20, True),
        ([2.3] + [50.0] * 19 + [2.2], False),
        ([0.0] + [1.0, 0.0] * 10, False),  # a batch of one sample, which cannot become better
        ([2.3, 4.0], False),  # too few to say
    ],
)
def test_runs_whose_training_loss_never_became_lower_are_named(
    tiny_grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], losses: list[float], is_untrained: bool
) -> None:
    db = tmp_path / "runs.db"
    with Writer(db) as writer:
        bad, good = start(writer, [new_run(1, name="lr=1e6"), new_run(2, name="lr=0.1")])
        writer.write([points(bad, "train/loss", losses), points(good, "train/loss", [2.3] + [0.5] * 20)])
        writer.write([Finished(run.key, 1, "finished", "all epochs") for run in (bad, good)])
    print_report(load_grid(tiny_grid), Outcome([bad, good], 2, {"finished": 2}, (), False), db, with_table=False)
    note = "1 of 2 runs never got below the first training loss; its learning rate may be too high: lr=1e6"
    assert (note in capsys.readouterr().err) == is_untrained
