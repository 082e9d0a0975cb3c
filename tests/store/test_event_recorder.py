"""Events of a driver while its database is locked, deleted or replaced."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.store_samples import new_run, points, queue, start, write_three_runs
from labbench.errors import StoreError
from labbench.records import Boundary, Finished, Log, Started
from labbench.store import event_recorder
from labbench.store.event_recorder import EventRecorder
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.writer import Writer


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_recorder, "RETRY_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(event_recorder, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(event_recorder, "OUTAGE_SECONDS", 0.1)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the database for writing, as another process may."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


def test_events_during_a_lock_are_kept_and_written_after_it(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        recorder = EventRecorder(writer, [run], is_interrupted=lambda: False)
        with locked(tmp_path / "runs.db"):
            recorder.add(points(run, "loss", [3.0, 2.0]))
            assert recorder.flush() is None
            assert recorder.send_heartbeat([run.key]) == [run.key]
            recorder.add(Finished(run.key, 1, "finished", "all epochs"))
            assert recorder.flush() is None
        assert len(recorder.close([]) or []) == 2
    assert recorder.problem is None
    with Reader(tmp_path / "runs.db") as reader:
        assert reader.series(run.key, "loss")[1].tolist() == [3.0, 2.0]
        assert reader.find(run.key).status == "finished"


@pytest.mark.parametrize("max_kept", [0, 1_000_000])
def test_events_that_cannot_be_written_at_last_are_spilled_and_merged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_kept: int
) -> None:
    monkeypatch.setattr(event_recorder, "MAX_KEPT_VALUES", max_kept)
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        [a, b] = start(writer, 2)
        recorder = EventRecorder(writer, [a, b], is_interrupted=lambda: False)
        with locked(path):
            recorder.add(Started(a.key, 1, "host", 1, "cpu", "stacked"))
            recorder.add(points(a, "loss", [3.0, float("nan")]))
            recorder.flush()
            for event in (Log(a.key, 1, "hello\n"), Boundary(b.key, 1, 7), Finished(a.key, 1, "diverged", "nan")):
                recorder.add(event)
            assert recorder.close([b.key]) == []
    assert "could not be written" in (recorder.problem or "")
    with Writer(path):
        pass
    with Reader(path) as reader:
        run = reader.find(a.key)
        assert (run.status, run.reason, run.way, run.summary["loss"].n) == ("diverged", "nan", "stacked", 2)
        assert "".join(reader.logs(a.key)).strip() == "hello"
        assert reader.find(b.key).boundary == 7
    assert not list(tmp_path.glob("*spilled*"))
    assert diagnose(path).is_sound


def test_spilled_events_are_merged_though_the_first_try_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_recorder, "MAX_KEPT_VALUES", 1)
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        [run] = start(writer)
        recorder = EventRecorder(writer, [run], is_interrupted=lambda: False)
        with locked(path):
            recorder.add(points(run, "loss", [3.0, 2.0]))
            assert recorder.flush() is None  # spilled
            assert recorder.flush() is None  # the merge fails
        recorder.add(Finished(run.key, 1, "finished", "all epochs"))
        assert len(recorder.close([]) or []) == 1
        assert not list(tmp_path.glob("*spilled*"))
    with Reader(path) as reader:
        assert reader.series(run.key, "loss")[1].tolist() == [3.0, 2.0]
        assert reader.find(run.key).status == "finished"


def test_events_that_are_written_before_a_claim_are_returned_by_the_next_flush(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        [waiting] = queue(writer, [new_run(8)])
        recorder = EventRecorder(writer, [run, waiting], is_interrupted=lambda: False)
        end = Finished(run.key, 1, "finished", "all epochs")
        recorder.add(end)
        assert recorder.perform(lambda writer: writer.claim([waiting.key]))
        assert recorder.flush() == [end]
        assert recorder.flush() == []


@pytest.mark.parametrize("replaced", [False, True])
def test_runs_go_on_in_the_new_file_after_the_database_was_deleted_or_replaced(tmp_path: Path, replaced: bool) -> None:
    path, other = tmp_path / "runs.db", write_three_runs(tmp_path / "other.db")
    with Writer(path) as writer:
        [run] = start(writer)
        [waiting] = queue(writer, [new_run(8)])
        recorder = EventRecorder(writer, [run, waiting], is_interrupted=lambda: False)
        recorder.add(points(run, "loss", [3.0]))
        recorder.flush()
        if replaced:
            other.replace(path)
        else:
            for file in tmp_path.glob("runs.db*"):
                file.unlink()
        recorder.add(points(run, "loss", {1: 2.0}))
        recorder.add(Finished(run.key, 1, "finished", "all epochs"))
        assert len(recorder.close([]) or []) == 2
    assert "deleted or replaced" in (recorder.problem or "")
    with Reader(path) as reader:
        assert reader.series(run.key, "loss")[1].tolist() == [3.0, 2.0]
        assert reader.find(waiting.key).status == "queued"
        assert len(reader.runs()) == (5 if replaced else 2)
    assert diagnose(path).is_sound
    assert not list(tmp_path.glob("*rescued*"))


def test_a_database_that_cannot_be_written_is_waited_for_once_and_not_for_each_stack(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        [run] = start(writer)
        recorder = EventRecorder(writer, [run], is_interrupted=lambda: False)
        tries: list[int] = []

        def tag(writer: Writer) -> str:
            tries[-1] += 1
            writer.tag([run.key], add=["seen"])
            return "done"

        def count_tries() -> int:
            tries.append(0)
            assert recorder.perform(tag) is None
            return tries[-1]

        with locked(path):
            assert count_tries() > 1
            assert [count_tries(), count_tries()] == [1, 1]
        assert recorder.problem is not None
        assert recorder.perform(tag) == "done"
        with locked(path):
            assert count_tries() > 1  # a new outage


def test_no_writer_writes_into_another_file_at_its_path(tmp_path: Path) -> None:
    path, other = tmp_path / "runs.db", write_three_runs(tmp_path / "other.db")
    before = other.read_bytes()
    with Writer(path) as writer:
        [run] = start(writer)
        other.replace(path)
        with pytest.raises(StoreError, match="deleted or replaced"):
            writer.note(run.key, "a note")
        writer.abandon()
    assert path.read_bytes() == before
