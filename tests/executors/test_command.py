"""Grids of commands: a script is started once per run, and its exit status decides."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench.grid.command_template import fill_placeholders
from labbench.grid.identity import find_script
from labbench.store.reader import Reader

Labbench = Callable[..., Result]
EXAMPLE = Path(__file__).parents[2] / "experiments" / "my_script.toml"


@pytest.fixture
def grid_of(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a script and a grid that runs it with `--x {x}`."""

    def write(script: str, rest: str = "[grid]\nx = [1, 2]\n") -> Path:
        (tmp_path / "script.py").write_text(script)
        path = tmp_path / "grid.toml"
        path.write_text(f'command = ["{sys.executable}", "script.py", "--x", "{{x}}"]\n{rest}')
        return path

    return write


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "the condition was not met in 30 seconds"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return True if the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_placeholders_are_filled_and_shell_braces_are_unchanged() -> None:
    words = ["--lr={lr}", "{name}", "{hidden}", "{bn}", "${HOME}", "{{lr}}"]
    config = {"lr": 0.1, "name": "a b", "hidden": [1, 2], "bn": True}
    assert fill_placeholders(words, config) == ["--lr=0.1", "a b", "[1, 2]", "true", "${HOME}", "{{lr}}"]


def test_tilde_is_expanded_in_the_words_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.py").touch()
    assert fill_placeholders(["~/bin/python", "~/train.py", "--out={out}", ""], {"out": "~x"}) == [
        f"{tmp_path}/bin/python", f"{tmp_path}/train.py", "--out=~x", ""
    ]  # fmt: skip
    assert find_script(["python", "~/train.py"], Path("/")) == tmp_path / "train.py"


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


def test_the_exit_status_decides_and_the_last_lines_are_recorded(
    labbench: Labbench, grid_of: Callable[..., Path]
) -> None:
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
    dry_run = labbench("run", first, second, "--dry-run")
    assert dry_run.stdout.split() == ["x=1", "x=2", "second"]
    assert "grid: to train: 2 runs" in dry_run.stderr
    assert "second: to train: 1 run" in dry_run.stderr
    trained = labbench("run", first, second, "--workers", "0", "--json")
    assert trained.exit_code == 1  # a run of the first grid failed, and the second grid was trained nevertheless
    statuses = {(run["experiment"], run["config"]["x"]): run["status"] for run in json.loads(trained.stdout)}
    assert statuses == {("grid", 1): "finished", ("grid", 2): "failed", ("second", 5): "finished"}
    assert "to see why a run failed: labbench show RUN" in trained.stderr


def test_no_grid_trains_if_one_of_them_is_invalid(
    labbench: Labbench, grid_of: Callable[..., Path], tmp_path: Path
) -> None:
    good, bad = grid_of("print('trained')\n"), tmp_path / "bad.toml"
    bad.write_text("command = 5\n")
    result = labbench("run", good, bad, "--workers", "0")
    assert result.exit_code == 2
    assert "bad.toml:1" in result.stderr
    assert not (tmp_path / "runs.db").exists()


def test_a_missing_program_fails_the_run_with_the_reason(labbench: Labbench, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('command = ["no-such-program"]\n[grid]\nx = [1]\n')
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 1
    assert "no-such-program cannot be started: No such file or directory" in result.stderr


def test_a_timeout_kills_the_script(labbench: Labbench, grid_of: Callable[..., Path], tmp_path: Path) -> None:
    script = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    result = labbench("run", grid_of(script, '[grid]\nx = [1]\n[resources]\ntimeout = "1s"\n'), "--workers", "1")
    assert result.exit_code == 1
    assert "timed out after 1 s" in result.stderr
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(pid))


def test_ctrl_c_terminates_the_script_and_requeues_the_run(grid_of: Callable[..., Path], tmp_path: Path) -> None:
    script = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
    grid = grid_of(script, "[grid]\nx = [1]\n")
    words = [sys.executable, "-m", "labbench", "run", str(grid)]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, process_group=0)
    wait_until((tmp_path / "begun").exists)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    with Reader(tmp_path / "runs.db") as reader:
        assert [run.status for run in reader.runs()] == ["queued"]


def test_output_of_a_script_is_recorded_once_as_a_terminal_shows_it(
    labbench: Labbench, grid_of: Callable[..., Path]
) -> None:
    script = """
    import os, time, labbench
    with labbench.start(capture_output=True, system_metrics=False) as run:
        text = "Verlust 損失\\n".encode()
        os.write(1, text[:9])
        time.sleep(0.3)
        os.write(1, text[9:])
        for percent in range(0, 101, 10):
            os.write(2, b"\\r%d %%" % percent)
        print("\\n\\x1b[32mdone\\x1b[0m")
        for number in range(100):
            print("line", number)
    """
    labbench("run", grid_of(textwrap.dedent(script)), "--workers", "0")
    with Reader(Path("runs.db")) as reader:
        [key, *_] = [run.key for run in reader.runs()]
    numbers = [f"line {number}" for number in range(100)]
    complete = ["Verlust 損失", "100 %", "done", *numbers]
    shown = labbench("show", key, "--all").stdout.splitlines()
    assert shown[-103:] == complete
    assert shown.count("done") == 1
    note = f"(63 more lines: labbench show {key} --all)"
    assert labbench("show", key).stdout.splitlines()[-41:] == [*complete[:5], note, *complete[-35:]]
