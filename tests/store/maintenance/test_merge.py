"""Backup of a database during writes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import files_beside, points, read_tables, start
from labbench.errors import InputError
from labbench.importing.labbench_db import import_labbench
from labbench.records import Points
from labbench.store.maintenance.health import diagnose
from labbench.store.maintenance.merge import attach_read_only, back_up
from labbench.store.reader import Reader
from labbench.store.writer import Writer


def test_backup_during_writes_is_a_consistent_snapshot(path: Path, tmp_path: Path) -> None:
    with Writer(path) as writer:
        a, b = start(writer, 2)
        done = threading.Event()

        def copy() -> None:
            for number in range(5):
                back_up(path, tmp_path / f"copy{number}.db")
            done.set()

        thread = threading.Thread(target=copy)
        thread.start()
        step = 0
        while not done.is_set() or step < 100:
            writer.write([Points(run.key, 1, "loss", [step], [step], [0.5]) for run in (a, b)])
            step += 1
        thread.join()
    assert files_beside(tmp_path / "copy0.db") == ["copy0.db"]
    for number in range(5):
        assert diagnose(tmp_path / f"copy{number}.db").is_sound
        with Reader(tmp_path / f"copy{number}.db") as reader:
            assert len(reader.series(a.key, "loss")[0]) == len(reader.series(b.key, "loss")[0]) <= step


@pytest.mark.parametrize("limit", [1_000, 20_000, 60_000])
def test_a_backup_that_cannot_be_written_leaves_no_file(path: Path, limit: int) -> None:
    with Writer(path) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [0.5] * 5000)])
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from labbench.cli import main
main(["--db", {str(path)!r}, "backup", {str(path.with_name("copy.db"))!r}])
"""
    before = sorted(path.parent.iterdir())
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended.stderr
    assert sorted(path.parent.iterdir()) == before


def test_backup_does_not_overwrite_a_file(labbench: Callable[..., Result], other: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    result = labbench("backup", copy, "--db", other)
    assert (result.exit_code, "copy the folder" in result.stderr) == (0, True)
    assert read_tables(copy) == read_tables(other)
    assert labbench("backup", copy, "--db", other).exit_code == 2
    assert "does not exist" in labbench("backup", tmp_path / "no" / "copy.db", "--db", other).stderr
    assert labbench("backup", tmp_path / "x.db", "--db", "nothing.db").exit_code == 2
    assert not (tmp_path / "x.db").exists()


def test_backup_through_a_link_contains_what_is_still_in_the_write_ahead_log(path: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to("disk/runs.db")
    with Writer(tmp_path / "disk" / "runs.db") as writer:
        [run] = start(writer)
        writer.write([Points(run.key, 1, "loss", range(1000), range(1000), [0.5] * 1000)])
        back_up(link, tmp_path / "copy.db")
        import_labbench(path, link)
    for copy in (tmp_path / "copy.db", path):
        with Reader(copy) as reader:
            assert len(reader.series(run.key, "loss")[0]) == 1000


def test_an_error_during_a_merge_is_not_hidden_by_a_query_that_is_still_open(path: Path, tmp_path: Path) -> None:
    with Writer(path) as writer:
        start(writer, 3)
    back_up(path, tmp_path / "copy.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        cursor = connection.cursor()

        def read_and_fail() -> None:
            with attach_read_only(connection, tmp_path / "copy.db"):
                cursor.execute("SELECT * FROM other.runs").fetchone()
                raise InputError("the imported database is damaged")

        with pytest.raises(InputError, match="damaged"):
            read_and_fail()
