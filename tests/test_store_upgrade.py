"""Databases of earlier schemas: opened, read as they are, and upgraded by the first that writes.

`tests/databases/make.py` makes one of today's schema.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from labbench.records import RunRecord
from labbench.store import schema
from labbench.store.health import examine
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from store_samples import files_beside

pytest.importorskip("torch")

DATABASES = Path(__file__).parent / "databases"
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
        assert schema.state(connection) == "current"
    assert examine(older).is_sound


@pytest.mark.parametrize("grid", ["blobs", "digits", "script"])
def test_a_grid_that_an_earlier_release_trained_has_nothing_to_do(
    older: Path, labbench: Callable[..., Result], grid: str
) -> None:
    result = labbench("run", f"{grid}.toml", "--workers", "0", "--db", older)
    assert result.exit_code == 0
    assert f"{grid}: nothing to do" in result.stderr
