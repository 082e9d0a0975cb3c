"""Import of runs from another labbench database."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.store_samples import execute, new_run, points, queue, read_tables, start
from labbench.files import files_folder
from labbench.importing.labbench_db import import_labbench
from labbench.records import Finished, Points
from labbench.store.maintenance import merge
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import new_script_run
from labbench.store.writer import Writer
from labbench.system.clock import now


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
            execute(path, "UPDATE runs SET boot_id = 'another machine', heartbeat = heartbeat - 60")
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


def test_values_that_no_labbench_writes_are_refused_in_one_line(
    labbench: Callable[..., Result], path: Path, other: Path
) -> None:
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE runs SET config = 'failed' WHERE id = 1")
    result = labbench("import", "labbench", other, "--db", path)
    assert result.exit_code == 2
    assert "has values that labbench does not write" in result.stderr
    assert "the command `doctor` lists them" in result.stderr


def fork(tmp_path: Path, *, has_ids: bool = True) -> tuple[Path, Path, str]:
    """Return two databases in which one run went on after its database was copied, and its key.

    Without `has_ids`, as recorded by a release without ids of attempts.
    """
    a, b = tmp_path / "a.db", tmp_path / "b.db"
    with Writer(a) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [3.0])])
    shutil.copy(a, b)
    for number, path in enumerate((a, b)):
        with Writer(path) as writer:
            writer.write([points(run, "loss", {1: 2.0 - number}), Finished(run.key, 1, "finished", "all epochs")])
        execute(path, f"UPDATE runs SET pid = {number}, attempt = 2, heartbeat = heartbeat + 1 + {number}")
        ids = f"attempt_ids || ' {number}'" if has_ids else "NULL"
        execute(path, f"UPDATE runs SET attempt_ids = {ids}")
    return a, b, run.key


def all_points(path: Path) -> list[tuple[object, ...]]:
    with Reader(path) as reader:
        return sorted((run.key[:0], *map(float, reader.series(run.key, "loss")[1])) for run in reader.runs())


@pytest.mark.parametrize("has_ids", [True, False])
def test_a_run_that_went_on_in_both_databases_is_kept_twice(tmp_path: Path, has_ids: bool) -> None:
    a, b, key = fork(tmp_path, has_ids=has_ids)
    ab, ba = shutil.copy(a, tmp_path / "ab.db"), shutil.copy(b, tmp_path / "ba.db")
    assert len(import_labbench(ab, b).new) == len(import_labbench(ba, a).new) == 1
    for path, other in ((ab, b), (ba, a), (ab, ba), (ba, ab)):
        before = read_tables(path)
        assert dict(import_labbench(path, other).new) == {}
        assert read_tables(path) == before
    assert all_points(ab) == all_points(ba) == [("", 3.0, 1.0), ("", 3.0, 2.0)]
    with Reader(ab) as reader:
        first, second = reader.runs()
        assert (first.key, second.name) == (key, f"{first.name} (2)")
    assert diagnose(ab).is_sound


def log_attempt(path: Path, key: str, value: float) -> None:
    """Resume a script's run, log one value, and end it."""
    with ScriptWriter(path) as writer:
        run, last_step = writer.resume(key)
        record = Points(key, run.attempt, "loss", [(last_step or 0) + 1], [0], [value])
        writer.record(replace(run, status="finished", finished=now()), run, points=[record])


@pytest.mark.parametrize("is_first", [True, False])
def test_a_run_that_went_on_more_often_and_later_in_one_database_is_kept_twice(tmp_path: Path, is_first: bool) -> None:
    a, b = tmp_path / "a.db", tmp_path / "b.db"
    with ScriptWriter(a) as writer:
        run = writer.begin(new_script_run("run", "scripts", {}))
        writer.record(
            replace(run, status="finished", finished=now()), run, points=[Points(run.key, 1, "loss", [0], [0], [1.0])]
        )
    shutil.copy(a, b)
    log_attempt(b, run.key, 2.0)
    for value in (3.0, 4.0):
        log_attempt(a, run.key, value)
    target, source = (a, b) if is_first else (b, a)
    import_labbench(target, source)
    assert all_points(target) == [("", 1.0, 2.0), ("", 1.0, 3.0, 4.0)]
    assert not import_labbench(target, source).new


def test_the_next_import_brings_the_files_that_an_interrupted_one_did_not_copy(path: Path, other: Path) -> None:
    Writer(path).close()
    files_folder(path).write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        import_labbench(path, other)
    files_folder(path).unlink()
    assert import_labbench(path, other).n_same == 3
    assert len(list(files_folder(path).glob("*/model.safetensors"))) == 1


def test_runs_without_an_experiment_keep_their_points(path: Path, other: Path) -> None:
    execute(other, "UPDATE runs SET experiment_id = 77 WHERE id = 1")
    with Reader(other) as theirs:
        lost = set(theirs.keys())
    assert len(import_labbench(path, other).new) == 3
    with Reader(path) as reader:
        [run] = reader.runs("experiment=recovered")
        assert run.key not in lost
        assert run.summary["loss"].n > 0
    assert diagnose(path).is_sound


def test_an_import_lets_others_write_between_its_slices(
    path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "MAX_SLICE_POINTS", 1)
    monkeypatch.setattr(merge, "SLICE_PAUSE_SECONDS", 0.0)
    with Writer(path) as writer:
        seen = []

        def write_and_count(seconds: float) -> None:
            seen.append(len(queue(writer, [new_run(len(seen) + 10)])))

        monkeypatch.setattr("time.sleep", write_and_count)
        assert len(import_labbench(path, other).new) == 3
    assert len(seen) == 2
    assert diagnose(path).is_sound
