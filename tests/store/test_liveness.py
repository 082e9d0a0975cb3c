"""A run is lost if its process has ended; where the process cannot be seen, if its heartbeat is old."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from helpers import scripts
from helpers.waiting import wait_for
from labbench.store.liveness import ProcessIdentity, is_lost, this_process, uptime
from labbench.store.reader import Reader
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import new_script_run
from labbench.store.writer import Writer
from labbench.system import clock

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the start of a process and namespaces")

FRESH, OLD = 0.0, 3600.0
"""Ages of heartbeats in seconds."""


def lost(process: ProcessIdentity, age: float, uptime_age: float | None = None) -> bool:
    """Return `is_lost` of a run with the given ages of its heartbeat, on the time of day and on the uptime."""
    _, pid, boot_id, pid_namespace, pid_start = astuple(process)
    last_uptime = None if uptime_age is None else uptime() - uptime_age
    return is_lost(time.time() - age, last_uptime, boot_id, pid_namespace, pid, pid_start)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that sleeps."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def identify(pid: int) -> ProcessIdentity:
    """Return the identity of another process of this namespace."""
    from labbench.store.liveness import _read_stat

    return replace(this_process(), pid=pid, pid_start=_read_stat(pid)[1])


@linux
def test_live_process_is_not_lost_however_old_its_heartbeat(child: subprocess.Popen[bytes]) -> None:
    assert not lost(identify(child.pid), OLD, OLD)
    child.send_signal(signal.SIGSTOP)
    assert not lost(identify(child.pid), OLD, OLD)


@linux
def test_ended_process_is_lost_at_once(child: subprocess.Popen[bytes]) -> None:
    process = identify(child.pid)
    child.kill()
    wait_for(lambda: lost(process, FRESH, FRESH))  # although no parent has waited for it
    child.wait()
    assert lost(process, FRESH, FRESH)


@linux
def test_later_process_with_the_same_id_does_not_drive_the_run(child: subprocess.Popen[bytes]) -> None:
    process = identify(child.pid)
    assert process.pid_start is not None
    assert lost(replace(process, pid_start=process.pid_start - 100), FRESH, FRESH)


@linux
@pytest.mark.parametrize(
    "other",
    [
        {"pid_namespace": 1},
        {"boot_id": "another machine"},
        {"boot_id": None, "pid_namespace": None, "pid_start": None},  # recorded by a release without namespaces
    ],
)
def test_process_of_another_namespace_is_judged_by_its_heartbeat_alone(other: dict[str, object]) -> None:
    for pid in (os.getpid(), 2**22 - 1):  # the id means another process there, or none
        process = replace(this_process(), pid=pid, **other)
        assert not lost(process, 14.0)
        assert lost(process, 16.0)


@linux
def test_clock_of_a_container_may_be_wrong() -> None:
    process = replace(this_process(), pid_namespace=1)
    assert not lost(process, OLD, FRESH)
    assert lost(process, -OLD, OLD)  # its clock was ahead, and it has ended


def test_run_from_before_a_restart_of_the_machine_is_lost_without_a_boot_id() -> None:
    process = replace(this_process(), pid_namespace=1)
    assert lost(process, OLD, -OLD)


def test_clock_that_is_set_back_does_not_make_a_heartbeat_old(monkeypatch: pytest.MonkeyPatch) -> None:
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.now() >= before


def test_run_does_not_finish_before_it_starts(tmp_path: Path) -> None:
    code = """
    moved, real = 0.0, time.time
    time.time = lambda: real() + moved
    run = labbench.start("a", system_metrics=False, capture_output=True)
    run.log({"loss": 1.0})
    moved = -3600.0
    print("after the step")
    run.log({"loss": 0.5})
    run.finish()
    run = labbench.start(resume="a", system_metrics=False)
    run.log({"loss": 0.25})
    run.finish()
    """
    assert scripts.run(tmp_path, code).stderr == ""
    assert (
        scripts.run(
            tmp_path, code.replace("0.0, time", "-7200.0, time").replace('start("a",', 'start(resume="a",')
        ).stderr
        == ""
    )
    record = scripts.only_run(tmp_path)
    assert record.started is not None
    assert record.finished is not None
    assert record.finished >= record.started
    with Reader(tmp_path / "runs.db") as reader:
        assert min(reader.times(record.key, "loss")) >= 0


def test_run_in_a_container_is_running_outside_and_the_other_way_round(tmp_path: Path, container: list[str]) -> None:
    code = """
    run = labbench.start(system_metrics=False)
    print("ready", flush=True)
    while not os.path.exists("over"):
        run.log({"loss": 1.0})
        time.sleep(0.01)
    """
    list_runs = [sys.executable, "-c", "import labbench; print([r.status for r in labbench.open('runs.db').runs()])"]
    for prefix, reader in ((container, []), ([], container)):
        folder = tmp_path / f"in {len(prefix)}"
        folder.mkdir()
        process = scripts.begin(folder, code, prefix=prefix)
        scripts.wait_for(process, "ready")
        seen = subprocess.run([*reader, *list_runs], cwd=folder, capture_output=True, text=True)
        assert seen.stdout == "['running']\n"
        (folder / "over").touch()
        assert scripts.end(process).returncode == 0
        assert scripts.only_run(folder).status == "finished"


def test_driver_of_the_same_host_and_pid_in_another_container_is_another_one(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer, ScriptWriter(tmp_path / "runs.db") as script:
        run = script.begin(new_script_run("a", "e", {}))
        assert writer.send_heartbeat([run.key]) == [run.key]
        writer._connection.execute("UPDATE runs SET pid_namespace = 1")
        assert writer.send_heartbeat([run.key]) == []
