"""`labbench run --executor ray` on a cluster of three nodes on this machine, which is started once for this file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.executor_contract import ExecutorContract, MakeExecutor
from labbench.errors import InputError, LabbenchError
from labbench.executors.ray import cluster as ray_cluster
from labbench.executors.ray import executor as ray_executor
from labbench.executors.ray.cluster import LOOPBACK, NO_STATISTICS, require_equal_nodes, require_slots
from labbench.executors.ray.executor import RayExecutor, RaySettings
from labbench.records import Resources, RunRecord
from labbench.store.reader import Reader

pytest.importorskip("torch")
pytest.importorskip("ray")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray leaves files and processes open
    pytest.mark.skipif(
        not os.environ.get("LABBENCH_CLUSTER_TESTS"), reason="takes minutes: set LABBENCH_CLUSTER_TESTS=1 to run it"
    ),
]

WAIT_SECONDS = 400.0
"""Limit for what takes seconds on an idle machine."""

OPTIMIZERS = Path(__file__).parents[2] / "experiments" / "optimizers.toml"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster of three nodes with one core each."""
    environment = {**LOOPBACK, **NO_STATISTICS, "RAY_raylet_start_wait_time_s": "180", "RAY_AUTH_MODE": "disabled"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        try:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
            for _ in range(2):
                cluster.add_node(num_cpus=1)
        except Exception as error:  # Ray's own limits of seconds, which a busy machine exceeds
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield cluster
        cluster.shutdown()


@pytest.fixture
def connected(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Connect this process to the cluster; return the address."""
    import ray

    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False)
    monkeypatch.setattr(ray_executor, "disconnect", lambda: None)
    return str(cluster.address)


class TestRay(ExecutorContract):
    @pytest.fixture
    def make_executor(self, connected: str, tmp_path: Path) -> MakeExecutor:
        modules = [tmp_path / "unruly.py", tmp_path / "greedy.py"]

        def make() -> RayExecutor:
            files = [path for path in modules if path.exists()]
            return RayExecutor(RaySettings(connected, Resources(), tmp_path / "runs.db.files", files, "cpu"))

        return make


def test_a_request_that_no_node_can_serve_is_refused_at_once(connected: str) -> None:
    with pytest.raises(InputError, match="requests 64 cores for a stack, and no node of the cluster has them"):
        require_slots(Resources(cpus=64))
    with pytest.raises(InputError, match="2 GPUs"):
        require_slots(Resources(gpus=2))


def test_data_that_a_node_lacks_and_other_versions_are_found_before_submission(
    connected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="does not see /no/such/data"):
        require_equal_nodes(["/no/such/data"])
    versions = {"python": "3.11.0", "torch": "1.0", "labbench": "0.0"}
    monkeypatch.setattr(ray_cluster, "library_versions", lambda: versions)
    with pytest.raises(InputError, match=r"\(here 1.0\).*install the same versions"):
        require_equal_nodes([])


def labbench(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "labbench", "run", "grid.toml", *words]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_wrong_address_is_reported_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('task = "digits"\n[params]\nepochs = 1\n')
    for address, message in (("nowhere", "give HOST:PORT"), ("127.0.0.1:1", "no Ray cluster answers there")):
        process = labbench(tmp_path, "--executor", "ray", "--address", address)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 2
        assert message in errors
        assert "Traceback" not in errors


def read_runs(folder: Path) -> list[RunRecord]:
    try:
        with Reader(folder / "runs.db") as reader:
            return reader.by_keys(list(reader.keys()))
    except LabbenchError:  # it is being created
        return []


def read_points(folder: Path) -> dict[tuple[str, str, int], float]:
    with Reader(folder / "runs.db") as reader:
        rows = list(reader.points())
    return {(row.name, row.metric, row.step): row.value for row in rows if not row.metric.startswith("time/")}


def test_three_nodes_of_which_one_is_removed_equal_worker_processes(cluster: Any, tmp_path: Path) -> None:
    text = OPTIMIZERS.read_text().replace("epochs = 20", "epochs = 12").replace("[128, 64]", "[16]")
    text = text.replace("lr = [3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003]", "lr = [0.1, 0.01]")
    text += '[runtime]\nprecision = "float64"\nlog_every = 1\nsnapshot_every = "0.05s"\n'
    for name in ("ray", "local"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "grid.toml").write_text(text)
    process = labbench(tmp_path / "ray", "--executor", "ray", "--address", cluster.address)
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(run.boundary for run in read_runs(tmp_path / "ray")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, errors
    local = labbench(tmp_path / "local", "--workers", "2")
    _, errors = local.communicate(timeout=WAIT_SECONDS)
    assert local.returncode == 0, errors
    runs, expected = read_runs(tmp_path / "ray"), read_runs(tmp_path / "local")
    assert {(run.status, run.attempt, run.executor) for run in runs} == {("finished", 1, "ray")}
    assert {run.name: run.summary["train/loss"].n for run in runs} == {
        run.name: run.summary["train/loss"].n for run in expected
    }
    points = read_points(tmp_path / "local")
    assert read_points(tmp_path / "ray").keys() == points.keys()
    assert read_points(tmp_path / "ray") == pytest.approx(points, rel=1e-10)
