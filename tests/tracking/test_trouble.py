"""When the database cannot be written the training goes on, and nothing is lost while there is anywhere to put it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import labbench
from helpers import scripts
from labbench.errors import InputError
from labbench.records import Points
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import new_script_run
from labbench.store.scripts.spill import Spill
from labbench.store.writer import Writer


def take_in(folder: Path) -> None:
    """What the next program does that opens the database for writing."""
    with Writer(folder / "runs.db"):
        pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("runs.db"))


def spills(folder: Path) -> list[Path]:
    return list(folder.glob("runs.db.spilled-*.jsonl"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=512k", "none", folder]).returncode:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


IMPATIENT = """
from labbench.tracking import writer_thread as recorder
recorder.CLOSING_SECONDS = 0.2
"""

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
run = labbench.start(config={"lr": 0.1}, tags=["full"], system_metrics=False)
for step in range(STEPS):
    run.log({"loss": 0.1 * step, "nan": float("nan")})
    if step % 100 == 0:
        time.sleep(0.002)
run.note("at the end")
"""


def limited(limit: int, steps: int) -> str:
    """A script that logs while none of its files may grow beyond some bytes."""
    return f"{IMPATIENT}LIMIT, STEPS = {limit}, {steps}\n{LIMITED}"


def test_a_file_that_may_not_grow_is_spilled_and_taken_in_later(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, limited(300_000, 6_000))
    assert result.returncode == 0
    assert "the run goes on, and what it logs is kept" in result.stderr
    assert "Traceback" not in result.stderr
    [spill] = spills(tmp_path)
    assert f"is in {spill}" in result.stderr
    assert scripts.only_run(tmp_path).status == "lost"  # its end is in the spill
    take_in(tmp_path)
    record = scripts.only_run(tmp_path)
    assert (record.status, record.note, record.tags) == ("finished", "at the end", ("full",))
    assert (record.summary["loss"].n, record.summary["nan"].n_nonfinite) == (6_000, 6_000)
    with labbench.open(tmp_path / "runs.db") as db:
        assert db.series(record.key, "loss")[1].tolist() == [0.1 * step for step in range(6_000)]
    assert not spill.exists()


def test_room_that_comes_back_is_used_and_nothing_is_missing(tmp_path: Path) -> None:
    code = limited(1_500_000, 40_000) + "\n".join(
        [
            "assert not run.flush() and any('spilled' in name for name in os.listdir())",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))",
            "while not run.flush(): time.sleep(0.05)",
        ]
    )
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0
    assert "can be written again" in result.stderr
    assert names(tmp_path) == ["runs.db"]
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n) == ("finished", 40_000)


def test_a_full_disk_does_not_stop_the_training(small_disk: Path) -> None:
    code = """
    run = labbench.start(system_metrics=False)
    for step in range(60_000):
        run.log({"loss": 0.1 * step})
    print("trained")
    """
    result = scripts.run(small_disk, IMPATIENT + textwrap.dedent(code))
    assert (result.returncode, result.stdout) == (0, "trained\n")
    assert "the disk is full" in result.stderr
    assert "calls of log() are lost" in result.stderr
    assert "Traceback" not in result.stderr
    (small_disk / "train.py").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    take_in(small_disk)
    summary = scripts.only_run(small_disk).summary["loss"]
    assert summary.n == summary.last_step + 1 > 1_000  # as far as there was room, without a hole
    assert names(small_disk) == ["runs.db"]


def test_a_script_cannot_start_on_a_full_disk_and_says_so(small_disk: Path, tmp_path: Path) -> None:
    room = os.statvfs(small_disk)
    (small_disk / "big").write_bytes(bytes(room.f_bavail * room.f_frsize))
    result = scripts.run(tmp_path, "labbench.start(db='disk/runs.db')")
    assert result.returncode == 1
    assert "runs.db: the disk is full: make room" in result.stderr.splitlines()[-1]


def test_a_deleted_database_is_made_anew_with_all_that_the_run_had_logged(tmp_path: Path) -> None:
    code = """
    run = labbench.start("a run", experiment="e", config={"lr": 0.1}, tags=["t"], capture_output=True)
    for step in range(20_000):
        run.log({"loss": 0.1 * step, "nan": float("nan")})
    print("printed")
    run.define_metric("loss", goal="max")
    run.flush()
    for name in ("runs.db", "runs.db-wal", "runs.db-shm"):
        os.unlink(name)
    for step in range(1_000):
        run.log({"loss": 1.0})
    """
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0
    assert "runs.db was deleted or replaced: run" in result.stderr
    record = scripts.only_run(tmp_path)
    assert (record.name, record.experiment, record.config, record.tags) == ("a run", "e", {"lr": 0.1}, ("t",))
    assert (record.status, record.summary["loss"].n, record.summary["nan"].n_nonfinite) == ("finished", 21_000, 20_000)
    with labbench.open(tmp_path / "runs.db") as db:
        assert db.logs(record.key)[0] == "printed"
        assert db.goal("loss") == "max"
        assert db.series(record.key, "loss")[1][:20_000].tolist() == [0.1 * step for step in range(20_000)]
    assert names(tmp_path) == ["runs.db"]


