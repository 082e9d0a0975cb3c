"""Databases of earlier schemas are read without changes and upgraded by the first writer.

`tests/databases/make.py` creates a database of the present schema.
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

from helpers.store_samples import execute, files_beside
from labbench.records import RunRecord
from labbench.store import schema
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.writer import Writer

pytest.importorskip("torch")

DATABASES = Path(__file__).parents[1] / "databases"
OLDER = sorted(DATABASES.glob("*.db"))
assert OLDER


@pytest.fixture(params=OLDER, ids=lambda path: path.stem)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Copy a database of an earlier schema and the grids that filled it."""
    shutil.copytree(DATABASES / "grids", tmp_path, dirs_exist_ok=True)
    return Path(shutil.copyfile(request.param, tmp_path / "runs.db"))


def require_code_version(older: Path) -> None:
    """Skip a test of the first schema, whose identities of runs depend on the bytes of the task."""
    with closing(sqlite3.connect(older)) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(runs)")]
    if "code_version" not in columns:
        pytest.skip("the imports of the task have moved since the first schema")


def read_content(path: Path) -> tuple[list[RunRecord], list[Any], list[list[str]], list[dict[str, str]]]:
    """Return all that a reader returns about the runs and their curves."""
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


def test_reading_an_older_database_does_not_change_it(older: Path) -> None:
    before = older.read_bytes()
    runs, curves, logs, _ = read_content(older)
    assert [run.experiment for run in runs] == ["blobs"] * 8 + ["digits"] * 2 + ["script"] * 2 + ["blobs"]
    assert [run.status for run in runs if run.status != "finished"] == ["diverged"]
    assert runs[0].tags == ("best", "paper")
    assert runs[0].note == "the one to compare with"
    assert [run.archived for run in runs].count(True) == 1
    assert {len(steps) for _, _, (steps, _) in curves} == {1, 2, 3, 4, 10, 1300}
    assert any("trained with 0.5" in text for texts in logs for text in texts)
    assert older.read_bytes() == before
    assert files_beside(older) == ["runs.db"]


def test_first_writer_upgrades_an_older_database_without_loss(older: Path) -> None:
    before = repr(read_content(older))  # text, so that NaN equals NaN
    Writer(older).close()
    assert repr(read_content(older)) == before
    with closing(sqlite3.connect(older)) as connection:
        assert schema.read_state(connection) == "current"
    assert diagnose(older).is_sound


def test_a_finished_run_with_a_last_loss_of_nan_has_diverged_before_and_after_the_upgrade(older: Path) -> None:
    execute(older, "UPDATE summary SET last = NULL WHERE metric_id = (SELECT id FROM metrics WHERE name = 'loss')")
    for _ in range(2):
        with Reader(older) as reader:
            runs = reader.runs("experiment=script")
            assert {run.status for run in runs} == {"diverged"}
            assert all((run.reason or "").startswith("non-finite loss at step ") for run in runs)
            assert reader.status_counts("experiment=script") == {"diverged": len(runs)}
        Writer(older).close()


@pytest.mark.parametrize("grid", ["blobs", "digits", "script"])
def test_grid_trained_by_an_earlier_release_has_nothing_to_do(
    older: Path, labbench: Callable[..., Result], grid: str
) -> None:
    if grid == "blobs":
        require_code_version(older)
    result = labbench("run", f"{grid}.toml", "--workers", "0", "--db", older)
    assert result.exit_code == 0
    assert f"{grid}: nothing to do" in result.stderr


def test_changed_comment_does_not_retrain_runs_of_an_earlier_release(
    older: Path, labbench: Callable[..., Result]
) -> None:
    require_code_version(older)
    run = ("run", "blobs.toml", "--workers", "0", "--db", older)
    assert "nothing to do" in labbench(*run).stderr
    task = older.parent / "task.py"
    task.write_text(f"# a comment\n{task.read_text()}")
    assert "blobs: nothing to do" in labbench(*run).stderr
    with Reader(older) as reader:
        runs = reader.runs("experiment=blobs archived=true,false")
    assert len({run.code_version for run in runs}) == 1
    assert not any(run.older_code for run in runs)


def test_changed_task_makes_runs_of_an_earlier_release_older_code(older: Path, labbench: Callable[..., Result]) -> None:
    task = older.parent / "task.py"
    task.write_text(task.read_text().replace("2.0 *", "3.0 *"))
    result = labbench("run", "blobs.toml", "--workers", "0", "--limit", "2", "--db", older)
    assert "task.py has changed: 2 runs train again" in result.stderr
    with Reader(older) as reader:
        runs = reader.runs("experiment=blobs archived=true,false")
    assert [run.older_code for run in runs] == [True] * 9 + [False] * 2


def test_driver_of_an_earlier_release_can_write_after_an_upgrade(older: Path) -> None:
    """Execute the SQL of the first release, before and after the upgrade of the file."""
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
