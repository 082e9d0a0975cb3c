"""`labbench pull` through a real ssh server on the loopback interface, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from helpers.store_samples import points, start
from helpers.waiting import wait_for
from labbench.errors import StoreError
from labbench.sharing.pull import follow, pull
from labbench.sharing.remote import RemoteDatabase
from labbench.store.reader import Reader
from labbench.store.writer import Writer

ROOT = Path(__file__).parents[2]
LABBENCH = f"env PYTHONPATH={ROOT} {sys.executable} -m labbench"
SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")

SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""
CLIENT = """
Host box
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    BatchMode yes
"""
IN_NEW_RUN_FOLDER = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"', "sh"]
"""Words before sshd, which as root needs the folder /run/sshd."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """Start an ssh server that `LABBENCH_SSH` reaches as `box`, and return its process."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd and ssh")
    for name in ("host_key", "user_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(words, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"port": port, "folder": tmp_path, "user": getpass.getuser()}
    (tmp_path / "sshd_config").write_text(SERVER.format(**settings))
    (tmp_path / "ssh_config").write_text(CLIENT.format(**settings))
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host_key.pub').read_text()}")
    monkeypatch.setenv("LABBENCH_SSH", f"ssh -F {tmp_path / 'ssh_config'}")
    if os.geteuid() == 0 and shutil.which("unshare") is None:
        pytest.skip("sshd needs /run/sshd, and unshare to have one for itself")
    words = [*(IN_NEW_RUN_FOLDER if os.geteuid() == 0 else []), SSHD, "-D", "-e", "-f", str(tmp_path / "sshd_config")]
    with (
        (tmp_path / "sshd.log").open("wb") as log,
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log) as sshd,
    ):
        try:
            wait_for(lambda: "listening" in (tmp_path / "sshd.log").read_text() or sshd.poll() is not None)
            if sshd.poll() is not None:
                pytest.skip(f"sshd does not start: {(tmp_path / 'sshd.log').read_text().strip()}")
            yield psutil.Process(sshd.pid)
        finally:
            for process in psutil.Process(sshd.pid).children(recursive=True) if sshd.poll() is None else []:
                process.kill()
            sshd.kill()


def read_points(path: Path) -> list[tuple[str, str, int, str]]:
    with Reader(path) as reader:
        return [(point.run, point.metric, point.step, repr(point.value)) for point in reader.points()]


@pytest.fixture
def remote(tmp_path: Path) -> RemoteDatabase:
    """Return a database whose path the remote shell must not split."""
    path = tmp_path / "a remote's runs.db"
    with Writer(path) as writer:
        for run in start(writer, 3):
            writer.write([points(run, "loss", [3.0, 2.0, float("nan")]), points(run, "acc", {7: 0.5})])
    return RemoteDatabase("box", str(path))


def test_a_database_is_mirrored_by_ssh(server: psutil.Process, remote: RemoteDatabase, tmp_path: Path) -> None:
    report = pull(tmp_path / "mirror.db", remote, LABBENCH)
    assert (report.n_runs, report.n_points) == (3, 12)
    assert read_points(tmp_path / "mirror.db") == read_points(Path(remote.path))
    assert pull(tmp_path / "mirror.db", remote, LABBENCH).n_points == 0


def test_a_cut_connection_is_made_again_and_no_point_comes_twice(
    server: psutil.Process, remote: RemoteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labbench.sharing.pull.RECONNECT_SECONDS", 0.0)
    reports = follow(tmp_path / "mirror.db", remote, LABBENCH, every=0.01)
    assert next(reports).n_points == 12
    [client] = [process for process in psutil.Process().children() if process.name() == "ssh"]
    client.kill()
    with Reader(Path(remote.path)) as reader:
        [run, *_] = reader.runs()
    with Writer(Path(remote.path)) as writer:
        writer.write([points(run, "loss", {3: 1.0, 4: 0.5})])
    later = [next(report for report in reports if report.problem is not None)]
    later.append(next(report for report in reports if report.n_points))
    assert [report.n_points for report in later] == [0, 2]
    reports.close()
    assert read_points(tmp_path / "mirror.db") == read_points(Path(remote.path))


def test_a_machine_without_labbench_or_without_the_database_is_named(
    server: psutil.Process, remote: RemoteDatabase, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="box: has no command `/no/labbench`"):
        pull(tmp_path / "mirror.db", remote, "/no/labbench")
    missing = RemoteDatabase("box", str(tmp_path / "missing.db"))
    with pytest.raises(StoreError, match=r"missing\.db"):
        pull(tmp_path / "mirror.db", missing, LABBENCH)
    server.kill()
    with pytest.raises(StoreError, match="box: cannot be reached by ssh"):
        pull(tmp_path / "mirror.db", remote, LABBENCH)
