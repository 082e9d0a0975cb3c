"""Every transaction that changes a run raises its revision, and no other run's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.store_samples import new_run, points, queue, start
from labbench.importing.labbench_db import import_labbench
from labbench.records import Boundary, Finished, Log, Points
from labbench.store.maintenance.health import diagnose
from labbench.store.maintenance.imported_run import ImportedRun
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.reader import Reader
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import PrintedText, new_script_run
from labbench.store.scripts.spill import Spill
from labbench.store.writer import Writer


def revisions(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, revision FROM runs"))


def rewrites(path: Path) -> dict[tuple[str, str], int]:
    """Return the revisions of series by key of the run and name of the metric."""
    query = """
        SELECT key, metrics.name, s.revision FROM series_revisions AS s
        JOIN runs ON runs.id = run_id JOIN metrics ON metrics.id = metric_id
    """
    with closing(sqlite3.connect(path)) as connection:
        return {(key, metric): revision for key, metric, revision in connection.execute(query)}


def changed(before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    assert all(after[key] >= before[key] for key in before if key in after)
    return {key for key in after if after[key] != before.get(key)}


EDITS: dict[str, Callable[[MaintenanceWriter, str], object]] = {
    "points": lambda writer, key: writer.write([Points(key, 1, "loss", [7], [7], [0.5])]),
    "output": lambda writer, key: writer.write([Log(key, 1, "text\n")]),
    "boundary": lambda writer, key: writer.write([Boundary(key, 1, 3)]),
    "end": lambda writer, key: writer.write([Finished(key, 1, "finished", "all epochs")]),
    "heartbeat": lambda writer, key: writer.send_heartbeat([key]),
    "tag": lambda writer, key: writer.tag([key], add=["good"]),
    "untag": lambda writer, key: writer.tag([key], remove=["old"]),
    "note": lambda writer, key: writer.note(key, "look here"),
    "name": lambda writer, key: writer.rename(key, "new name"),
    "archive": lambda writer, key: writer.archive([key]),
    "requeue": lambda writer, key: writer.requeue([key]),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_change_raises_the_revision_of_its_run_only(path: Path, edit: Callable[..., object]) -> None:
    with MaintenanceWriter(path) as writer:
        first, second = start(writer, 2)
        writer.tag([first.key, second.key], add=["old"])
        before = revisions(path)
        edit(writer, first.key)
        assert changed(before, revisions(path)) == {first.key}
        [after] = {revision for key, revision in revisions(path).items() if key == first.key}
        assert after > max(before.values())


def test_a_transaction_that_changes_nothing_raises_no_revision(path: Path) -> None:
    with Writer(path) as writer:
        [run] = start(writer, 1)
        before = revisions(path)
        writer.tag([run.key], remove=["no such tag"])
        writer.write([])
        queue(writer, 1)
        assert revisions(path) == before
    Writer(path).close()
    assert revisions(path) == before


def test_a_transaction_raises_the_revision_of_all_its_runs_once(path: Path) -> None:
    with Writer(path) as writer:
        runs = start(writer, 3)
        before = revisions(path)
        writer.write([points(run, metric, [1.0, 2.0]) for run in runs[:2] for metric in ("loss", "score")])
        after = revisions(path)
        assert changed(before, after) == {run.key for run in runs[:2]}
        assert len({after[run.key] for run in runs[:2]}) == 1


def test_a_renamed_experiment_raises_the_revisions_of_its_runs(path: Path) -> None:
    with Writer(path) as writer:
        [run] = queue(writer, [new_run(1)])
        queue(writer, [new_run(2)], experiment="other")
        before = revisions(path)
        writer.rename_experiment("grid", "new name")
        assert changed(before, revisions(path)) == {run.key}


def test_a_removed_run_leaves_its_key_with_a_higher_revision(path: Path) -> None:
    """Also if the removed run has the highest revision, and the clock has not advanced since."""
    with Writer(path) as writer:
        first, second = queue(writer, 2)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE runs SET revision = revision + 10000000 WHERE key = ?", (second.key,))
        newest = max(revisions(path).values())
        writer.remove([second.key])
        with closing(sqlite3.connect(path)) as connection:
            [(revision, key)] = connection.execute("SELECT revision, key FROM removed_runs")
        assert (key, revision > newest) == (second.key, True)
        writer.note(first.key, "still here")
        assert revisions(path)[first.key] > revision


def test_scripts_and_spill_files_and_imports_raise_revisions(path: Path, tmp_path: Path) -> None:
    with ScriptWriter(path) as writer:
        run = writer.begin(new_script_run("script", "scripts", {}))
        before = revisions(path)
        writer.record(run, run, printed=[PrintedText(0.0, "stdout", "text\n")])
        assert changed(before, revisions(path)) == {run.key}
        before = revisions(path)
        spill = Spill(path, run)
        spill.append(run, [Points(run.key, 1, "loss", [0], [0], [1.0])])
        spill.close()
    Writer(path).close()
    assert changed(before, revisions(path)) == {run.key}
    with MaintenanceWriter(path) as maintainer, maintainer.importing() as importer:
        run_id = importer.begin(ImportedRun("csv", "hint", "imported", "imports"))
        assert run_id is not None
        importer.add_missing(run_id, "loss", [2, 1], [0, 0], [1.0, 2.0])
    assert len(changed(before, revisions(path))) == 2
    before = revisions(path)
    import_labbench(tmp_path / "copy.db", path)
    assert len(changed({}, revisions(tmp_path / "copy.db"))) == 2
    assert revisions(path) == before
    assert diagnose(path).is_sound
    assert diagnose(tmp_path / "copy.db").is_sound


def test_a_series_is_marked_unless_points_are_appended(path: Path) -> None:
    with Writer(path) as writer:
        [run] = start(writer, 1)
        series = (run.key, "loss")
        writer.write([points(run, "loss", {5: 1.0}), points(run, "score", {5: 1.0})])
        first = rewrites(path)
        writer.write([points(run, "loss", {6: 1.0, 7: 1.0})])
        assert rewrites(path) == first
        writer.write([points(run, "loss", {6: 2.0})])
        second = rewrites(path)
        assert second[series] > first[series]
        assert second[run.key, "score"] == first[run.key, "score"]
        writer.write([Boundary(run.key, 1, 5)])
        writer.requeue([run.key])
        [run] = writer.claim([run.key])
        third = rewrites(path)
        assert third[series] > second[series]
        assert third[run.key, "score"] == first[run.key, "score"]
        writer.retry([run.key])
    before = path.read_bytes()
    assert diagnose(path).is_sound
    assert path.read_bytes() == before


def test_another_database_at_the_path_has_other_revisions(path: Path, tmp_path: Path) -> None:
    for database in (path, tmp_path / "other.db"):
        with Writer(database) as writer:
            start(writer, 2)
    assert not set(revisions(path).values()) & set(revisions(tmp_path / "other.db").values())


def test_mirrored_runs_are_never_claimed_counted_or_judged(path: Path) -> None:
    with ScriptWriter(path) as script:
        mirrored = script.begin(new_script_run("mirrored", "grid", {}))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "UPDATE runs SET source = 'box:runs.db', origin = 'mirror', heartbeat = 0, pid = 1, identity = ?",
                (new_run(0).identity,),
            )
    with Writer(path) as writer, Reader(path) as reader:
        assert reader.find(mirrored.key).status == "running"
        assert writer.claim([mirrored.key], statuses=("running", "queued", "lost")) == []
        assert reader.identities("grid") == set()
        [run] = queue(writer, 1)
        assert run.key != mirrored.key
        for edit in (writer.retry, lambda keys: writer.request(keys[0], "stop")):
            with pytest.raises(Exception, match="mirrored from box"):
                edit([mirrored.key])
        writer.remove([mirrored.key])
    with ScriptWriter(path) as script:
        assert script.record(replace(mirrored, note="x"), mirrored) == "removed"
    with MaintenanceWriter(path) as maintainer:
        maintainer.vacuum()
