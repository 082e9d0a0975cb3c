"""Grids of commands: a script is started once per run, and its exit status decides."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import Result

from helpers.waiting import HANG_SECONDS, wait_for
from labbench.executors.command import run_command
from labbench.executors.leftovers import kill_processes, run_processes
from labbench.records import Command, Log, RunRecord
from labbench.store.reader import Reader
from labbench.train.active_runs import StopRequests

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


def is_alive(pid: int) -> bool:
    """Return True if the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads the mapped libraries of a process")
def test_scripts_start_without_waiting_for_torch(grid_of: Callable[..., Path], tmp_path: Path) -> None:
    grid = grid_of("import os; print('torch' in open(f'/proc/{os.getppid()}/maps').read())", "[grid]\nx = [1]\n")
    words = [sys.executable, "-m", "labbench", "run", str(grid), "--workers", "1"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
        assert reader.logs(run.key) == ["False\n"]


TASK_THAT_PRINTS_ITS_PARENT = """
import os

import torch
from torch import nn

from labbench import Data


class Task:
    params = {}

    def data(self, config):
        with open(f"/proc/{os.getppid()}/cmdline") as file:
            print("forkserver" in file.read())
        return Data((torch.zeros(8, 2), torch.zeros(8).long()))

    def model(self, config):
        return nn.Linear(2, 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the command line of a process")
def test_tasks_train_in_processes_forked_from_a_server(labbench: Labbench, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "task.py").write_text(TASK_THAT_PRINTS_ITS_PARENT)
    (tmp_path / "grid.toml").write_text('task = "task.py:Task"\n[params]\nepochs = 1\n')
    assert labbench("run", "grid.toml", "--workers", "1").exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
        assert "True\n" in reader.logs(run.key)


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
    assert re.search(r"to see why a run failed: labbench show [0-9a-z]{8}$", trained.stderr, re.MULTILINE)


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
    assert "no-such-program cannot be started: No such file or directory in PATH" in result.stderr


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("#!/no/such/interpreter\n", 0o755, "its first line names an interpreter that does not exist"),
        ("#!/bin/sh\r\ntrue\r\n", 0o755, "its first line names an interpreter that does not exist"),
        ("#!/bin/sh\n", 0o644, "it is not executable: write `bash ./go.sh`, or make it executable (chmod +x ./go.sh)"),
        ("true\n", 0o755, "its first line must name an interpreter, such as #!/bin/sh"),
        ("#!/bin/sh\nkill -9 $$\n", 0o755, "./go.sh: killed by SIGKILL; the system may have run out of memory"),
        ("#!/bin/sh\nsh -c 'kill -9 $$'\n", 0o755, "exit status 137 (killed by SIGKILL)"),
        ("#!/bin/sh\nno-such-program\n", 0o755, "exit status 127 (a program was not found)"),
    ],
)
def test_the_reason_of_a_failure_is_reported(
    labbench: Labbench, tmp_path: Path, content: str, mode: int, message: str
) -> None:
    (tmp_path / "go.sh").write_bytes(content.encode())
    (tmp_path / "go.sh").chmod(mode)
    (tmp_path / "grid.toml").write_text('command = ["./go.sh"]\n[grid]\nx = [1]\n')
    result = labbench("run", "grid.toml", "--workers", "0")
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("program", "mode", "message"),
    [
        ("train.py", 0o644, "it is not executable: write `python train.py`"),
        ("./train.py", 0o644, "it is not executable: write `python ./train.py`"),
        ("train.py", 0o755, "it is not in PATH: write ./train.py"),
        ("other.py", 0o644, "No such file or directory in PATH"),
    ],
)
def test_a_script_without_its_interpreter_gets_the_command_that_starts_it(
    labbench: Labbench, tmp_path: Path, program: str, mode: int, message: str
) -> None:
    (tmp_path / "train.py").write_text("print('loss 1')\n")
    (tmp_path / "train.py").chmod(mode)
    (tmp_path / "grid.toml").write_text(f'command = ["{program}"]\n[grid]\nx = [1]\n')
    recorded, trained = labbench("run", "--", program, "--lr", "0.1"), labbench("run", "grid.toml", "--workers", "0")
    assert (recorded.exit_code, trained.exit_code) == (2, 1)
    for result in (recorded, trained):
        assert f"{program} cannot be started: {message}" in result.stderr


def test_every_command_says_how_to_go_on_with_failed_and_stopped_runs(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "four.toml").write_text('command = ["sh", "-c", "exit {x}"]\n[grid]\nx = [0, 1, 2]\n')
    assert labbench("run", "four.toml", "--workers", "0").exit_code == 1
    queued = labbench("retry", "x=1").stdout.strip()
    assert queued == "queued 1 run again; to train: labbench run four.toml"
    assert (
        "left out: 1 queued run, which nothing would train"
        in labbench("pack", "--filter", "x>=0", "-o", "four.labbench").stderr
    )
    packed = labbench("--db", "laptop.db", "import", "four.labbench")
    assert packed.stdout.startswith("imported 2 new runs"), packed.output
    assert labbench("pack", "x=1", "-o", "one.labbench").exit_code == 2
    assert labbench("stop", "x=1").exit_code == 0
    hints = (
        "to train the failed runs again: --retry-failed\n"
        "to train the stopped runs again: labbench retry --filter 'experiment=four status=stopped', then this command\n"
    )
    preview = labbench("run", "four.toml", "--dry-run").stderr
    assert f"to train: 0 runs (of 3 in the grid)\nleft out: 1 failed, 1 stopped\n{hints}" in preview
    assert f"nothing to do: 1 finished, 1 stopped, 1 failed\n{hints}" in labbench("run", "four.toml").stderr
    preview = labbench("run", "four.toml", "--dry-run", "--retry-failed").stderr
    assert "to train: 1 run (of 3 in the grid)\nleft out: 1 stopped\nto train the stopped" in preview
    assert labbench("retry", "--filter", "experiment=four status=stopped", "--yes").exit_code == 0
    assert "1 failed in" in labbench("run", "four.toml", "--workers", "0").stderr


def test_python_is_the_interpreter_of_labbench(
    labbench: Labbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "script.py").write_text(
        "import os, sys\nprint(sys.executable, *sys.argv[1:], os.path.isdir(sys.argv[-1]))\n"
    )
    (tmp_path / "grid.toml").write_text(
        'command = ["python", "script.py", "{python}", "~/x", "{experiment}", "{run.key}", "{run.dir}"]\n'
        'cwd = "."\n[env]\nX = "{x}"\n[grid]\nx = [1]\n'
    )
    assert labbench("run", "grid.toml", "--workers", "0").exit_code == 0
    with Reader(Path("runs.db")) as reader:
        [run] = reader.runs()
        words = "".join(reader.logs(run.key)).split()
    folder = tmp_path.resolve() / "runs.db.files" / run.key
    assert words == [sys.executable, sys.executable, str(Path.home() / "x"), "grid", run.key, str(folder), "True"]


def test_the_environment_and_the_folder_of_a_command(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "grid.toml").write_text(
        'command = ["sh", "-c", "echo $RATE $FLAG; pwd"]\ncwd = "{place}"\n'
        '[env]\nRATE = "1/{lr}"\nFLAG = true\n[params]\nplace = "work"\n[grid]\nlr = [0.5]\n'
    )
    assert labbench("run", "grid.toml", "--workers", "0").exit_code == 0
    with Reader(Path("runs.db")) as reader:
        [run] = reader.runs()
        assert "".join(reader.logs(run.key)).splitlines() == ["1/0.5 true", str((tmp_path / "work").resolve())]


def test_a_timeout_kills_the_script(labbench: Labbench, grid_of: Callable[..., Path], tmp_path: Path) -> None:
    script = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    result = labbench("run", grid_of(script, '[grid]\nx = [1]\n[resources]\ntimeout = "1s"\n'), "--workers", "1")
    assert result.exit_code == 1
    assert "timed out after 1 s" in result.stderr
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not is_alive(pid))


def test_ctrl_c_terminates_the_script_and_requeues_the_run(grid_of: Callable[..., Path], tmp_path: Path) -> None:
    script = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(600)\n"
    grid = grid_of(script, "[grid]\nx = [1]\n")
    words = [sys.executable, "-m", "labbench", "run", str(grid)]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, process_group=0)
    wait_for((tmp_path / "begun").exists)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130, stderr
    with Reader(tmp_path / "runs.db") as reader:
        assert [run.status for run in reader.runs()] == ["queued"]


TREE = """
import os, pathlib, signal, subprocess, sys, time
if "2" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 3:
    for name in ("child", "daemon"):
        subprocess.Popen([sys.executable, __file__, *sys.argv[1:], name], start_new_session=name == "daemon")
pathlib.Path(f"pid-{sys.argv[-1]}").write_text(str(os.getpid()))
time.sleep(600)
"""
"""Script with a child and a daemon; with 2 all of them ignore SIGTERM."""


def pids(folder: Path, *names: str) -> list[int]:
    """Wait for the processes of `TREE` and return their ids."""
    files = [folder / f"pid-{name}" for name in names]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize("end", ["stop", "interrupt", "interrupt twice", "kill the driver", "kill the worker"])
def test_all_processes_of_a_script_end_with_its_run(grid_of: Callable[..., Path], tmp_path: Path, end: str) -> None:
    x = "2" if end.startswith("interrupt") else "1"
    grid = grid_of(TREE, f"[grid]\nx = [{x}]\n")
    words = [sys.executable, "-m", "labbench"]
    run = subprocess.Popen([*words, "run", str(grid), "--workers", "1"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    tree = pids(tmp_path, x, "child", "daemon")
    match end:
        case "stop":
            with Reader(tmp_path / "runs.db") as reader:
                [key] = [run.key for run in reader.runs()]
            subprocess.run([*words, "stop", key], cwd=tmp_path, check=True)
        case "kill the driver":
            run.kill()
        case "kill the worker":
            os.kill(psutil.Process(tree[0]).ppid(), signal.SIGKILL)
        case _:
            run.send_signal(signal.SIGINT)
            if end == "interrupt twice":
                time.sleep(0.5)  # the first signal has been handled
                run.send_signal(signal.SIGINT)
    run.wait(30)
    wait_for(lambda: not any(is_alive(pid) for pid in tree))


def test_a_timeout_ends_the_children_of_a_script(
    labbench: Labbench, grid_of: Callable[..., Path], tmp_path: Path
) -> None:
    result = labbench("run", grid_of(TREE, '[grid]\nx = [1]\n[resources]\ntimeout = "1s"\n'), "--workers", "1")
    assert "timed out after 1 s" in result.stderr
    assert not any(is_alive(pid) for pid in pids(tmp_path, "1", "child", "daemon"))


def test_a_process_left_in_the_background_is_reported(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "submit.sh").write_text("sleep 61 & \nsetsid sleep 62 >/dev/null 2>&1 &\nsleep 0.2; echo done\n")
    (tmp_path / "grid.toml").write_text('command = ["sh", "submit.sh"]\n[grid]\nx = [1]\n')
    result = labbench("run", "grid.toml", "--workers", "0")
    with Reader(Path("runs.db")) as reader:
        [run] = reader.runs()
        output = "".join(reader.logs(run.key)).splitlines()
    left = {process.words[-1]: process for process in run_processes(run.key)}
    kill_processes(run.key)
    assert (run.status, run.reason) == ("finished", "exit status 0; a background process was ended")
    assert f"note: the command of grid ({run.key}) ended before a process" in result.stderr
    assert output[0] == "done"
    assert "which was ended: sleep 61 (pid" in "\n".join(output)
    assert "which continues: sleep 62 (pid" in "\n".join(output)
    assert left.keys() == {"62"}


def test_an_endless_output_is_bounded(labbench: Labbench, grid_of: Callable[..., Path]) -> None:
    grid = grid_of("import sys\nfor i in range(30_000): print(i, 'x' * 990)\n", "[grid]\nx = [1]\n")
    assert labbench("run", grid, "--workers", "0").exit_code == 0
    assert Path("runs.db").stat().st_size < 2**22
    with Reader(Path("runs.db")) as reader:
        [run] = reader.runs()
        lines = "".join(reader.logs(run.key)).splitlines()
    assert (lines[0][:2], lines[-1][:6]) == ("0 ", "29999 ")
    assert any("lines not kept" in line for line in lines)


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


@pytest.mark.parametrize(("device", "shown"), [("cuda:1", "7"), ("cuda:MIG-22", "MIG-22"), ("cpu", "5,7")])
def test_a_script_sees_the_gpu_of_its_worker_only(
    device: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    words = [sys.executable, "-c", "import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])"]
    command = Command(words, str(tmp_path), str(tmp_path / "runs.db"), str(tmp_path), {})
    events = list(run_command(RunRecord(1, "run1", "", "e", "running", {}), command, device, StopRequests()))
    assert f"sees {shown}\n" in "".join(event.text for event in events if isinstance(event, Log))
