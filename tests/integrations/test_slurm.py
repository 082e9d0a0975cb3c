"""`labbench run --executor slurm` on a SLURM whose commands are fakes that run jobs as processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from helpers import fake_slurm
from helpers.search_grids import HALVING
from labbench.errors import LabbenchError
from labbench.records import RunRecord
from labbench.store.reader import Reader

pytest.importorskip("torch")
pytest.importorskip("submitit")

# the task waits in its epoch 30 for a file, so that the tests do not depend on the speed of the machine
GRID = """
name = "held"
task = "{task}:Task"
[params]
epochs = {epochs}
[runtime]
precision = "float64"
log_every = 1
snapshot_every = "0.2s"
[grid]
seed = [0, 1]
lr = [0.1, 0.01]
[resources.slurm]
array = 2
"""

TASK = """
import time
from pathlib import Path

import torch
from labbench import Data

calls = []

class Task:
    params = {}

    def data(self, config):
        torch.manual_seed(0)
        inputs = torch.randn(64, 4, dtype=torch.float64)
        targets = (inputs.sum(dim=1) > 0).long()
        return Data(train=(inputs, targets), val=(inputs, targets))

    def model(self, config):
        return torch.nn.Linear(4, 2)

    def metrics(self, outputs, targets):
        calls.append(None)
        time.sleep(0.02)
        while len(calls) > 30 and not Path(__file__).with_name("go").exists():
            time.sleep(0.02)
        return {"accuracy": (outputs.argmax(1) == targets).double()}
"""

# the digits, which wait in their first epochs
DIGITS = """
import time
from pathlib import Path

from labbench.train.tasks.builtin import DigitsTask

calls = []

class Task(DigitsTask):
    def metrics(self, outputs, targets):
        calls.append(None)
        while len(calls) > 100 and not Path(__file__).with_name("go").exists():
            time.sleep(0.02)
        return DigitsTask.metrics(outputs, targets)
