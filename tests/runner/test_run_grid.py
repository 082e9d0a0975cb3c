"""`labbench run` from start to end: real grids, real training, a real database, in processes like a user's."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result

from helpers.waiting import HANG_SECONDS, wait_for
from labbench.executors.scratch import PREFIX
from labbench.executors.worker_pool import WorkerExecutor
from labbench.runner import run_grid
from labbench.store.reader import Reader

pytest.importorskip("torch")

Labbench = Callable[..., Result]

SLOW = """
name = "slow"
task = "digits"
[params]
epochs = 30
hidden = [32]
[grid]
batch_size = [63, 64, 65, 66]
[repeat]
seeds = [0, 1]
"""


def start(grid: Path, db: Path, *options: str) -> subprocess.Popen[str]:
    """Start `labbench run` in its own process group, which a test can signal like a terminal."""
    words = [sys.executable, "-m", "labbench", "--db", str(db), "run", str(grid), *options]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0, cwd=grid.parent
    )


def statuses(db: Path) -> dict[str, int]:
    if not db.exists():
        return {}
    connection = sqlite3.connect(db)  # not read-only, which would leave files behind
    try:
        return dict(connection.execute("SELECT status, count(*) FROM runs GROUP BY status"))
    except sqlite3.OperationalError:  # the tables do not exist yet
        return {}
    finally:
        connection.close()


def points(db: Path) -> dict[tuple[str, str, int], float]:
    """Return every point by (identity of its run, metric, step)."""
    connection = sqlite3.connect(db)
    query = """SELECT identity, metrics.name, step, value FROM points
               JOIN runs ON runs.id = run_id JOIN metrics ON metrics.id = metric_id
               WHERE metrics.name NOT LIKE 'time/%'"""
    rows = {(identity, metric, step): value for identity, metric, step, value in connection.execute(query)}
    connection.close()
    return rows


def test_a_grid_is_trained_and_recorded_once(labbench: Labbench, tiny_grid: Path) -> None:
    first = labbench("run", tiny_grid, "--workers", "0")
    assert first.exit_code == 0, first.output
    assert "4 finished" in first.stderr
    with Reader(Path("runs.db")) as reader:
        runs = reader.runs()
        assert [run.name for run in runs] == ["sgd lr=0.1", "sgd lr=0.01", "adam lr=0.1", "adam lr=0.01"]
        assert {run.status for run in runs} == {"finished"}
        for run in runs:
            assert {"train/loss", "val/loss", "val/accuracy", "test/accuracy", "epoch"} <= run.summary.keys()
            assert run.summary["epoch"].last == 2.0
            assert run.summary["train/loss"].n == 40  # 20 batches of 64 per epoch
    before = points(Path("runs.db"))
    again = labbench("run", tiny_grid)
    assert again.exit_code == 0
    assert "nothing to do: 4 finished" in again.stderr
    assert points(Path("runs.db")) == before
    assert sorted(path.name for path in Path().iterdir()) == ["runs.db", "tiny.toml"]


def test_temporary_folders_of_a_driver_killed_at_its_very_end_are_deleted(
    labbench: Labbench, tiny_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert labbench("run", tiny_grid, "--workers", "0").exit_code == 0
    abandoned = tmp_path / f"{PREFIX}abandoned"
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    assert "nothing to do: 4 finished" in labbench("run", tiny_grid).stderr
    assert not abandoned.exists()


def test_worker_processes_record_the_same_numbers_as_this_process(
    labbench: Labbench, tiny_grid: Path, tmp_path: Path
) -> None:
    for db, workers in (("one.db", "0"), ("two.db", "2")):
        assert labbench("--db", db, "run", tiny_grid, "--workers", workers).exit_code == 0
    assert points(tmp_path / "one.db") == points(tmp_path / "two.db")


def test_a_failed_run_is_reported_and_the_others_finish(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import torch\n"
        "from labbench.params import Param\n"
        "from labbench.train.data import Data\n"
        "class Task:\n"
        "    params = {'width': Param('int', 4)}\n"
        "    def data(self, config):\n"
        "        x = torch.randn(32, 4)\n"
        "        return Data(train=(x, (x[:, 0] > 0).long()), val=(x, (x[:, 0] > 0).long()))\n"
        "    def model(self, config):\n"
        "        return torch.nn.Linear(config['width'], 2)\n"
    )
    grid = tmp_path / "grid.toml"
    grid.write_text('name = "widths"\ntask = "task.py:Task"\n[params]\nepochs = 1\n[grid]\nwidth = [4, 5]\n')
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 1
    assert "failed: width=5" in result.stderr
    assert "mat1 and mat2 shapes cannot be multiplied" in result.stderr
    details = labbench("show", "width=5")
    assert "RuntimeError" in details.stdout
    assert "nothing to do: 1 finished, 1 failed" in labbench("run", grid).stderr
    assert labbench("run", grid, "--workers", "0", "--retry-failed").exit_code == 1
    with Reader(Path("runs.db")) as reader:
        assert reader.find("width=5").attempt == 2


def test_failed_runs_are_retried_immediately_and_attempts_are_counted(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "class Task:\n    params = {}\n"
        "    def data(self, config): raise OSError('no disk')\n"
        "    def model(self, config): ...\n"
    )
    grid = tmp_path / "grid.toml"
    grid.write_text('name = "x"\ntask = "task.py:Task"\n[resources]\nretries = 2\n')
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 1
    assert "x: 1 failed" in result.stderr
    assert "1/1 runs · 0 running · 1 failed" in result.stderr
    with Reader(Path("runs.db")) as reader:
        assert [run.attempt for run in reader.runs()] == [3]


def test_ctrl_c_keeps_all_measurements_and_the_same_command_resumes(tmp_path: Path) -> None:
    grid, db = tmp_path / "slow.toml", tmp_path / "runs.db"
    grid.write_text(SLOW)
    process = start(grid, db)
    wait_for(lambda: statuses(db).get("finished", 0) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    left = statuses(db)
    assert set(left) == {"finished", "queued"}
    before = points(db)
    again = start(grid, db)
    _, stderr = again.communicate(timeout=HANG_SECONDS)
    assert again.returncode == 0, stderr
    assert statuses(db) == {"finished": 8}
    finished = {key: value for key, value in points(db).items() if key in before}
    assert finished == before  # including the points of interrupted runs


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 130), (signal.SIGUSR1, 0), (signal.SIGUSR2, 0)],
)
def test_a_signal_to_all_processes_stops_cleanly(tmp_path: Path, number: signal.Signals, status: int) -> None:
    grid, db = tmp_path / "slow.toml", tmp_path / "runs.db"
    grid.write_text(SLOW.replace("epochs = 30", "epochs = 100000"))
    process = start(grid, db)
    wait_for(lambda: statuses(db).get("running", 0) >= 1)
    driver = psutil.Process(process.pid)
    for each in [driver, *driver.children(recursive=True)]:  # schedulers signal every process of a job
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == status, stderr
    assert statuses(db) == {"queued": 8}


def test_ctrl_c_while_workers_load_stops_cleanly(tmp_path: Path) -> None:
    grid, db = tmp_path / "slow.toml", tmp_path / "runs.db"
    grid.write_text(SLOW)
    process = start(grid, db)
    wait_for(lambda: statuses(db).get("queued", 0) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert statuses(db).get("running", 0) == 0


def test_ctrl_c_twice_stops_immediately_and_loses_no_run(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(
        "import time\n"
        "class Task:\n"
        "    params = {}\n"
        "    def data(self, config): time.sleep(600)\n"
        "    def model(self, config): ...\n"
    )
    grid, db = tmp_path / "stuck.toml", tmp_path / "runs.db"
    grid.write_text('task = "stuck.py:Task"\n')
    process = start(grid, db)
    wait_for(lambda: statuses(db).get("running", 0) == 1)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)  # the command waits for the end of an epoch that never comes
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130, stderr
    assert statuses(db) == {"queued": 1}


def test_a_module_of_the_current_folder_does_not_shadow_a_library(tmp_path: Path) -> None:
    grid, db = tmp_path / "tiny.toml", tmp_path / "runs.db"
    grid.write_text(SLOW.replace("epochs = 30", "epochs = 1"))
    (tmp_path / "tarfile.py").write_text("raise RuntimeError('mine')\n")
    words = [sys.executable, "-P", "-m", "labbench", "--db", str(db), "run", str(grid)]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_detached_training_continues_and_invalid_input_is_reported_immediately(
    labbench: Labbench, tiny_grid: Path, tmp_path: Path
) -> None:
    for words in (["--db", "nowhere/runs.db"], ["--db", str(tiny_grid)]):
        result = labbench(*words, "run", tiny_grid, "--detach")
        assert result.exit_code == 2, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]
    words = [sys.executable, "-m", "labbench", "run", str(tiny_grid), "--detach"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    wait_for(lambda: statuses(tmp_path / "runs.db") == {"finished": 4})
    wait_for(lambda: "next: labbench" in next((tmp_path / "runs.db.files").glob("*.log")).read_text())


def test_an_import_longer_than_the_timeout_is_ended_with_its_line(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(f"import time\n\ntime.sleep({HANG_SECONDS})\n")
    (tmp_path / "grid.toml").write_text('task = "slow.py:Task"\n[resources]\ntimeout = "0.5s"\n')
    result = labbench("run", "grid.toml")
    assert result.exit_code == 2
    assert "slow.py:3: TimeoutError: the import takes longer than 0.5 s ([resources] timeout)" in result.stderr
    assert "    time.sleep(" in result.stderr


def test_output_of_a_task_does_not_mix_with_the_json(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import torch\n"
        "from labbench.train.data import Data\n"
        "class Task:\n"
        "    params = {}\n"
        "    def data(self, config):\n"
        "        print('hello')\n"
        "        x = torch.randn(8, 2)\n"
        "        return Data(train=(x, (x[:, 0] > 0).long()), val=(x, (x[:, 0] > 0).long()))\n"
        "    def model(self, config): return torch.nn.Linear(2, 2)\n"
    )
    (tmp_path / "loud.toml").write_text('task = "loud.py:Task"\n[params]\nepochs = 1\n')
    result = labbench("run", tmp_path / "loud.toml", "--workers", "0", "--json")
    assert [run["status"] for run in json.loads(result.stdout)] == ["finished"]
    assert "hello" in result.stderr


@pytest.mark.parametrize("engine", ["loop", "auto"])
def test_training_does_not_wait_for_the_import_of_torchs_compiler(
    labbench: Labbench, tmp_path: Path, engine: str
) -> None:
    (tmp_path / "task.py").write_text(
        "import sys, torch\n"
        "from labbench.train.data import Data\n"
        "class Task:\n"
        "    params = {}\n"
        "    def data(self, config):\n"
        "        x = torch.randn(8, 2)\n"
        "        return Data(train=(x, (x[:, 0] > 0).long()), val=(x, (x[:, 0] > 0).long()))\n"
        "    def model(self, config): return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1))\n"
        "    def metrics(self, outputs, targets):\n"
        "        return {'imported': torch.full(targets.shape, 'torch._dynamo' in sys.modules)}\n"
    )
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'task = "task.py:Task"\n[params]\nepochs = 2\n[grid]\nlr = [0.1, 0.2]\n[runtime]\nengine = "{engine}"\n'
    )
    assert labbench("run", grid, "--workers", "1").exit_code == 0
    with Reader(Path("runs.db")) as reader:
        assert [run.summary["val/imported"].last for run in reader.runs()] == [0.0, 0.0]


def test_a_killed_driver_loses_no_finished_run_and_its_other_runs_train_again(tmp_path: Path) -> None:
    grid, db = tmp_path / "slow.toml", tmp_path / "runs.db"
    grid.write_text(SLOW)
    process = start(grid, db)
    wait_for(lambda: statuses(db).get("finished", 0) >= 1 and statuses(db).get("running", 0) >= 1)
    process.kill()
    process.communicate(timeout=HANG_SECONDS)
    with Reader(db) as reader:
        assert reader.status_counts().get("lost", 0) >= 1
        done = {run.key: run.finished for run in reader.runs("status=finished")}
    again = start(grid, db)
    _, stderr = again.communicate(timeout=HANG_SECONDS)
    assert again.returncode == 0, stderr
    with Reader(db) as reader:
        runs = reader.runs()
        assert [run.status for run in runs] == ["finished"] * 8
        assert {run.key: run.finished for run in runs if run.key in done} == done
        assert {run.summary["train/loss"].n for run in runs} == {600}  # no point twice, none missing


HELD_DIGITS = """
import os, time
from pathlib import Path
from labbench.train.tasks.builtin import DigitsTask
class Task(DigitsTask):
    def epoch_metrics(self, outputs, targets):
        calls = os.environ["CALLS"] = str(int(os.environ.get("CALLS", 0)) + 1)
        if Path("hold").exists() and int(calls) > 3 * 36:
            Path("held").touch()
            time.sleep(600)
        return {}
