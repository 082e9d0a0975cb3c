"""Maintenance of a database: health check, repair, backup during writes, and merge of other databases."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.store_samples import files_beside, new_run, points, queue, start
from labbench.files import files_folder
from labbench.importing.labbench_db import import_labbench
from labbench.records import Finished, Points
from labbench.store.maintenance.health import SeriesId, diagnose
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.maintenance.merge import back_up
from labbench.store.reader import Reader
from labbench.store.writer import Writer

LONG = np.random.default_rng(0).normal(size=30_000).tolist()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Create a database of three runs: one finished, with a long series and a file, one stopped, one queued."""
    path = tmp_path / "other.db"
    with Writer(path) as writer:
        a, b, _ = queue(
            writer, [new_run(0, name="a"), new_run(1, name="b"), new_run(2, name="c")],
            metrics={"score": "max"}, sources={"grid": "text of the grid"},
        )  # fmt: skip
        writer.claim([a.key, b.key])
        writer.write([points(a, "score", LONG), points(a, "loss", [1.0, float("nan")]), points(b, "loss", [3.0])])
        writer.write([Finished(a.key, 1, "finished", "all epochs"), Finished(b.key, 1, "stopped", "by a person")])
        writer.tag([a.key], add=["good"])
        writer.note(a.key, "look here")
        folder = files_folder(path) / a.key
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    return path


