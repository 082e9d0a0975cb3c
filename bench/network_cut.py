"""Cut the network between a node of Ray and its head while a grid trains: python -m bench.network_cut (as root).

Head and driver, and the node, are in two network namespaces that a pair of virtual interfaces joins. The interface of
the node is taken down when runs train there. Prints the comparison with worker processes, as `bench.clusters equal`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.clusters import EXACT, OPTIMIZERS, compare, finish, read_runs, start_run
from labbench.executors.ray.cluster import NO_STATISTICS, START_SECONDS

HEAD, NODE = "lb-head", "lb-node"
"""Network namespaces."""

ADDRESSES = {HEAD: "10.77.0.1", NODE: "10.77.0.2"}

EPOCHS = 60


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def make_network() -> None:
    """Create both namespaces and the virtual interfaces between them."""
    for namespace in ADDRESSES:
        ip("netns", "add", namespace)
    ip("link", "add", "veth-head", "netns", HEAD, "type", "veth", "peer", "name", "veth-node", "netns", NODE)
    for (namespace, address), interface in zip(ADDRESSES.items(), ("veth-head", "veth-node"), strict=True):
        ip("-n", namespace, "address", "add", f"{address}/24", "dev", interface)
        ip("-n", namespace, "link", "set", interface, "up")
        ip("-n", namespace, "link", "set", "lo", "up")


def inside(namespace: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["ip", "netns", "exec", namespace, *words], stdout=subprocess.DEVNULL)


def start_ray(namespace: str, *words: str) -> subprocess.Popen[bytes]:
    """Start the processes of Ray in a namespace; they end with the returned process."""
    address = f"--node-ip-address={ADDRESSES[namespace]}"
    ray = str(Path(sys.executable).with_name("ray"))
    return inside(namespace, ray, "start", "--block", "--num-cpus=1", address, *words)


def count_places(folder: Path) -> int:
    """Return the number of process ids of Ray's workers with running runs that have a checkpoint."""
    return len({run.job_id for run in read_runs(folder) if run.status == "running" and run.boundary})


def main() -> None:
    """Train, cut, compare, and print JSON."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {**token, **NO_STATISTICS, "RAY_raylet_start_wait_time_s": START_SECONDS}
    head = f"{ADDRESSES[HEAD]}:6379"
    make_network()
    processes = [start_ray(HEAD, "--head", "--port=6379", "--include-dashboard=false")]
    try:
        with tempfile.TemporaryDirectory() as name:
            folders = Path(name, "ray"), Path(name, "local")
            text = OPTIMIZERS.read_text().replace("epochs = 20", f"epochs = {EPOCHS}")
            text = text.replace("seeds = [0, 1, 2]", "seeds = [0]").replace("[128, 64]", "[32]")
            text = text.replace("[3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003]", "[0.1, 0.01, 0.001]")
            for folder in folders:
                folder.mkdir()
                (folder / "grid.toml").write_text(text + EXACT)
            time.sleep(20)
            processes.append(start_ray(NODE, f"--address={head}"))
            time.sleep(20)
            driver = start_run(folders[0], "--executor", "ray", "--address", head, prefix=("ip", "netns", "exec", HEAD))
            processes.append(driver)
            while driver.poll() is None and count_places(folders[0]) < 2:
                time.sleep(0.2)
            cut = time.monotonic()
            ip("-n", NODE, "link", "set", "veth-node", "down")
            finish(driver, folders[0])
            seconds = time.monotonic() - cut
            finish(start_run(folders[1], "--workers", "2"), folders[1])
            result = compare(*folders)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(60)
        for namespace in ADDRESSES:
            ip("netns", "delete", namespace)
    print(json.dumps({"seconds_after_cut": round(seconds, 1), **result}, indent=2))


if __name__ == "__main__":
    main()
