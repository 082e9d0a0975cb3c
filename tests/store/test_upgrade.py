"""Databases of earlier schemas: opened, read as they are, and upgraded by the first that writes.

`tests/databases/make.py` makes one of today's schema.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from helpers.store_samples import files_beside
from labbench.records import RunRecord
from labbench.store import schema
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.writer import Writer

pytest.importorskip("torch")

DATABASES = Path(__file__).parents[2] / "databases"
OLDER = sorted(DATABASES.glob("*.db"))


@pytest.fixture(params=OLDER, ids=lambda path: path.stem)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a database as an earlier schema has it, and of the grids that filled it."""
    shutil.copytree(DATABASES / "grids", tmp_path, dirs_exist_ok=True)
    return Path(shutil.copyfile(request.param, tmp_path / "runs.db"))


def content(path: Path) -> tuple[list[RunRecord], list[Any], list[list[str]], list[dict[str, str]]]:
    """All that a reader gives of the runs and their curves."""
    with Reader(path) as reader:
        runs = reader.runs("archived=true or archived=false")
        curves = [
            (run.key, metric, [array.tolist() for array in reader.series(run.key, metric)])
            for run in runs
            for metric in run.summary
        ]
        logs = [reader.logs(run.key) for run in runs]
        sources = [reader.sources(run.key) for run in runs]
    return runs, curves, logs, sources


def test_an_older_database_is_read_without_being_changed(older: Path) -> None:
    before = older.read_bytes()
    runs, curves, logs, _ = content(older)
    assert [run.experiment for run in runs] == ["blobs"] * 8 + ["digits"] * 2 + ["script"] * 2 + ["blobs"]
    assert [run.status for run in runs if run.status != "finished"] == ["diverged"]
    assert runs[0].tags == ("best", "paper")
    assert runs[0].note == "the one to compare with"
    assert [run.archived for run in runs].count(True) == 1
    assert {len(steps) for _, _, (steps, _) in curves} == {1, 2, 3, 4, 10, 1300}
    assert any("trained with 0.5" in text for texts in logs for text in texts)
    assert older.read_bytes() == before
    assert files_beside(older) == ["runs.db"]


def test_an_older_database_is_upgraded_by_the_first_writer_and_loses_nothing(older: Path) -> None:
    before = repr(content(older))  # in which NaN equals NaN
    Writer(older).close()
    assert repr(content(older)) == before
    with closing(sqlite3.connect(older)) as connection:
        assert schema.read_state(connection) == "current"
    assert diagnose(older).is_sound


@pytest.mark.parametrize("grid", ["blobs", "digits", "script"])
def test_a_grid_that_an_earlier_release_trained_has_nothing_to_do(
    older: Path, labbench: Callable[..., Result], grid: str
) -> None:
    result = labbench("run", f"{grid}.toml", "--workers", "0", "--db", older)
    assert result.exit_code == 0
    assert f"{grid}: nothing to do" in result.stderr


def test_a_changed_comment_trains_nothing_again_once_an_earlier_release_s_runs_are_known(
    older: Path, labbench: Callable[..., Result]
) -> None:
    run = ("run", "blobs.toml", "--workers", "0", "--db", older)
    assert "nothing to do" in labbench(*run).stderr
    task = older.parent / "task.py"
    task.write_text(f"# a comment\n{task.read_text()}")
    assert "blobs: nothing to do" in labbench(*run).stderr
    with Reader(older) as reader:
        runs = reader.runs("experiment=blobs archived=true,false")
    assert len({run.code_version for run in runs}) == 1
    assert not any(run.older_code for run in runs)


def test_runs_of_an_earlier_release_are_older_code_when_the_task_has_changed(
    older: Path, labbench: Callable[..., Result]
) -> None:
    task = older.parent / "task.py"
    task.write_text(task.read_text().replace("2.0 *", "3.0 *"))
    result = labbench("run", "blobs.toml", "--workers", "0", "--limit", "2", "--db", older)
    assert "task.py has changed: 2 runs train again" in result.stderr
    with Reader(older) as reader:
        runs = reader.runs("experiment=blobs archived=true,false")
    assert [run.older_code for run in runs] == [True] * 9 + [False] * 2


def test_a_driver_of_an_earlier_release_goes_on_while_a_later_one_reads_and_upgrades(older: Path) -> None:
    """What the first release writes, word for word, before and after the file has been upgraded."""
    queue = """
        INSERT INTO runs (key, experiment_id, name, origin, identity, task, config, stop, status, created) VALUES
            (?, 1, 'new', 'grid', ?, 'digits', '{}', NULL, 'queued', 0)
    """
    claim = "UPDATE runs SET status = 'running', heartbeat = ? WHERE key = ?"
    point = "INSERT OR REPLACE INTO points (run_id, metric_id, step, time_ms, value) VALUES (?, 1, ?, 0, 0.5)"
    with closing(sqlite3.connect(older, isolation_level=None)) as driver, Reader(older) as reader:
        driver.execute("PRAGMA journal_mode = wal")
        for number, key in enumerate(["aaaaaaaa", "bbbbbbbb"]):
            run_id = driver.execute(queue, (key, f"{number:064x}")).lastrowid
            driver.execute(claim, (time.time(), key))
            driver.execute(point, (run_id, 1))
            assert reader.find(key).code_version is None
            assert reader.find(key).older_code is False
            Writer(older).close()
        with closing(sqlite3.connect(older)) as connection:
            assert schema.read_state(connection) == "current"
        assert len(reader.runs("older_code=false archived=true,false")) == 15