def execute(path: Path, statement: str) -> None:
    """Execute a statement that labbench itself would not."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def read_tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables}


def test_database_written_by_labbench_is_sound(other: Path) -> None:
    before = other.read_bytes()
    diagnosis = diagnose(other)
    assert diagnosis.is_sound
    assert diagnosis.n_series == 3
    assert other.read_bytes() == before
    assert files_beside(other) == ["other.db", "other.db.files"]


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("UPDATE summary SET min = min - 1 WHERE metric_id = 1", [SeriesId(1, 1)]),
        ("DELETE FROM summary WHERE run_id = 1", [SeriesId(1, 1), SeriesId(1, 2)]),
        ("UPDATE points SET value = 99 WHERE metric_id = 1 AND step = 12345", [SeriesId(1, 1)]),
        ("DELETE FROM points WHERE metric_id = 1 AND step BETWEEN 100 AND 200", [SeriesId(1, 1)]),
        ("DELETE FROM points WHERE run_id = 2", [SeriesId(2, 2)]),
        ("DELETE FROM rollup WHERE level = 2", [SeriesId(1, 1)]),
        ("UPDATE rollup SET buckets = zeroblob(3840) WHERE level = 1", [SeriesId(1, 1)]),
        ("UPDATE rollup SET level = 7 WHERE level = 2", [SeriesId(1, 1)]),
        (
            "INSERT INTO rollup SELECT 2, 2, 1, first_step, last_step, buckets FROM rollup WHERE level = 1",
            [SeriesId(2, 2)],
        ),
    ],
)
def test_summaries_and_rollups_that_do_not_match_the_points_are_found_and_repaired(
    other: Path, statement: str, wrong: list[SeriesId]
) -> None:
    sound = read_tables(other)
    execute(other, statement)
    diagnosis = diagnose(other)
    assert list(diagnosis.wrong) == wrong
    with MaintenanceWriter(other) as writer:
        writer.repair(diagnosis)
    assert diagnose(other).is_sound
    if "points" not in statement:
        assert read_tables(other) == {**sound, "rollup": read_tables(other)["rollup"]}


def test_orphan_rows_are_deleted_and_stray_folders_only_reported(other: Path) -> None:
    sound = read_tables(other)
    execute(other, "INSERT INTO points VALUES (77, 1, 0, 0, 0.5)")
    execute(other, "INSERT INTO points VALUES (1, 77, 0, 0, 0.5)")
    execute(other, "INSERT INTO tags VALUES (77, 'gone')")
    stray = files_folder(other) / "nobody"
    stray.mkdir()
    diagnosis = diagnose(other)
    assert dict(diagnosis.orphans) == {"points": 2, "tags": 1}
    assert list(diagnosis.stray_folders) == [stray]
    with MaintenanceWriter(other) as writer:
        writer.repair(diagnosis)
    assert diagnose(other).is_sound
    assert read_tables(other) == sound
    assert stray.is_dir()


def test_damaged_file_is_reported(other: Path) -> None:
    content = bytearray(other.read_bytes())
    content[40 * 4096 : 48 * 4096] = bytes(8 * 4096)
    other.write_bytes(content)
    diagnosis = diagnose(other)
    assert diagnosis.damage
    assert not diagnosis.is_sound


def test_doctor_command_reports_and_repairs(labbench: Callable[..., Result], other: Path) -> None:
    assert "sound; 3 series agree with their points" in labbench("--db", other, "doctor").stdout
    execute(other, "UPDATE summary SET n = n + 1")
    result = labbench("doctor", "--db", other)
    assert (result.exit_code, result.stdout) == (1, "the summaries of 3 of 3 series are wrong: --fix repairs it\n")
    assert labbench("doctor", "--fix", "--db", other).exit_code == 0
    assert labbench("doctor", "--db", other).exit_code == 0
    assert labbench("doctor", "--db", "nothing.db").exit_code == 2


def test_vacuum_shrinks_the_file_and_is_refused_while_runs_are_running(
    labbench: Callable[..., Result], other: Path
) -> None:
    size = other.stat().st_size
    with Writer(other) as writer:
        [running] = start(writer, [new_run(9)])
        assert "1 runs are running" in labbench("vacuum", "--db", other).stderr
        writer.write([Finished(running.key, 1, "finished", "all epochs")])
        writer.remove([run.key for run in queue(writer, [new_run(0)])])
    assert "MB now" in labbench("vacuum", "--db", other).stdout
    assert other.stat().st_size < size / 5
    assert diagnose(other).is_sound
    assert labbench("vacuum", "--db", "nothing.db").exit_code == 2
    assert not Path("nothing.db").exists()


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


def test_backup_does_not_overwrite_a_file(labbench: Callable[..., Result], other: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    result = labbench("backup", copy, "--db", other)
    assert (result.exit_code, "copy the folder" in result.stderr) == (0, True)
    assert read_tables(copy) == read_tables(other)
    assert labbench("backup", copy, "--db", other).exit_code == 2
    assert "does not exist" in labbench("backup", tmp_path / "no" / "copy.db", "--db", other).stderr
    assert labbench("backup", tmp_path / "x.db", "--db", "nothing.db").exit_code == 2
    assert not (tmp_path / "x.db").exists()


def test_import_copies_all_data_of_a_run_and_its_key(path: Path, other: Path) -> None:
    with Writer(path) as writer:
        queue(writer, [new_run(5)], metrics={"other": "min"}, experiment="mine")
    merged = import_labbench(path, other)
    with Reader(path) as ours, Reader(other) as theirs:
        assert merged.new == {key: key for key in theirs.keys()}  # noqa: SIM118
        for run in theirs.runs():
            local = ours.find(run.key)
            assert repr(replace(local, id=run.id)) == repr(run)
            assert ours.sources(run.key) == theirs.sources(run.key)
        for our_point, their_point in zip(ours.points("experiment=grid"), theirs.points(), strict=True):
            assert repr(our_point) == repr(their_point)
        assert ours.metrics()["score"] == "max"
        assert [tuple(run.tags) for run in ours.runs("tag=good")] == [("good",)]
        [a] = ours.runs("name=a")
    assert (files_folder(path) / a.key / "model.safetensors").read_bytes() == b"weights"
    assert diagnose(path).is_sound


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.dictionaries(st.integers(0, 3000), st.floats())), max_size=6
    )
)
def test_repeated_import_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[bool, int, dict[int, float]]]
) -> None:
    """Runs may be in either database, or with the same config in both."""
    folder = tmp_path_factory.mktemp("import")
    here, there = folder / "here.db", folder / "there.db"
    for path in (here, there):
        with Writer(path) as writer:
            for is_there, number, series in plan:
                if is_there == (path == there):
                    [run] = queue(writer, [new_run(number)], rerun=bool(series))
                    for claimed in writer.claim([run.key]):
                        writer.write([points(claimed, "loss", series), Finished(run.key, 1, "finished", "so")])
    first = import_labbench(here, there)
    after_first = read_tables(here)
    second = import_labbench(here, there)
    assert (second.new, second.newer, second.n_same) == ({}, {}, len(first.new))
    assert read_tables(here) == after_first
    assert diagnose(here).is_sound
    with Reader(here) as ours, Reader(there) as theirs:
        for run in theirs.runs():
            for metric in run.summary:
                np.testing.assert_array_equal(ours.series(first.new[run.key], metric), theirs.series(run.key, metric))


def test_import_updates_a_newer_run_and_keeps_local_edits(path: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.db"
    with Writer(there) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [3.0, 2.0])])
        assert len(import_labbench(path, there).new) == 1
        with Writer(path) as ours:
            ours.tag([run.key], add=["mine"])
            ours.note(run.key, "seen")
            execute(path, "UPDATE runs SET host = 'another machine', heartbeat = heartbeat - 60")
        writer.write([points(run, "loss", {2: 1.0}), Finished(run.key, 1, "finished", "all epochs")])
        merged = import_labbench(path, there)
        assert (dict(merged.new), dict(merged.newer)) == ({}, {run.key: run.key})
    with Reader(path) as reader:
        local = reader.find(run.key)
        assert (local.status, local.tags, local.note) == ("finished", ("mine",), "seen")
        assert reader.series(run.key, "loss")[1].tolist() == [3.0, 2.0, 1.0]
    assert import_labbench(path, there).n_same == 1


def test_imported_run_with_a_taken_key_gets_a_new_key_and_is_recognized_later(path: Path, other: Path) -> None:
    with Reader(other) as reader:
        [run] = reader.runs("name=a")
    with Writer(path) as writer:
        queue(writer, [new_run(50)])
    execute(path, f"UPDATE runs SET key = '{run.key}'")
    merged = import_labbench(path, other)
    assert merged.new[run.key] != run.key
    assert (files_folder(path) / merged.new[run.key] / "model.safetensors").is_file()
    assert import_labbench(path, other).n_same == 3


def test_import_rejects_invalid_databases_without_changes(
    labbench: Callable[..., Result], path: Path, other: Path, tmp_path: Path
) -> None:
    shutil.copy(other, path)
    before = read_tables(path)
    (tmp_path / "text.db").write_text("no database at all, but a text of some length" * 100)
    for bad, message in (("nothing.db", "no such database"), ("text.db", "not an SQLite database"), (path, "itself")):
        result = labbench("import", "labbench", bad, "--db", path)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert read_tables(path) == before
    assert labbench("import", "labbench", "nothing.db", "--db", "new.db").exit_code == 2
    assert not Path("new.db").exists()
    result = labbench("import", "labbench", other, "--db", path).stdout
    assert result == "imported 0 new runs, updated 0, 3 already present\n"
