"""A database that cannot be written does not stop the training, and data is lost only if no file can be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import labbench
from helpers import scripts
from labbench.errors import InputError
from labbench.records import Points
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import new_script_run
from labbench.tracking import storage
from labbench.tracking.storage import Batch, Storage


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=512k", "none", folder]).returncode:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


SHORT_CLOSING = """
from labbench.tracking import writer_thread
writer_thread.CLOSING_SECONDS = 0.2
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


def script_with_file_limit(limit: int, steps: int) -> str:
    """Return a script that logs while no file may grow beyond `limit` bytes."""
    return f"{SHORT_CLOSING}LIMIT, STEPS = {limit}, {steps}\n{LIMITED}"


def test_data_beyond_a_file_size_limit_is_spilled_and_merged_later(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, script_with_file_limit(300_000, 6_000))
    assert result.returncode == 0
    assert "the run continues, and its data is buffered" in result.stderr
    assert "Traceback" not in result.stderr
    [spill] = scripts.spill_files(tmp_path)
    assert f"is in {spill}" in result.stderr
    assert scripts.only_run(tmp_path).status == "lost"  # its end is in the spill file
    scripts.merge_spill_files(tmp_path)
    record = scripts.only_run(tmp_path)
    assert (record.status, record.note, record.tags) == ("finished", "at the end", ("full",))
    assert (record.summary["loss"].n, record.summary["nan"].n_nonfinite) == (6_000, 6_000)
    with labbench.open(tmp_path / "runs.db") as db:
        assert db.series(record.key, "loss")[1].tolist() == [0.1 * step for step in range(6_000)]
    assert not spill.exists()


def test_lifted_file_size_limit_restores_normal_writing_without_loss(tmp_path: Path) -> None:
    code = script_with_file_limit(1_500_000, 40_000) + "\n".join(
        [
            "assert not run.flush() and any('spilled' in name for name in os.listdir())",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))",
            "while not run.flush(): time.sleep(0.05)",
        ]
    )
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0
    assert "can be written again" in result.stderr
    assert scripts.database_files(tmp_path) == ["runs.db"]
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n) == ("finished", 40_000)


def test_spilled_data_is_merged_though_the_first_try_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(storage, "_BUSY_SECONDS", 0.01)
    path = tmp_path / "runs.db"
    writer = ScriptWriter(path)
    run = writer.begin(new_script_run("run", "e", {}))
    destination = Storage(writer, run)
    batches = [Batch(run, [Points(run.key, 1, "loss", [step], [0], [0.5])], [], None, 1) for step in range(2)]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not destination.put(batches[0], immediately=True)
        assert destination.spill(batches[0])
        assert not destination.put(batches[1], immediately=True)  # the merge fails
        other.execute("ROLLBACK")
    assert destination.put(batches[1], immediately=True)
    assert scripts.spill_files(tmp_path) == []
    destination.close()
    assert scripts.only_run(tmp_path).summary["loss"].n == 2
    assert "can be written again" in capsys.readouterr().err


def test_full_disk_does_not_stop_the_training(small_disk: Path) -> None:
    code = """
    run = labbench.start(system_metrics=False)
    for step in range(60_000):
        run.log({"loss": 0.1 * step})
    print("trained")
    """
    result = scripts.run(small_disk, SHORT_CLOSING + textwrap.dedent(code))
    assert (result.returncode, result.stdout) == (0, "trained\n")
    assert "the disk is full" in result.stderr
    assert "log calls were lost" in result.stderr
    assert "Traceback" not in result.stderr
    (small_disk / "train.py").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    scripts.merge_spill_files(small_disk)
    summary = scripts.only_run(small_disk).summary["loss"]
    assert summary.n == summary.last_step + 1 > 1_000  # as many as fit on the disk, without a gap
    assert scripts.database_files(small_disk) == ["runs.db"]


def test_start_on_a_full_disk_fails_with_a_clear_message(small_disk: Path, tmp_path: Path) -> None:
    room = os.statvfs(small_disk)
    (small_disk / "big").write_bytes(bytes(room.f_bavail * room.f_frsize))
    result = scripts.run(tmp_path, "labbench.start(db='disk/runs.db')")
    assert result.returncode == 1
    assert "runs.db: the disk is full; free some space" in result.stderr.splitlines()[-1]


def test_deleted_database_is_recreated_with_all_data_of_the_run(tmp_path: Path) -> None:
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
        assert db.logs(record.key)[0] == "printed\n"
        assert db.goal("loss") == "max"
        assert db.series(record.key, "loss")[1][:20_000].tolist() == [0.1 * step for step in range(20_000)]
    assert scripts.database_files(tmp_path) == ["runs.db"]


def test_run_continues_in_a_database_that_replaced_its_own(tmp_path: Path) -> None:
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


def test_deleted_folder_does_not_stop_the_training(tmp_path: Path) -> None:
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
    result = scripts.run(tmp_path, SHORT_CLOSING + textwrap.dedent(code))
    assert (result.returncode, result.stdout) == (0, "trained\n")
    assert "log calls were lost" in result.stderr
    assert "Traceback" not in result.stderr


def test_training_continues_while_another_program_locks_the_database(tmp_path: Path) -> None:
    with scripts.begin_while_locked(tmp_path) as process:
        pass  # the training has not waited
    result = scripts.end(process)
    assert (result.returncode, result.stderr) == (0, "")
    assert scripts.only_run(tmp_path).summary["loss"].n == 1_000


def test_network_file_system_causes_a_warning_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labbench.store.connection.network_file_system", lambda path: "nfs4")
    with pytest.warns(UserWarning, match=r"runs.db is on a network file system \(nfs4\)"):
        run = labbench.start(db=tmp_path / "runs.db")
    for step in range(3_000):
        run.log({"loss": float(step)})
    run.finish()
    assert scripts.only_run(tmp_path).summary["loss"].n == 3_000
    assert scripts.database_files(tmp_path) == ["runs.db"]


@pytest.mark.parametrize(
    ("db", "message"),
    [
        ("nowhere/runs.db", "the folder .* does not exist"),
        (".", "this is a folder, not a database"),
        ("train.py", "this is not an SQLite database"),
        ("a" * 300, "no database can be opened at this path: File name too long"),
        ("a\0b", "no database can be opened at this path: embedded null"),
    ],
)
def test_start_rejects_a_database_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, db: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import labbench  # and so on\n" * 50)
    with pytest.raises(InputError, match=message):
        labbench.start(db=db)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_end_that_cannot_be_written_is_reported(small_disk: Path) -> None:
    code = """
    run = labbench.start(db="runs.db", system_metrics=False)
    run.flush()
    room = os.statvfs(".")
    open("big", "wb").write(bytes(room.f_bavail * room.f_frsize))
    run.finish()
    """
    result = scripts.run(small_disk, SHORT_CLOSING + textwrap.dedent(code))
    assert result.returncode == 0
    assert "its end was lost because no file could be written" in result.stderr
    assert "log calls" not in result.stderr.splitlines()[-1]
