"""Connection to a Ray cluster, and the checks before anything is submitted."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.executors.preempt_signals import PREEMPT_SIGNALS
from labbench.executors.ray.node_main import captured_output, describe_node
from labbench.executors.worker_pool import WORKER_ENVIRONMENT
from labbench.records import Resources
from labbench.system.cgroups import usable_cpu_count
from labbench.system.provenance import library_versions

CONNECT_SECONDS = 10.0
"""Seconds within which the head of a cluster must accept a connection."""

HEAD_SECONDS = "10"
"""Seconds within which the head must answer a request."""

PROBE_SECONDS = 120.0
"""Seconds within which every node must answer; a node may start a Python process first."""

START_SECONDS = "180"
"""Seconds that a local cluster may take to start on a busy machine; Ray's own limit is 60."""

LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds to 127.0.0.1; `_node_ip_address` does not
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # Ray's own 15 starves trainings beside any other program
}
"""Environment of a local cluster, read when Ray is imported and by its processes."""

NO_STATISTICS = {"RAY_USAGE_STATS_ENABLED": "0"}


def require_ray() -> None:
    """Raise InputError if Ray is not installed."""
    if find_spec("ray") is None:
        raise InputError(
            '--executor ray needs Ray, which is not installed: pip install -e ".[ray]" in labbench\'s checkout'
        )


def connect(address: str | None) -> str:
    """Connect this process to the cluster at `address`, or start a local one; return the address of its head.

    A local cluster listens on the loopback interface alone and asks for a token that only its processes know.

    Raises:
        InputError: There is no cluster at the address, or it refuses this process.
    """
    os.environ |= NO_STATISTICS
    os.environ.setdefault("RAY_raylet_start_wait_time_s", START_SECONDS)
    os.environ.setdefault("RAY_py_gcs_connect_timeout_s", HEAD_SECONDS)
    if address is None:
        os.environ |= LOOPBACK
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif address != "auto":
        _require_listener(address)
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, "num_cpus": usable_cpu_count()}
    else:
        options |= {"address": address}
    # Ray writes the reason of a refused connection to stderr alone
    with (
        tempfile.TemporaryDirectory(prefix="labbench-ray-") as folder,
        captured_output(Path(folder)) as output,
        blocked_signals(),
    ):
        try:
            if not ray.is_initialized():
                if address not in (None, "auto"):
                    _require_head(address)
                ray.init(**options)
        except Exception as error:  # Ray raises exceptions of many classes, also Exception itself
            raise InputError(_connection_message(address, error, output.read_text(errors="replace"))) from error
    return str(ray.get_runtime_context().gcs_address)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block the signals of a closed terminal and of schedulers in the block.

    The processes of a local cluster inherit this: signals to their process group are for the driver alone, which stops
    the runs at their boundaries. Ray itself blocks SIGINT in them.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, *PREEMPT_SIGNALS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _connection_message(address: str | None, error: BaseException, log: str) -> str:
    """Return the message for an error of `ray.init`, which has written `log`."""
    reason = " ".join(str(error).split())[:300]
    if address is not None and ("AuthenticationError" in type(error).__name__ or "Unauthenticated" in log):
        return (
            f"--address {address}: the cluster refuses the token of this process; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the token of the cluster"
        )
    if address is None:
        return f"a local Ray cluster cannot be started: {reason}"
    if "node to connect to" in reason:
        return (
            f"--address {address}: this machine is not a node of the cluster; run the command on a node, or make this "
            f"one a node: ray start --address {address} --num-cpus 0"
        )
    if "ersion" in reason:
        return f"--address {address}: the cluster has other versions of Python or Ray than this process: {reason}"
    return f"--address {address}: no Ray cluster answers there: {reason}"