"""

OPTIMIZERS = Path(__file__).parents[2] / "experiments" / "optimizers.toml"

WAIT_SECONDS = 300.0
"""Limit for what takes seconds on an idle machine."""


@dataclass
class Cluster:
    """Grid, database and fake SLURM in one folder."""

    folder: Path
    environment: dict[str, str]
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return Path(self.environment["FAKE_SLURM"])

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(*words), cwd=self.folder, env=self.environment, text=True,
                              capture_output=True, timeout=WAIT_SECONDS, check=False)  # fmt: skip

    def labbench(self, *words: str) -> str:
        """Return the output of another command of labbench."""
        command = [sys.executable, "-P", "-m", "labbench", *words]
        return subprocess.run(command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
                              timeout=WAIT_SECONDS, check=True).stdout  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        driver = subprocess.Popen(self._command(*words), cwd=self.folder, env=self.environment, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        self.drivers.append(driver)
        return driver

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "labbench", "run", "grid.toml", *words]

    def go(self) -> None:
        """Let the task train more than 30 epochs."""
        (self.folder / "go").touch()

    def runs(self) -> list[RunRecord]:
        """Return all runs; none while the database is being created."""
        try:
            with Reader(self.folder / "runs.db") as reader:
                return reader.by_keys(list(reader.keys()))
        except LabbenchError:
            return []

    def wait(self, condition: Callable[[list[RunRecord]], bool]) -> list[RunRecord]:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition(runs := self.runs()):
            assert time.monotonic() < deadline, [(run.shown_status, run.boundary, run.error) for run in runs]
            time.sleep(0.1)
        return runs

    def steps(self, metric: str) -> dict[str, list[int]]:
        """Return the steps of a metric by run."""
        with Reader(self.folder / "runs.db") as reader:
            steps: dict[str, list[int]] = {}
            for row in reader.points(metrics=[metric]):
                steps.setdefault(row.run, []).append(row.step)
            return steps

    def counts(self) -> dict[str, tuple[str, int]]:
        """Return the status and the number of training losses of each run by its name."""
        return {run.name: (run.status, run.summary["train/loss"].n) for run in self.runs()}

    def points(self) -> dict[tuple[str, str, int], float]:
        """Return all points by name of the run, metric and step, except measured times."""
        with Reader(self.folder / "runs.db") as reader:
            return {
                (row.name, row.metric, row.step): row.value
                for row in reader.points()
                if not row.metric.startswith("time/")
            }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    environment = {**os.environ, **fake_slurm.install(tmp_path / "slurm")}
    environment.pop("LABBENCH_DB", None)
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "grid.toml").write_text(GRID.format(task="task.py", epochs=60))
    cluster = Cluster(tmp_path, environment)
    yield cluster
    for driver in cluster.drivers:
        driver.kill()
        driver.communicate()
    fake_slurm.stop_all(cluster.state)


def test_a_killed_driver_leaves_its_jobs_and_no_other_trains_their_runs(cluster: Cluster) -> None:
    driver = cluster.start("--executor", "slurm")
    cluster.wait(lambda runs: len(runs) == 4 and all(run.boundary for run in runs))
    driver.kill()
    driver.communicate()
    held = cluster.runs()
    assert {run.shown_status for run in held} == {"running (no driver)"}
    assert {run.cluster for run in held} == {"fake"}
    local = cluster.run("--workers", "1")
    assert local.returncode == 0
    assert "4 runs are training in jobs without a driver" in local.stderr
    assert [run.attempt for run in cluster.runs()] == [1] * 4
    (cluster.state / "down").touch()  # a scheduler that cannot be asked
    assert cluster.run("--workers", "1").returncode == 0
    assert {run.shown_status for run in cluster.runs()} == {"running (no driver)"}
    (cluster.state / "down").unlink()
    rename_cluster(cluster, "fake", "another")  # whose jobs this machine does not know
    assert cluster.run("--workers", "1").returncode == 0
    assert {run.shown_status for run in cluster.runs()} == {"running (no driver)"}
    rename_cluster(cluster, "another", "fake")
    cluster.go()
    again = cluster.run("--executor", "slurm")
    assert again.returncode == 0, again.stderr
    assert {(run.status, run.attempt) for run in cluster.runs()} == {("finished", 1)}
    assert set(map(tuple, cluster.steps("train/loss").values())) == {tuple(range(60))}


def job_folders(cluster: Cluster) -> dict[str, Path]:
    """Return the folders of the jobs by the id of the job."""
    files = (cluster.folder / "runs.db.files" / "slurm-jobs").glob("*/job.json")
    return {json.loads(file.read_text())["job_id"]: file.parent for file in files}


def rename_cluster(cluster: Cluster, old: str, new: str) -> None:
    for folder in job_folders(cluster).values():
        text = (folder / "job.json").read_text()
        (folder / "job.json").write_text(text.replace(f'"{old}"', f'"{new}"'))


def test_held_runs_are_released_that_were_stopped_have_left_the_grid_or_have_lost_their_folder(
    cluster: Cluster,
) -> None:
    driver = cluster.start("--executor", "slurm")
    runs = cluster.wait(lambda runs: len(runs) == 4 and all(run.boundary for run in runs))
    driver.kill()
    driver.communicate()
    jobs: dict[str, list[RunRecord]] = {}
    for run in runs:
        jobs.setdefault(str(run.job_id), []).append(run)
    (lost, with_lost_folder), (_, released) = jobs.items()
    stopped, other = sorted(released, key=lambda run: run.config["seed"])
    assert "1 running run asked to stop" in cluster.labbench("stop", stopped.key)
    assert "deleted 1 run" in cluster.labbench("rm", other.key, "--yes")
    cluster.go()
    cluster.wait(lambda _: {path.read_text() for path in cluster.state.glob("*.state")} == {"COMPLETED"})
    shutil.rmtree(job_folders(cluster)[lost])
    (cluster.folder / "grid.toml").write_text(GRID.format(task="task.py", epochs=60).replace("[0, 1]", "[0]"))
    local = cluster.run("--workers", "1")
    assert local.returncode == 0, local.stderr
    again = {run.key: (run.status, run.attempt) for run in cluster.runs()}
    assert again == {stopped.key: ("stopped", 1)} | {
        run.key: ("queued", 1) if run.config["seed"] else ("finished", 2) for run in with_lost_folder
    } | {run.key: ("finished", 1) for run in cluster.runs() if run.key not in {old.key for old in runs}}


def test_optimizers_with_a_preempted_and_a_killed_job_equal_worker_processes(cluster: Cluster) -> None:
    text = (
        OPTIMIZERS.read_text().replace('task = "digits"', 'task = "task.py:Task"').replace("epochs = 20", "epochs = 8")
    )
    text = text.replace("[128, 64]", "[16]").replace("seeds = [0, 1, 2]", "seeds = [0]")
    text = text.replace("[3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003]", "[0.1, 0.01]")
    text += '[runtime]\nprecision = "float64"\nlog_every = 1\nsnapshot_every = "0.05s"\n[resources.slurm]\narray = 2\n'
    (cluster.folder / "grid.toml").write_text(text)
    (cluster.folder / "task.py").write_text(DIGITS)
    driver = cluster.start("--executor", "slurm")
    cluster.wait(lambda runs: len(runs) == 14 and all(run.boundary for run in runs))
    first, second = sorted({run.job_id for run in cluster.runs()})[:2]
    signal_job(cluster, first, signal.SIGUSR2)  # before a preemption, as submitit asks SLURM for
    (cluster.state / f"{second}.end").write_text("NODE_FAIL")
    signal_job(cluster, second, signal.SIGKILL)
    cluster.go()
    _, errors = driver.communicate(timeout=WAIT_SECONDS)
    assert driver.returncode == 0, errors
    assert {(run.status, run.attempt) for run in cluster.runs()} == {("finished", 1)}
    through_slurm, counts = cluster.points(), cluster.counts()
    (cluster.folder / "runs.db").rename(cluster.folder / "slurm.db")
    assert cluster.run("--workers", "1").returncode == 0
    assert counts == cluster.counts()
    assert through_slurm.keys() == cluster.points().keys()
    assert through_slurm == pytest.approx(cluster.points(), rel=1e-10)


@pytest.mark.skipif(
    not os.environ.get("LABBENCH_CLUSTER_TESTS"), reason="takes minutes: set LABBENCH_CLUSTER_TESTS=1 to run it"
)
def test_a_search_in_jobs_prunes_and_measures_as_in_worker_processes(cluster: Cluster) -> None:
    (cluster.folder / "grid.toml").write_text(f"{HALVING}[resources.slurm]\narray = 1\n")
    result = cluster.run("--executor", "slurm")
    assert result.returncode == 0, result.stderr
    assert "best configuration" in result.stderr
    through_slurm, counts = cluster.points(), cluster.counts()
    assert len({run.job_id for run in cluster.runs()}) >= 3  # one job for each rung at least
    (cluster.folder / "runs.db").rename(cluster.folder / "slurm.db")
    assert cluster.run("--workers", "1").returncode == 0
    assert counts == cluster.counts()
    assert through_slurm == pytest.approx(cluster.points(), rel=1e-10)


def signal_job(cluster: Cluster, job: str | None, number: int) -> None:
    """Send a signal to the step of a job, as SLURM does, not to its shell."""
    shell = psutil.Process(int((cluster.state / f"{job}.pid").read_text()))
    for process in shell.children(recursive=True):
        process.send_signal(number)


def test_a_folder_that_is_not_shared_is_found_before_the_first_job(cluster: Cluster) -> None:
    cluster.environment["FAKE_SLURM_UNSHARED"] = "1"
    result = cluster.run("--executor", "slurm")
    assert result.returncode == 2
    assert "do not see" in result.stderr
    assert "--db" in result.stderr
    assert not list(cluster.state.glob("*.state"))


@pytest.mark.parametrize("where", ["slurm", "local"])
def test_a_failing_setup_command_is_named_with_its_output(cluster: Cluster, where: str) -> None:
    text = (cluster.folder / "grid.toml").read_text()
    options = f'cluster = "{where}"\nsetup = ["export LOADED=1", "module load python/3.11"]\n'
    (cluster.folder / "grid.toml").write_text(text + options)
    result = cluster.run("--executor", "slurm")
    assert result.returncode == 1
    assert "[resources.slurm] setup failed with status 127: module load python/3.11" in result.stderr
    assert "module: command not found" in result.stderr
    assert {run.status for run in cluster.runs()} == {"failed"}


@pytest.mark.parametrize("where", ["slurm", "local"])
def test_jobs_train_in_the_environment_of_their_setup_commands(cluster: Cluster, where: str) -> None:
    task = TASK.replace("calls = []", "import os\nassert os.environ['LOADED'] == 'a b'\ncalls = []")
    (cluster.folder / "task.py").write_text(task)
    grid = GRID.format(task="task.py", epochs=1).replace("seed = [0, 1]\n", "")
    options = f'cluster = "{where}"\nsetup = ["export LOADED=\'a b\'"]\n[resources.slurm.options]\nnice = 10\n'
    (cluster.folder / "grid.toml").write_text(grid + options)
    cluster.environment["LOADED"] = "a b"  # for the import of the task by the driver
    result = cluster.run("--executor", "slurm")
    assert result.returncode == 0, result.stderr
    assert {run.status for run in cluster.runs()} == {"finished"}


def test_a_dry_run_prints_the_requests_of_the_jobs_without_slurm(cluster: Cluster) -> None:
    text = (cluster.folder / "grid.toml").read_text()
    options = 'account = "vision"\nsetup = ["module load cuda"]\ngpus = "a100:1"\n[resources.slurm.options]\n'
    (cluster.folder / "grid.toml").write_text(f'{text}{options}mail-type = "END,FAIL"\nwckey = "paper"\n')
    for path in (cluster.folder / "slurm" / "bin").iterdir():
        path.unlink()
    result = cluster.run("--executor", "slurm", "--dry-run")
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stderr.splitlines()]
    for line in ("--account=vision", "--gpus-per-node=a100:1", "--mail-type=END,FAIL", "--wckey=paper"):
        assert lines.count(f"#SBATCH {line}") == 1, result.stderr
    assert "module load cuda" in lines
    assert not (cluster.folder / "runs.db").exists()


def test_a_partition_that_sbatch_refuses_is_reported_without_a_traceback(cluster: Cluster) -> None:
    (cluster.state / "down").touch()
    result = cluster.run("--executor", "slurm")
    assert result.returncode == 1
    assert "the jobs could not be submitted" in result.stderr
    assert "Traceback" not in result.stderr
    assert {run.status for run in cluster.runs()} == {"queued"}
