"""Checks before a grid is trained on a cluster, and the files that are sent to its nodes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from labbench.errors import InputError
from labbench.executors.ray import cluster as ray_cluster
from labbench.executors.ray.executor import store_files
from labbench.executors.slurm import job_array
from labbench.records import Resources, SlurmOptions
from labbench.runner.clusters import slurm_options

pytest.importorskip("torch")

Labbench = Callable[..., Result]

TASK = """
import torch
from parts.model import make
from labbench import Data

class Task:
    params = {}

    def data(self, config):
        inputs = torch.randn(64, 4)
        return Data(train=(inputs, (inputs[:, 0] > 0).long()), val=(inputs, (inputs[:, 0] > 0).long()))

    def model(self, config):
        return make()
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Return a grid file of a task with one local module beside files that it does not import."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "model.py").write_text("import torch\n\ndef make():\n    return torch.nn.Linear(4, 2)\n")
    (tmp_path / "secret.py").write_text("password = 1\n")
    (tmp_path / "data.csv").write_text("a,b\n")
    (tmp_path / "task.py").write_text(TASK)
    file = tmp_path / "grid.toml"
    file.write_text('task = "task.py:Task"\n[params]\nepochs = 1\n')
    return file


@pytest.mark.parametrize(("executor", "package"), [("ray", "Ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_its_extra(
    labbench: Labbench, grid: Path, monkeypatch: pytest.MonkeyPatch, executor: str, package: str
) -> None:
    for module in (ray_cluster, job_array):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = labbench("run", grid, "--executor", executor)
    assert result.exit_code == 2
    assert f"needs {package}, which is not installed" in result.stderr
    assert f'pip install -e ".[{executor}]"' in result.stderr


def test_a_machine_without_the_commands_of_slurm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_array, "find_spec", lambda name: object())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"no sbatch in PATH; run this command on a login node.*cluster = \"local\""):
        job_array.require_slurm(SlurmOptions())
    job_array.require_slurm(SlurmOptions(cluster="local"))


def test_a_grid_of_commands_is_refused_with_the_reason(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('command = ["python", "train.py"]\n[grid]\nlr = [1]\n')
    result = labbench("run", tmp_path / "grid.toml", "--executor", "slurm")
    assert result.exit_code == 2
    assert "its scripts would write to the database from several machines" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "2"), "--workers is the number of processes on this machine"),
        (("--device", "cuda:1"), "--device cuda:1: the cluster chooses the GPU of a node"),
        (("--device", "warp"), "use auto, cpu or cuda"),
    ],
)
def test_options_of_this_machine_are_refused_on_a_cluster(
    labbench: Labbench, grid: Path, words: tuple[str, str], message: str
) -> None:
    result = labbench("run", grid, "--executor", "slurm", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_dry_run_lists_exactly_the_files_that_are_sent(
    labbench: Labbench, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: object())
    result = labbench("run", grid, "--executor", "ray", "--dry-run")
    assert result.exit_code == 0, result.output
    sent = [
        Path(line.partition(": ")[2]) for line in result.stderr.splitlines() if line.startswith("sent to the nodes")
    ]
    assert sent == [grid.parent / "task.py", grid.parent / "parts" / "model.py"]
    assert set(ray_cluster.read_modules(sent)) == {"task.py", "parts/model.py"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("Version mismatch: The cluster was started with: Ray: 2.1", "has other versions of Python or Ray than this"),
        ("Failed to connect to Ray cluster", "no Ray cluster answers there: Failed to connect"),
        (
            "No node info found matching attributes: '' when trying to resolve node to connect to.",
            "this machine is not a node .* ray start --address .* --num-cpus 0",
        ),
    ],
)
def test_a_cluster_that_refuses_this_process_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, error: str, message: str
) -> None:
    def refuse(**options: object) -> None:
        raise RuntimeError(error)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=refuse, is_initialized=lambda: False))
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_raylet_start_wait_time_s", "RAY_py_gcs_connect_timeout_s"):
        monkeypatch.setenv(name, "0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(InputError, match=f"--address {address}: .*{message}"):
            ray_cluster.connect(address)


def test_files_from_a_node_stay_in_the_folders_of_their_runs(tmp_path: Path) -> None:
    folder, key = tmp_path / "runs.db.files", "0123456789ab"
    sent = {f"{key}/snapshot-1.safetensors": b"1", f"{key}/../other": b"2", f"{key}/{tmp_path}/absolute": b"3"}
    store_files(folder, sent)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / key / "snapshot-1.safetensors"]
    with pytest.raises(InputError):
        store_files(folder, {"../outside": b"4"})


def test_general_resources_are_those_of_jobs_unless_they_have_their_own() -> None:
    resources = Resources(gpus=0.5, cpus=1.5, memory=8.0, slurm=SlurmOptions(cpus=4))
    options = slurm_options(resources)
    assert (options.gpus, options.cpus, options.memory) == (1, 4, 8.0)
