"""`labbench run --executor ray` on a cluster of three nodes on this machine, which is started once for this file."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.executor_contract import (
    GREEDY,
    UNRULY,
    ExecutorContract,
    MakeExecutor,
    ends,
    joined,
    points_of,
    stacks_of,
)
from helpers.search_grids import HALVING
from labbench.errors import InputError, LabbenchError
from labbench.executors.attempt import train_attempt
from labbench.executors.ray import cluster as ray_cluster
from labbench.executors.ray import executor as ray_executor
from labbench.executors.ray.cluster import (
    LOOPBACK,
    NO_STATISTICS,
    count_slots,
    node_resources,
    read_modules,
    requested,
    require_equal_nodes,
    require_slots,
)
from labbench.executors.ray.executor import RayExecutor, RaySettings
from labbench.records import Boundary, Event, Finished, Resources, RunRecord, Runtime, Started, Submitted
from labbench.store.reader import Reader
from labbench.train.active_runs import StopRequests

pytest.importorskip("torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray leaves files and processes open
    # not importorskip: Ray reads its environment when it is imported, and the fixture sets it first
    pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install -e ".[ray]"'),
]

WAIT_SECONDS = 400.0
"""Limit for what takes seconds on an idle machine."""

OPTIMIZERS = Path(__file__).parents[2] / "experiments" / "optimizers.toml"

HEAD = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
"""Head of the cluster; its GPU exists in name alone."""

TOKEN = secrets.token_hex(32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster of three nodes with one core each, which asks for a token."""
    environment = {**LOOPBACK, **NO_STATISTICS, "RAY_raylet_start_wait_time_s": "180", "RAY_AUTH_TOKEN": TOKEN}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def connected(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Connect this process to the cluster; return the address."""
    import ray

    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False)
    monkeypatch.setattr(ray_executor, "disconnect", lambda: None)
    return str(cluster.address)


@pytest.fixture
def make_ray(connected: str, tmp_path: Path) -> MakeExecutor:
    """Return a function that returns an executor of the cluster."""
    modules = {tmp_path / "unruly.py": UNRULY, tmp_path / "greedy.py": GREEDY}
    for path, text in modules.items():
        path.write_text(text)

    def make(*, timeout: float | None = None) -> RayExecutor:
        files, resources = tmp_path / "runs.db.files", Resources(timeout=timeout)
        return RayExecutor(RaySettings(connected, resources, files, read_modules([*modules]), "cpu"))

    return make


class TestRay(ExecutorContract):
    @pytest.fixture
    def make_executor(self, make_ray: MakeExecutor) -> MakeExecutor:
        return make_ray


def test_a_request_that_no_node_can_serve_is_refused_at_once(connected: str) -> None:
    with pytest.raises(InputError, match="requests 64 cores for a stack, and no node of the cluster has them"):
        require_slots(Resources(cpus=64))
    with pytest.raises(InputError, match="2 GPUs"):
        require_slots(Resources(gpus=2))


def test_data_that_a_node_lacks_and_other_versions_are_found_before_submission(
    connected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="does not see /no/such/data"):
        require_equal_nodes(["/no/such/data"], "digits", {})
    versions = {"python": "3.11.0", "torch": "1.0", "labbench": "0.0"}
    monkeypatch.setattr(ray_cluster, "library_versions", lambda: versions)
    with pytest.raises(InputError, match=r"\(here 1.0\).*install the same versions"):
        require_equal_nodes([], "digits", {})


def test_gpus_and_memory_count_as_shares_of_a_node(connected: str) -> None:
    nodes = node_resources()
    assert count_slots(requested(Resources(gpus=0.5, cpus=0.5)), nodes) == 2
    assert count_slots(requested(Resources(cpus=0.5)), nodes) == 6
    assert count_slots(requested(Resources(memory=1e6)), nodes) == 0


def test_a_task_that_a_node_cannot_import_is_found_before_submission(connected: str, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("import helper\nimport only_here\nclass Task: ...\n")
    (tmp_path / "helper.py").write_text("")
    modules = read_modules([tmp_path / "task.py", tmp_path / "helper.py"])
    with pytest.raises(InputError, match=r": cannot import task.py:2: .*only_here'; install what the task imports"):
        require_equal_nodes([], f"{tmp_path}/task.py:Task", modules)
    assert sorted(modules) == ["helper.py", "task.py"]


def test_a_cluster_listens_on_the_loopback_interface_alone_and_sends_no_statistics(connected: str) -> None:
    listeners, sends_statistics = set(), set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            connections = process.net_connections(kind="inet")
            listeners |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
            sends_statistics.add(process.environ().get("RAY_USAGE_STATS_ENABLED"))
    assert listeners
    assert listeners <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert sends_statistics - {None} == {"0"}  # None: a worker, whose title has replaced its environment


def test_requests_to_stop_are_kept_on_the_node_of_the_driver(make_ray: MakeExecutor) -> None:
    import ray
    from ray._private.state import actors

    with closing(make_ray()) as executor:
        executor.stop("run0")
        assert ray.get(executor._stops.read.remote()) == ["run0"]
        actor = actors(executor._stops._actor_id.hex())
    assert actor["Address"]["NodeID"] == ray.get_runtime_context().get_node_id()


def test_a_cluster_that_has_lost_all_nodes_for_a_stack_is_reported_once(
    make_ray: MakeExecutor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_executor, "CAPACITY_SECONDS", 0.0)
    with closing(make_ray()) as executor:
        assert executor.capacity() == 3
        monkeypatch.setattr(ray_executor, "node_resources", lambda: [{"memory": 1e9}])
        assert [executor.capacity() for _ in range(3)] == [1, 1, 1]
    assert capsys.readouterr().err.count("no node of the cluster has what a stack requests") == 1


def test_signals_to_the_group_of_the_driver_do_not_reach_the_processes_of_a_local_cluster() -> None:
    with ray_cluster.blocked_signals():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])  # processes inherit them
    assert blocked >= {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_worker_that_is_killed_from_outside_loses_no_run(make_ray: MakeExecutor, tmp_path: Path) -> None:
    stack = joined(stacks_of(tmp_path, "good", "x", epochs=3000))
    victims: set[int] = set()
    events: list[Event] = []
    with closing(make_ray()) as executor:
        for event in executor.execute([stack]):
            events += [event] if event is not None else []
            if isinstance(event, Started) and not victims:
                assert event.pid is not None
                victims.add(event.pid)
                os.kill(event.pid, signal.SIGKILL)
    assert {run: type(event) for run, event in ends(events).items()} == {"run0": Finished, "run1": Finished}
    assert len({event.pid for event in events if isinstance(event, Started)} - victims) >= 1


def test_a_node_that_joins_late_trains_and_its_death_costs_no_run(
    cluster: Any, make_ray: MakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "CAPACITY_SECONDS", 0.0)
    runtime = Runtime(precision="float64", log_every=1, snapshot_every=0.05)
    stacks = [
        joined([stack], runtime=runtime, files=tmp_path / "runs.db.files")
        for stack in stacks_of(tmp_path, *["good"] * 4, epochs=2000)
    ]
    expected = [event for stack in stacks for event in train_attempt(replace(stack, files=None), "cpu", StopRequests())]
    late, boundaries, events = None, Counter[str](), []
    with closing(make_ray()) as executor:
        assert executor.capacity() == 3
        for event in executor.execute(stacks):
            if late is None:
                late = cluster.add_node(num_cpus=1)
            if isinstance(event, Boundary):
                boundaries[event.run] += 1
                if len(boundaries) == 4 and late in cluster.worker_nodes:  # the fourth stack trains on the late node
                    cluster.remove_node(late, allow_graceful=False)
            events += [event] if event is not None else []
    assert {run: type(event) for run, event in ends(events).items()} == {f"run{i}": Finished for i in range(4)}
    # steps after the last boundary on the dead node are measured twice, with the same values
    assert points_of(events).keys() == points_of(expected).keys()


def test_a_node_that_only_the_head_has_lost_costs_no_run(
    make_ray: MakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "CAPACITY_SECONDS", 0.0)
    answers: list[set[str]] = []
    monkeypatch.setattr(ray_executor, "living_nodes", lambda: answers.pop() if answers else ray_cluster.living_nodes())
    events: list[Event] = []
    with closing(make_ray()) as executor:
        for event in executor.execute(stacks_of(tmp_path, "good", epochs=3000)):
            if isinstance(event, Started) and not any(isinstance(each, Started) for each in events):
                answers.append(set())  # as if the network were cut: its connections stay open
            events += [event] if event is not None else []
    assert [type(event) for event in ends(events).values()] == [Finished]
    assert len([event for event in events if isinstance(event, Submitted)]) == 2


def labbench(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "labbench", "run", "grid.toml", *words]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, **environment})  # fmt: skip


def require_refused(folder: Path, message: str, *words: str, **environment: str) -> None:
    """Assert that the command is refused with one message."""
    process = labbench(folder, "--executor", "ray", *words, **environment)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 2, errors
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_a_wrong_address_or_token_is_reported_without_a_traceback(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('task = "digits"\n[params]\nepochs = 1\n')
    require_refused(tmp_path, "give HOST:PORT", "--address", "nowhere")
    require_refused(tmp_path, "no Ray cluster answers there", "--address", "127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # another program listens
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        require_refused(
            tmp_path, "no Ray cluster answers there", "--address", address, RAY_py_gcs_connect_timeout_s="1"
        )
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        ray_cluster._require_listener("no..host:6379")
    require_refused(
        tmp_path, "the cluster refuses the token", "--address", cluster.address, RAY_AUTH_TOKEN=secrets.token_hex(32)
    )


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


def wait_for_boundary(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(run.boundary for run in read_runs(folder)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_search_trains_on_the_cluster_as_in_worker_processes(cluster: Any, tmp_path: Path) -> None:
    ways = {"ray": ["--executor", "ray", "--address", cluster.address], "local": ["--workers", "1"]}
    for name in ways:
        (tmp_path / name).mkdir()
        (tmp_path / name / "grid.toml").write_text(HALVING)
    processes = [labbench(tmp_path / name, *words) for name, words in ways.items()]
    for process in processes:
        _, errors = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, errors
        assert "best configuration" in errors
    runs, expected = (
        {run.name: (run.status, run.summary["train/loss"].n) for run in read_runs(tmp_path / name)} for name in ways
    )
    assert runs == expected
    assert {status for status, _ in runs.values()} == {"finished", "pruned"}
    assert read_points(tmp_path / "ray") == pytest.approx(read_points(tmp_path / "local"), rel=1e-10)


def test_nodes_of_which_one_is_removed_and_a_killed_driver_equal_worker_processes(cluster: Any, tmp_path: Path) -> None:
    text = OPTIMIZERS.read_text().replace("epochs = 20", "epochs = 12").replace("[128, 64]", "[16]")
    text = text.replace("lr = [3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003]", "lr = [0.1, 0.01]")
    text += '[runtime]\nprecision = "float64"\nlog_every = 1\nsnapshot_every = "0.05s"\n'
    for name in ("ray", "local"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "grid.toml").write_text(text)
    ray_words = ["--executor", "ray", "--address", cluster.address]
    process = labbench(tmp_path / "ray", *ray_words)
    wait_for_boundary(tmp_path / "ray", process)
    process.kill()
    process.communicate()
    process = labbench(tmp_path / "ray", *ray_words)
    local = labbench(tmp_path / "local", "--workers", "1")
    wait_for_boundary(tmp_path / "ray", process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    for each in (process, local):
        _, errors = each.communicate(timeout=WAIT_SECONDS)
        assert each.returncode == 0, errors
    runs, expected = read_runs(tmp_path / "ray"), read_runs(tmp_path / "local")
    assert {(run.status, run.executor) for run in runs} == {("finished", "ray")}
    assert {run.name: (run.status, run.summary["train/loss"].n) for run in expected} == {
        run.name: (run.status, run.summary["train/loss"].n) for run in runs
    }
    assert all(run.node and run.job_id and run.cluster == cluster.address for run in runs)
    points = read_points(tmp_path / "local")
    assert read_points(tmp_path / "ray").keys() == points.keys()
    assert read_points(tmp_path / "ray") == pytest.approx(points, rel=1e-10, nan_ok=True)