def _require_listener(address: str) -> None:
    """Raise InputError unless something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(
            f"--address {address}: give HOST:PORT of the head of the cluster (port 6379 by default), or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        raise InputError(f"--address {address}: no Ray cluster answers there: {error}") from error


def _require_head(address: str) -> None:
    """Raise an exception of Ray unless the head of a cluster answers at HOST:PORT: `ray.init` would try for an hour."""
    with suppress(ImportError):  # not a public name
        from ray._raylet import GcsClient

        GcsClient(address=address)


def node_resources() -> list[Mapping[str, float]]:
    """Return the resources of each living node: CPU, GPU, memory in bytes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def living_nodes() -> set[str]:
    """Return the ids of the nodes that the head of the cluster hears from."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def requested(resources: Resources) -> dict[str, float]:
    """Return what a task of one stack requests, by the names of Ray."""
    request = {"CPU": resources.cpus or 1.0, "GPU": resources.gpus}
    if resources.memory is not None:
        request["memory"] = resources.memory * 1e9
    return {name: amount for name, amount in request.items() if amount}


def node_environment() -> dict[str, Any]:
    """Return Ray's environment of the processes that train on nodes."""
    return {"env_vars": {name: value for name, value in WORKER_ENVIRONMENT.items() if name != "PYTHONSAFEPATH"}}


def count_slots(request: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> int:
    """Return the number of tasks with a request that the nodes can run at the same time."""
    return sum(int(min(node.get(name, 0.0) / amount for name, amount in request.items())) for node in nodes)


def require_slots(resources: Resources) -> None:
    """Raise InputError if no node can serve a stack: Ray itself would wait for such a node without a word."""
    request, nodes = requested(resources), node_resources()
    if count_slots(request, nodes):
        return
    units = {"CPU": (1.0, "cores"), "GPU": (1.0, "GPUs"), "memory": (1e9, "GB of memory")}
    wanted = ", ".join(f"{amount / units[name][0]:g} {units[name][1]}" for name, amount in request.items())
    largest = ", ".join(
        f"{max((node.get(name, 0.0) for node in nodes), default=0.0) / units[name][0]:.3g} {units[name][1]}"
        for name in request
    )
    raise InputError(
        f"[resources] requests {wanted} for a stack, and no node of the cluster has them (at most {largest}); lower "
        "the request, or add a node"
    )


def sent_name(task: str) -> str:
    """Return the name of a task for the nodes: its file's name, since the file is sent, and its class."""
    return Path(task).name if ":" in task else task


def read_modules(files: Sequence[Path]) -> Mapping[str, bytes]:
    """Return the contents of the task's file (first) and its modules by their paths relative to the task's folder."""
    return {file.relative_to(files[0].parent).as_posix(): file.read_bytes() for file in files}


def require_equal_nodes(paths: Sequence[str], task: str, modules: Mapping[str, bytes]) -> None:
    """Check that every node has the versions of this process, sees the data and runs the task.

    `paths` are the paths of the data, `modules` is the result of `read_modules`.

    Raises:
        InputError: A node differs, or cannot import labbench or the task.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # the environment of the training, so that Ray trains in the same process afterwards
    probe = ray.remote(num_cpus=0, max_retries=0, runtime_env=node_environment())(describe_node)
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    answers = {
        node: probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            list(paths), sent_name(task), modules
        )
        for node in nodes
    }
    for node, answer in answers.items():
        try:
            description = ray.get(answer, timeout=PROBE_SECONDS)
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            continue  # it has died meanwhile
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise InputError(
                f"the node {nodes[node]} cannot run labbench ({cause}); install the same labbench and torch there"
            ) from error
        _require_equal_node(nodes[node], description)


def _require_equal_node(node: str, description: Mapping[str, Any]) -> None:
    """Check a node by its answer to `describe_node`.

    Raises:
        InputError: Its versions differ, or it lacks data, or it cannot import the task.
    """
    here = {name: library_versions().get(name, "none") for name in ("python", "torch", "labbench")}
    if differing := [name for name in here if description["versions"][name] != here[name]]:
        versions = ", ".join(f"{name} {description['versions'][name]} (here {here[name]})" for name in differing)
        raise InputError(f"the node {node} has {versions}; install the same versions")
    if description["missing"]:
        raise InputError(
            f"the node {node} does not see {description['missing'][0]}: put the data on a disk that the nodes share"
        )
    if description["problem"]:
        raise InputError(
            f"on the node {node}: {description['problem']}; install what the task imports there, or put it beside the "
            "task's file, from where it is sent"
        )


def disconnect() -> None:
    """Disconnect from the cluster; a local one ends."""
    import ray

    ray.shutdown()