def test_a_database_that_is_replaced_by_another_takes_the_run_beside_its_own(tmp_path: Path) -> None:
    code = """
    run = labbench.start("mine")
    for step in range(100):
        run.log({"loss": 1.0})
    run.flush()
    os.rename("other.db", "runs.db")
    for step in range(100):
        run.log({"loss": 1.0})
    """
    with ScriptWriter(tmp_path / "other.db") as writer:
        writer.begin(new_script_run("other", "e", {}))
    assert scripts.run(tmp_path, code).returncode == 0
    with labbench.open(tmp_path / "runs.db") as db:
        assert [(run.name, {name: s.n for name, s in run.summary.items()}) for run in db.runs()] == [
            ("other", {}),
            ("mine", {"loss": 200}),
        ]
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_folder_that_is_gone_does_not_stop_the_training(tmp_path: Path) -> None:
    code = """
    import shutil
    os.mkdir("folder")
    run = labbench.start(db="folder/runs.db", system_metrics=False)
    run.log({"loss": 1.0})
    run.flush()
    shutil.rmtree("folder")
    for step in range(30_000):
        run.log({"loss": 1.0})
    print("trained")
    """
    result = scripts.run(tmp_path, IMPATIENT + textwrap.dedent(code))
    assert (result.returncode, result.stdout) == (0, "trained\n")
    assert "calls of log() are lost" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_that_another_program_locks_is_waited_for(tmp_path: Path) -> None:
    code = """
    run = labbench.start(system_metrics=False)
    run.flush()
    print("ready", flush=True)
    while not os.path.exists("locked"):
        time.sleep(0.01)
    for step in range(1_000):
        run.log({"loss": 1.0})
    print("trained", flush=True)
    """
    process = scripts.begin(tmp_path, code)
    scripts.wait_for(process, "ready")
    connection = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    (tmp_path / "locked").touch()
    scripts.wait_for(process, "trained")  # the training does not wait
    connection.execute("ROLLBACK")
    connection.close()
    result = scripts.end(process)
    assert (result.returncode, result.stderr) == (0, "")
    assert scripts.only_run(tmp_path).summary["loss"].n == 1_000


def test_a_network_file_system_is_warned_of_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labbench.store.connection.network_file_system", lambda path: "nfs4")
    with pytest.warns(UserWarning, match=r"runs.db is on a network file system \(nfs4\)"):
        run = labbench.start(db=tmp_path / "runs.db")
    for step in range(3_000):
        run.log({"loss": float(step)})
    run.finish()
    assert scripts.only_run(tmp_path).summary["loss"].n == 3_000
    assert names(tmp_path) == ["runs.db"]


def spilled(folder: Path, steps: int = 3) -> Path:
    """A spill of a run that the database may not know."""
    run = replace(new_script_run("spilled", "e", {"lr": 0.1}), key="abcdefgh", status="failed", finished=time.time())
    spill = Spill(folder / "runs.db", run)
    spill.add(run, [Points("abcdefgh", 1, "loss", [*range(steps)], [0] * steps, [0.5] * steps)])
    spill.close()
    return spill.path


def test_a_spill_whose_process_was_killed_over_it_is_taken_in_up_to_the_torn_line(tmp_path: Path) -> None:
    with spilled(tmp_path).open("ab") as file:
        file.write(b'{"points": {"metric": "loss", "st')
    take_in(tmp_path)
    assert scripts.only_run(tmp_path).summary["loss"].n == 3
    assert names(tmp_path) == ["runs.db"]


def test_a_spill_is_taken_in_once_whoever_opens_the_database_meanwhile(tmp_path: Path) -> None:
    path = spilled(tmp_path)
    again = path.read_bytes()
    take_in(tmp_path)
    path.write_bytes(again)
    take_in(tmp_path)
    assert scripts.only_run(tmp_path).summary["loss"].n == 3


def test_a_spill_of_an_earlier_attempt_changes_nothing(tmp_path: Path) -> None:
    with ScriptWriter(tmp_path / "runs.db") as writer:
        spilled(tmp_path)
        writer.take_in_spilled()
        assert writer.resume("abcdefgh")[0].attempt == 2
        spilled(tmp_path, steps=100)
        writer.take_in_spilled()
    assert scripts.only_run(tmp_path).summary["loss"].n == 3
    assert names(tmp_path) == ["runs.db"]


def test_a_damaged_spill_is_left_where_it_is_with_a_warning(tmp_path: Path) -> None:
    path = spilled(tmp_path)
    path.write_bytes(b'{"points": 3}\n')
    with pytest.warns(UserWarning, match="not taken into the database, it is damaged"):
        take_in(tmp_path)
    assert path.exists()


def test_a_spill_that_its_process_still_writes_is_left_alone(tmp_path: Path) -> None:
    run = replace(new_script_run("spilled", "e", {}), key="abcdefgh")
    spill = Spill(tmp_path / "runs.db", run)
    spill.add(run)
    take_in(tmp_path)
    assert spills(tmp_path) == [spill.path]
    spill.close()
    take_in(tmp_path)
    assert spills(tmp_path) == []


@pytest.mark.parametrize(
    ("db", "message"),
    [
        ("nowhere/runs.db", "there is no folder"),
        (".", "this is a folder, not a database"),
        ("train.py", "this is not an SQLite database"),
        ("a" * 300, "no database can be opened there: File name too long"),
        ("a\0b", "no database can be opened there: embedded null"),
    ],
)
def test_a_database_that_cannot_be_opened_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, db: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import labbench  # and so on\n" * 50)
    with pytest.raises(InputError, match=message):
        labbench.start(db=db)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]
