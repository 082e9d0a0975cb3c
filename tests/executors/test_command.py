"""Grids of commands: any script, started once a run; its exit status decides."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench.grid.command_template import fill_placeholders
from labbench.store.reader import Reader

Labbench = Callable[..., Result]
EXAMPLE = Path(__file__).parents[2] / "experiments" / "my_script.toml"


@pytest.fixture
def grid_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a script and a grid that runs it with `--x {x}`."""

    def write(script: str, rest: str = "[grid]\nx = [1, 2]\n") -> Path:
        (tmp_path / "script.py").write_text(script)
        path = tmp_path / "grid.toml"
        path.write_text(f'command = ["{sys.executable}", "script.py", "--x", "{{x}}"]\n{rest}')
        return path

    return write


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not noticed by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_placeholders_are_filled_and_the_shells_own_braces_are_left_alone() -> None:
    words = ["--lr={lr}", "{name}", "{hidden}", "{bn}", "${HOME}", "{{lr}}"]
    config = {"lr": 0.1, "name": "a b", "hidden": [1, 2], "bn": True}
    assert fill_placeholders(words, config) == ["--lr=0.1", "a b", "[1, 2]", "true", "${HOME}", "{{lr}}"]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_example_script_logs_to_the_runs_of_its_grid(tmp_path: Path, workers: str) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = [sys.executable, "-m", "labbench", "run", str(EXAMPLE), "--workers", workers]
    first = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    with Reader(tmp_path / "runs.db") as reader:
        runs = {run.config["lr"]: run for run in reader.runs()}
        assert {run.status for run in runs.values()} == {"finished"}
        assert {run.way for run in runs.values()} == {"command"}
        assert runs[0.5].summary["loss"].last == 0.0
        assert runs[0.1].summary["loss"].n == 50
        assert "ended at" in "".join(reader.logs(runs[0.1].key))
    again = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "nothing to do" in again.stderr


def test_the_exit_status_decides_and_the_last_lines_are_kept(labbench: Labbench, grid_of: Callable[..., Path]) -> None:
    grid = grid_of("import sys\nprint('so far so good')\nsys.exit(3 if sys.argv[-1] == '2' else 0)\n")
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 1
    assert "exit status 3" in result.stderr
    assert "so far so good" not in result.stdout
    with Reader(Path("runs.db")) as reader:
        good, bad = reader.runs()
    assert (good.status, bad.status) == ("finished", "failed")
    assert bad.traceback == "so far so good"


def test_several_grids_are_trained_one_after_another(
    labbench: Labbench, grid_of: Callable[..., Path], tmp_path: Path
) -> None:
    first = grid_of("import sys\nsys.exit(3 if sys.argv[-1] == '2' else 0)\n")
    second = tmp_path / "second.toml"
    second.write_text(first.read_text().replace("[1, 2]", "[5]"))
    shown = labbench("run", first, second, "--dry-run")
    assert shown.stdout.split() == ["x=1", "x=2", "second"]
    assert "grid: to train: 2 runs" in shown.stderr
    assert "second: to train: 1 run" in shown.stderr
    trained = labbench("run", first, second, "--workers", "0", "--json")
    assert trained.exit_code == 1  # one of the first grid's failed, and the second was trained all the same
    told = {(run["experiment"], run["config"]["x"]): run["status"] for run in json.loads(trained.stdout)}
    assert told == {("grid", 1): "finished", ("grid", 2): "failed", ("second", 5): "finished"}
    assert "to see why a run failed: labbench show RUN" in trained.stderr


def test_no_grid_is_trained_where_one_of_them_cannot_be(
    labbench: Labbench, grid_of: Callable[..., Path], tmp_path: Path
) -> None:
    good, bad = grid_of("print('trained')\n"), tmp_path / "bad.toml"
    bad.write_text("command = 5\n")
    result = labbench("run", good, bad, "--workers", "0")
    assert result.exit_code == 2
    assert "bad.toml:1" in result.stderr
    assert not (tmp_path / "runs.db").exists()


def test_a_program_that_is_not_there_is_a_failure_with_a_reason(labbench: Labbench, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('command = ["no-such-program"]\n[grid]\nx = [1]\n')
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 1
    assert "no-such-program cannot be started: No such file or directory" in result.stderr


def test_a_timeout_ends_the_script_too(labbench: Labbench, grid_of: Callable[..., Path], tmp_path: Path) -> None:
    script = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    result = labbench("run", grid_of(script, '[grid]\nx = [1]\n[resources]\ntimeout = "1s"\n'), "--workers", "1")
    assert result.exit_code == 1
    assert "timed out after 1 s" in result.stderr
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(pid))


def test_ctrl_c_asks_the_script_to_end_and_queues_the_run_again(grid_of: Callable[..., Path], tmp_path: Path) -> None:
    script = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
    grid = grid_of(script, "[grid]\nx = [1]\n")
    words = [sys.executable, "-m", "labbench", "run", str(grid)]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, process_group=0)
    wait_until((tmp_path / "begun").exists)
    os.killpg(process.pid, signal.SIGINT)
    _, talk = process.communicate(timeout=30)
    assert process.returncode == 130, talk
    with Reader(tmp_path / "runs.db") as reader:
        assert [run.status for run in reader.runs()] == ["queued"]