"""
"""Task that hangs after three evaluations of a stack of 36 runs, while there is a file `hold`."""

STACK = """
name = "stack"
task = "task.py:Task"
[params]
epochs = 6
hidden = [32]
[grid]
optimizer = ["sgd", "adam"]
lr = [0.1, 0.01, 0.001]
dropout = [0.0, 0.5]
[repeat]
seeds = [0, 1, 2]
[runtime]
snapshot_every = 0.001
"""


def boundaries(db: Path) -> list[int]:
    """Return the boundary of each run."""
    connection = sqlite3.connect(db)
    steps = [step for (step,) in connection.execute("SELECT boundary FROM runs")]
    connection.close()
    return steps


def test_a_stack_of_36_runs_killed_in_the_middle_has_the_curves_of_an_uninterrupted_one(
    labbench: Labbench, tmp_path: Path
) -> None:
    """After SIGKILL the same command resumes from the last boundary, bit-equal."""
    grid, killed, whole = tmp_path / "stack.toml", tmp_path / "killed.db", tmp_path / "whole.db"
    grid.write_text(STACK)
    (tmp_path / "task.py").write_text(HELD_DIGITS)
    (tmp_path / "hold").touch()
    process = start(grid, killed, "--workers", "1")
    wait_for(lambda: (tmp_path / "held").exists() and min(boundaries(killed)) > 0)
    process.kill()
    process.communicate(timeout=HANG_SECONDS)
    (tmp_path / "hold").unlink()
    process = start(grid, killed, "--workers", "1")
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, stderr
    with Reader(killed) as reader:
        assert {(run.status, run.attempt, run.way) for run in reader.runs()} == {("finished", 2, "stacked")}
    assert labbench("--db", whole, "run", grid, "--workers", "0").exit_code == 0
    resumed, uninterrupted = points(killed), points(whole)
    assert len(resumed) > 36 * 120
    assert resumed == uninterrupted


def test_two_commands_share_one_queue(tmp_path: Path) -> None:
    grid, db = tmp_path / "slow.toml", tmp_path / "runs.db"
    grid.write_text(SLOW)
    processes = [start(grid, db, "--workers", "1") for _ in range(2)]
    stderrs = [process.communicate(timeout=HANG_SECONDS)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], stderrs
    with Reader(db) as reader:
        runs = reader.runs()
        assert [(run.status, run.attempt) for run in runs] == [("finished", 1)] * 8
        assert len({run.pid for run in runs}) == 2


def test_a_grid_is_recorded_in_a_database_without_tables(labbench: Labbench, tiny_grid: Path) -> None:
    with closing(sqlite3.connect("runs.db")) as connection:
        connection.execute("PRAGMA journal_mode = wal")  # writes a header
    assert Path("runs.db").stat().st_size
    result = labbench("run", tiny_grid, "--workers", "0", "--limit", "1")
    assert "1 finished" in result.stderr


def test_a_dry_run_lists_the_runs_to_train_and_changes_nothing(labbench: Labbench, tiny_grid: Path) -> None:
    result = labbench("run", tiny_grid, "--dry-run", "--only", "optimizer=adam")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["adam lr=0.1", "adam lr=0.01"]
    assert "to train: 2 runs in" in result.stderr
    assert "(of 2 in the grid)" in result.stderr
    assert "about" in result.stderr
    assert not Path("runs.db").exists()
    assert labbench("run", tiny_grid, "--limit", "1", "--workers", "0").exit_code == 0
    names = [run["name"] for run in json.loads(labbench("run", tiny_grid, "--dry-run", "--json").stdout)]
    assert names == ["sgd lr=0.01", "adam lr=0.1", "adam lr=0.01"]


def test_rerun_creates_new_runs_beside_the_old_ones(labbench: Labbench, tiny_grid: Path) -> None:
    for options in ((), ("--rerun",)):
        assert labbench("run", tiny_grid, "--workers", "0", "--limit", "1", *options).exit_code == 0
    with Reader(Path("runs.db")) as reader:
        first, second = reader.runs()
    assert first.key != second.key
    assert first.config == second.config
    assert first.summary["val/loss"] == second.summary["val/loss"]


def test_changed_user_data_trains_new_runs(labbench: Labbench, tmp_path: Path) -> None:
    rows = "".join(f"{i},{(i * 7) % 10},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "table.csv").write_text(f"x,y,kind\n{rows}")
    grid = tmp_path / "own.toml"
    grid.write_text('task = "own"\n[params]\npath = "table.csv"\nepochs = 1\nhidden = [4]\n[grid]\nlr = [0.1, 0.2]\n')
    assert "2 finished" in labbench("run", grid, "--workers", "0").stderr
    assert "nothing to do: 2 finished" in labbench("run", grid, "--workers", "0").stderr
    (tmp_path / "table.csv").write_text(f"x,y,kind\n{rows}40,3,b\n")
    assert "2 finished" in labbench("run", grid, "--workers", "0").stderr
    with Reader(Path("runs.db")) as reader:
        assert len(reader.runs()) == 4


def test_labbench_stop_stops_running_runs(tmp_path: Path) -> None:
    grid, db = tmp_path / "slow.toml", tmp_path / "runs.db"
    grid.write_text(SLOW.replace("epochs = 30", "epochs = 100000").replace("[63, 64, 65, 66]", "[64]"))
    process = start(grid, db, "--workers", "2")
    wait_for(lambda: statuses(db).get("running", 0) == 2)
    words = [sys.executable, "-m", "labbench", "--db", str(db), "stop", "s0", "s1"]
    subprocess.run(words, check=True)
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, stderr
    assert statuses(db) == {"stopped": 2}
    with Reader(db) as reader:
        assert {run.reason for run in reader.runs()} == {"stopped by the user"}


@pytest.mark.parametrize(("count", "words"), [(0, "no CUDA devices are visible"), (1, "1 CUDA device is visible")])
def test_more_gpus_than_are_visible_are_refused_before_anything_is_recorded(
    count: int, words: str, labbench: Labbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_grid, "cuda_device_count", lambda: count)
    (tmp_path / "grid.toml").write_text("command = ['true']\n[grid]\na = [1]\n[resources]\ngpus = 2\n")
    result = labbench("run", "grid.toml", "--device", "cpu")
    assert result.exit_code == 2
    assert f"grid.toml:5:8: gpus = 2, but {words} on this machine" in result.stderr
    assert not (tmp_path / "runs.db").exists()
    assert labbench("run", "grid.toml", "--device", "cpu", "--dry-run").exit_code == 0
    monkeypatch.setattr(run_grid, "cuda_device_count", lambda: 2)
    assert labbench("run", "grid.toml", "--device", "cpu", "--workers", "1").exit_code == 0


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        ("0", [], ["cuda:0", "cuda:1"]),
        ("0.5", [], ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("0.5", ["--workers", "3"], ["cuda:0", "cuda:1", "cuda:0"]),
    ],
)
def test_stacks_share_gpus_as_the_grid_requests(
    gpus: str,
    workers: list[str],
    expected: list[str],
    labbench: Labbench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = []

    class FakeExecutor(WorkerExecutor):
        def __init__(self, devices: Sequence[str], **options: Any) -> None:
            opened.append(list(devices))
            super().__init__(["cpu"] * len(devices), **options)

    monkeypatch.setattr(run_grid, "resolve_devices", lambda device: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(run_grid, "cuda_device_count", lambda: 2)
    monkeypatch.setattr(run_grid, "WorkerExecutor", FakeExecutor)
    (tmp_path / "grid.toml").write_text(
        f"command = ['true']\n[grid]\na = [1, 2, 3, 4, 5]\n[resources]\ngpus = {gpus}\n"
    )
    assert labbench("run", "grid.toml", *workers).exit_code == 0
    assert opened == [expected]


def test_a_number_of_gpus_is_whole_or_a_part_of_one(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text("command = ['true']\n[grid]\na = [1]\n[resources]\ngpus = 1.5\n")
    result = labbench("run", "grid.toml")
    assert result.exit_code == 2
    assert "must be a whole number of GPUs or a part of one, such as 0.5, not 1.5" in result.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_files_of_runs_lie_beside_the_database_whatever_the_task_and_links_do(
    labbench: Labbench, tmp_path: Path, workers: int
) -> None:
    for folder in ("disk", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "runs.db").symlink_to("disk/real.db")
    (tmp_path / "task.py").write_text(
        "import os, torch\n"
        "from labbench import Data\n"
        "class Task:\n"
        "    params = {}\n"
        "    def data(self, config):\n"
        "        os.chdir('elsewhere')\n"
        "        x = torch.randn(64, 4)\n"
        "        return Data(train=(x, (x[:, 0] > 0).long()), val=(x, (x[:, 0] > 0).long()))\n"
        "    def model(self, config):\n"
        "        return torch.nn.Linear(4, 2)\n"
    )
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'name = "g"\ntask = "task.py:Task"\n[params]\nepochs = 1\n[grid]\nlr = [0.1, 0.2]\n[runtime]\nkeep = "last"\n'
    )
    result = labbench("run", grid, "--workers", workers)
    assert result.exit_code == 0, result.output
    assert "2 finished" in result.stderr
    assert len(list((tmp_path / "disk" / "real.db.files").glob("*/model.safetensors"))) == 2


def processes_with(word: str) -> list[int]:
    """Return the living processes whose command or environment contains the word, without this one."""
    pids = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            texts = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(word in text for text in texts):
                pids.append(process.pid)
    return pids


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_killed_driver_leaves_no_script(tmp_path: Path, workers: str) -> None:
    (tmp_path / "endless.py").write_text("import time, pathlib\npathlib.Path('begun').touch()\ntime.sleep(600)\n")
    grid = tmp_path / "grid.toml"
    grid.write_text('name = "g"\ncommand = ["python", "endless.py"]\n')
    process = start(grid, tmp_path / "runs.db", "--workers", workers)
    wait_for((tmp_path / "begun").exists)
    process.kill()
    process.communicate()
    wait_for(lambda: not processes_with(str(tmp_path / "runs.db")))


def test_a_killed_driver_leaves_no_worker_that_waits_in_a_task(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import os, pathlib, time\n"
        "class Task:\n"
        "    params = {}\n"
        "    def data(self, config):\n"
        "        pathlib.Path('draft').write_text(str(os.getpid()))\n"
        "        os.replace('draft', 'worker')\n"
        "        time.sleep(600)\n"
        "    def model(self, config):\n"
        "        pass\n"
    )
    grid = tmp_path / "grid.toml"
    grid.write_text('name = "g"\ntask = "task.py:Task"\n[params]\nepochs = 1\n')
    process = start(grid, tmp_path / "runs.db", "--workers", "1")
    wait_for((tmp_path / "worker").exists)
    process.kill()
    process.communicate()
    worker = int((tmp_path / "worker").read_text())
    wait_for(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == "zombie")


def test_a_run_resumes_after_its_driver_was_stopped_and_killed_while_its_worker_went_on(tmp_path: Path) -> None:
    grid, db = tmp_path / "stack.toml", tmp_path / "runs.db"
    grid.write_text(
        'name = "s"\ntask = "digits"\n[params]\nepochs = 2000\nhidden = [8]\n[runtime]\nsnapshot_every = 0.1\n'
    )
    process = start(grid, db, "--workers", "1")
    wait_for(lambda: len(statuses(db)) > 0 and min(boundaries(db)) > 0)
    process.send_signal(signal.SIGSTOP)
    snapshots = lambda: len(list(tmp_path.rglob("snapshot-*")))  # noqa: E731
    wait_for(lambda: snapshots() > 3)
    process.kill()
    process.communicate()
    again = start(grid, db, "--workers", "1")
    [reached] = boundaries(db)
    wait_for(lambda: boundaries(db)[0] > reached or statuses(db) != {"running": 1})
    again.send_signal(signal.SIGINT)
    again.communicate()
    assert statuses(db) in ({"queued": 1}, {"finished": 1})
    assert snapshots() <= 2


def test_run_names_the_experiment_that_has_the_runs_of_a_renamed_grid(labbench: Labbench, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    text = 'name = "{}"\ncommand = ["true", "{{lr}}"]\n[grid]\nlr = [0.1, 0.01]\n'
    grid.write_text(text.format("before"))
    assert labbench("run", grid, "--workers", "1").exit_code == 0
    grid.write_text(text.format("after"))
    preview = labbench("run", grid, "--dry-run")
    assert "labbench rename before after" in preview.stderr
    assert labbench("rename", "before", "after").exit_code == 0
    again = labbench("run", grid, "--workers", "1")
    assert "nothing to do: 2 finished" in again.stderr
    assert "rename" not in again.stderr
