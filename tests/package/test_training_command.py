"""The command that trains a run again really does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.waiting import HANG_SECONDS
from labbench.store.reader import Reader
from labbench.training_command import _format_value, training_command
from labbench.tui.run_values import read_run_with_command

GRID = """\
name = "lists"
task = "digits"
[params]
epochs = 1
batch_size = 512
[grid]
hidden = [[8], [8, 4]]
clip = ["none", 1.0]
"""


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command, with `labbench` and `python` of this installation."""
    programs = f'labbench() {{ "{sys.executable}" -m labbench "$@"; }}; python() {{ "{sys.executable}" "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", programs + command], cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS
    )


def test_the_command_of_a_grid_trains_the_same_configuration_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "lists.toml").write_text(GRID)
    trained = shell("labbench --db a.db run grids/lists.toml --workers 0 --set lr=0.05", tmp_path)
    assert trained.returncode == 0, trained.stderr
    database = tmp_path / "a.db"
    with Reader(database) as reader:
        [run] = reader.runs("hidden=[8,4] clip=1")
    run, recorded = read_run_with_command(database, run.key)
    keys = ("hidden", "clip")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = shell(training_command(run, database, recorded, keys) + " --workers 0", elsewhere)
    assert again.returncode == 0, again.stderr
    with Reader(database) as reader:
        assert [other.config for other in reader.runs("hidden=[8,4] clip=1")] == [run.config] * 2
        assert run.config["lr"] == 0.05
        assert reader.count() == 5


def test_the_command_that_show_prints_trains_one_run_of_a_stack_to_the_bit(tmp_path: Path) -> None:
    grid = 'task = "digits"\n[params]\nepochs = 1\nhidden = [8]\n[grid]\nlr = [0.1, 0.03, 0.01]\n[repeat]\nseeds = 3\n'
    (tmp_path / "grid.toml").write_text(grid)
    trained = shell("labbench run grid.toml --workers 0 --engine stacked", tmp_path)
    assert trained.returncode == 0, trained.stderr
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs("lr=0.03 seed=1")
    [document] = [json.loads(shell(f"labbench show {run.key} --json", tmp_path).stdout)]
    command = document["training_command"]
    assert "--rerun --engine stacked" in command
    assert "train again" in shell(f"labbench show {run.key}", tmp_path).stdout
    again = shell(f"{command} --workers 0", tmp_path)
    assert again.returncode == 0, again.stderr
    with Reader(tmp_path / "runs.db") as reader:
        assert reader.count() == 10
        first, second = reader.runs("lr=0.03 seed=1")
        assert (first.way, second.way) == ("stacked", "stacked")
        points: dict[str, list[tuple[str, int, float]]] = {}
        for row in reader.points("lr=0.03 seed=1"):
            if not row.metric.startswith("time/"):
                points.setdefault(row.run, []).append((row.metric, row.step, row.value))
    assert points[first.key] == points[second.key]


def test_the_command_of_a_script_is_its_own(tmp_path: Path) -> None:
    script = "import labbench\nwith labbench.start('x') as run:\n    run.log({'loss': 1})\n"
    (tmp_path / "train.py").write_text(script)
    assert shell("LABBENCH_DB=a.db python train.py --name 'a b'", tmp_path).returncode == 0
    database = next(tmp_path.glob("*.db"))
    with Reader(database) as reader:
        [run] = reader.runs()
    run, recorded = read_run_with_command(database, run.key)
    command = training_command(run, database, recorded)
    assert command == f"cd {tmp_path} && python train.py --name 'a b'"


@pytest.mark.parametrize("value", ["plain", "two words", "it's", "a,b", "none", "[1]", "(x)", "", 'say "so"'])
def test_a_text_is_quoted_so_that_the_filter_reads_the_same_text(value: str) -> None:
    from labbench.filters import parser

    condition = parser.parse(f"key={_format_value(value)}")
    assert condition is not None
    assert parser.matches_config(condition, {"key": value})
