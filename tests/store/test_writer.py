"""`Writer`: queue, claim, end, edit and remove runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.store_samples import new_run, points, queue, start
from labbench.errors import InputError, RunNotFound, StoreError
from labbench.records import Boundary, Failed, Finished, Log, NewRun, Started, Stop
from labbench.store import liveness
from labbench.store.reader import Reader
from labbench.store.recording.queue import insert_run
from labbench.store.writer import Writer
from labbench.system.provenance import Provenance


def run_in_another_process(program: str) -> str:
    paths = f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    imports = "from labbench.store.writer import Writer\nfrom helpers.store_samples import *\n"
    return subprocess.run(
        [sys.executable, "-c", paths + imports + program], check=True, capture_output=True, text=True
    ).stdout


def test_queueing_a_grid_again_inserts_only_missing_runs(writer: Writer) -> None:
    first = queue(writer, [new_run(1), new_run(2)])
    again = queue(writer, [new_run(2), new_run(3), new_run(1)])
    assert [run.id for run in again][::2] == [first[1].id, first[0].id]
    assert again[1].key not in {run.key for run in first}
    assert [run.status for run in again] == ["queued"] * 3


def test_identities_are_unique_per_experiment(writer: Writer) -> None:
    [here] = queue(writer, experiment="a")
    [there] = queue(writer, experiment="b")
    assert here.id != there.id
    assert (here.experiment, there.experiment) == ("a", "b")


def test_rerun_inserts_new_runs_and_the_grid_keeps_its_own(writer: Writer) -> None:
    [run] = queue(writer)
    [second] = queue(writer, rerun=True)
    [third] = queue(writer, rerun=True)
    assert len({run.id, second.id, third.id}) == 3
    assert [record.id for record in queue(writer)] == [run.id]
    writer.remove([run.key])
    assert queue(writer)[0].id in (second.id, third.id)  # one result serves both


def test_queue_returns_complete_records_in_order(writer: Writer) -> None:
    configs = [
        {"lr": 0.1, "hidden": [128, 64], "bn": True, "schedule": None, "ü": "é\n\"'\\"},
        {},
        {"clip": float("inf")},
    ]
    runs = [NewRun(f"run {i}", config, f"{i}") for i, config in enumerate(configs)]
    records = queue(writer, runs, task="digits")
    assert [run.config for run in records] == configs
    assert [(run.name, run.identity, run.task, run.attempt, run.boundary) for run in records] == [
        (f"run {i}", f"{i}", "digits", 1, 0) for i in range(3)
    ]
    assert records[0].started is None
    assert records[0].seconds is None


def test_any_config_is_stored_as_json_that_sqlite_reads(writer: Writer, reader: Reader) -> None:
    config = {
        "nan": float("nan"),
        "minus": float("-inf"),
        "deep": [{"x": float("inf")}],
        "half": "a\udc80",
        "mark": "\0",
    }
    [run] = queue(writer, [NewRun("odd \udc80", config, "1")])
    assert run.config == {**config, "nan": "nan", "half": "a?"}
    assert run.name == "odd ?"
    assert reader.runs("minus<0") == [run]


def test_keys_are_eight_unambiguous_characters_and_never_a_number(writer: Writer) -> None:
    keys = [run.key for run in queue(writer, 500)]
    assert len(set(keys)) == 500
    assert all(len(key) == 8 and key.isalnum() and key[0].isalpha() and key == key.lower() for key in keys)
    assert not set("01ilo") & set("".join(keys))


def test_sources_are_stored_once_and_updated_until_a_run_starts(writer: Writer, reader: Reader) -> None:
    [started, waiting] = queue(writer, 2, sources={"grid": "old", "task": "code"})
    writer.claim([started.key])
    queue(writer, 3, sources={"grid": "new", "task": "code"})
    assert reader.sources(started.key) == {"grid": "old", "task": "code"}
    assert reader.sources(waiting.key) == {"grid": "new", "task": "code"}
    count = "SELECT count(*) FROM sources"
    assert writer._connection.execute(count).fetchone() == (3,)
    writer.remove([started.key])
    assert writer._connection.execute(count).fetchone() == (2,)


def test_goal_comes_from_metrics_else_from_stop_else_from_the_name(writer: Writer, reader: Reader) -> None:
    [run] = queue(writer, metrics={"f1": "max"}, stop=Stop("reward", "min", patience=3))
    queue(writer, metrics={}, stop=Stop("f1", "min", patience=3))  # [stop] does not overrule [metrics]
    writer.claim([run.key])
    writer.write([points(run, metric, [1.0]) for metric in ("reward", "f1", "val/loss", "speed")])
    writer.define_metric("speed", "min")
    assert reader.metrics() == {"f1": "max", "reward": "min", "val/loss": "min", "speed": "min"}
    assert (reader.goal("reward"), reader.goal("never/error")) == ("min", "min")


def test_each_run_is_claimed_once(writer: Writer, path: Path) -> None:
    keys = [run.key for run in queue(writer, 3)]
    with Writer(path) as other:
        assert [run.key for run in other.claim([keys[1], "nobodys", keys[1]])] == [keys[1]]
    claimed = writer.claim(keys, source=Provenance("abc", True, "", {"torch": "2.13"}))
    assert [run.key for run in claimed] == [keys[0], keys[2]]
    assert [(run.status, run.attempt, run.pid, run.host) for run in claimed] == [
        ("running", 1, os.getpid(), liveness.HOST)
    ] * 2
    assert (claimed[0].git_commit, claimed[0].git_dirty, claimed[0].versions) == ("abc", True, {"torch": "2.13"})
    assert writer.claim(keys) == []


def test_two_processes_never_claim_the_same_run(writer: Writer, path: Path) -> None:
    keys = [run.key for run in queue(writer, 200)]
    program = f"""
keys = {keys!r}
with Writer({str(path)!r}) as writer:
    sys.stdin.read(1)
    for key in keys:
        for run in writer.claim([key], statuses=["queued"]):  # runs of a process that has ended are lost
            print(run.key)
"""
    paths = f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    paths += "from labbench.store.writer import Writer\n"
    words = [sys.executable, "-c", paths + program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(words, **pipes) for _ in range(3)]
    for process in processes:
        process.stdin.write("x")  # now
        process.stdin.flush()
    claimed = [key for process in processes for key in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(claimed) == sorted(keys)


def test_run_whose_process_has_ended_is_lost_and_can_be_claimed(writer: Writer, reader: Reader, path: Path) -> None:
    key = run_in_another_process(f"with Writer({str(path)!r}) as w: print(start(w)[0].key)").strip()
    assert reader.find(key).status == "lost"
    assert reader.status_counts() == {"lost": 1}
    [run] = writer.claim([key])
    assert (run.status, run.attempt) == ("running", 2)
    assert reader.find(key).status == "running"


def test_run_on_another_host_is_lost_after_15_s_without_a_heartbeat(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer._connection.execute("UPDATE runs SET boot_id = 'elsewhere', heartbeat = heartbeat - 14")
    assert reader.find(run.key).status == "running"
    writer._connection.execute("UPDATE runs SET heartbeat = heartbeat - 2")
    assert reader.find(run.key).status == "lost"


def test_send_heartbeat_returns_the_runs_of_this_process(writer: Writer, path: Path) -> None:
    ours, taken, removed = start(writer, 3)
    run_in_another_process(f"with Writer({str(path)!r}) as w: w.claim([{taken.key!r}], statuses=['running'])")
    writer.remove([removed.key])
    assert writer.send_heartbeat([ours.key, taken.key, removed.key]) == [ours.key]


def test_second_attempt_keeps_points_up_to_the_boundary(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write(
        [
            Started(run.key, 1, "vm", 1, "cpu", "stacked"),
            points(run, "loss", [3.0, 2.0, 1.0]),
            points(run, "val", {2: 9.0}),
            Boundary(run.key, 1, 2),
            points(run, "loss", {3: -1.0}),
            Finished(run.key, 1, "queued", "interrupted"),
        ]
    )
    before = reader.find(run.key)
    assert (before.status, before.reason, before.finished) == ("queued", "interrupted", None)
    [again] = writer.claim([run.key])
    assert (again.attempt, again.boundary, again.way, again.started) == (2, 2, "stacked", before.started)
    assert (again.device, again.reason) == (None, None)
    assert reader.series(run.key, "loss")[1].tolist() == [3.0, 2.0, 1.0]
    assert reader.series(run.key, "val")[1].tolist() == [9.0]
    writer.write([points(run, "loss", {3: 5.0}), points(again, "loss", {3: 0.5})])
    assert reader.series(run.key, "loss")[1].tolist() == [3.0, 2.0, 1.0, 0.5]


def test_attempt_from_the_start_deletes_the_data_of_the_earlier_one(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write(
        [Started(run.key, 1, "vm", 1, "cpu", "vmap"), points(run, "loss", [3.0]), Failed(run.key, 1, "oom", "no")]
    )
    [again] = writer.claim([run.key], statuses=["failed"])
    assert (again.attempt, again.way, again.started, again.error, again.error_kind) == (2, None, None, None, None)
    assert reader.series(run.key, "loss")[0].tolist() == []
    assert reader.find(run.key).summary == {}


def test_each_kind_of_end_is_recorded(writer: Writer, reader: Reader) -> None:
    done, bad, failed = start(writer, 3)
    writer.write(
        [
            Started(done.key, 1, "vm", 1, "cuda:0"),
            Log(failed.key, 1, "loading\n"),
            Finished(done.key, 1, "finished", "all epochs"),
            Finished(bad.key, 1, "diverged", "non-finite train/loss at step 12"),
            Failed(failed.key, 1, "user", "boom \udc80", "Traceback ..."),
            Log(failed.key, 1, "last words\n"),
        ]
    )
    done, bad, failed = (reader.find(run.key) for run in (done, bad, failed))
    assert (done.status, done.reason, done.device, done.way) == ("finished", "all epochs", "cuda:0", "loop")
    assert done.seconds is not None
    assert (bad.status, bad.reason) == ("diverged", "non-finite train/loss at step 12")
    assert (failed.status, failed.error_kind, failed.error, failed.traceback) == (
        "failed",
        "user",
        "boom ?",
        "Traceback ...",
    )
    assert reader.logs(failed.key) == ["loading\n", "last words\n"]


def test_events_of_ended_or_unknown_runs_are_dropped(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write([Finished(run.key, 1, "finished", "all epochs")])
    writer.write([points(run, "loss", [1.0]), points(replace(run, key="nobodys"), "loss", [1.0])])
    writer.write([Finished(run.key, 1, "stopped", "too late")])
    assert (reader.find(run.key).status, reader.find(run.key).summary) == ("finished", {})


def test_requeue_affects_only_runs_of_this_process(writer: Writer, reader: Reader, path: Path) -> None:
    ours, other = start(writer, 2)
    run_in_another_process(f"with Writer({str(path)!r}) as w: w.claim([{other.key!r}], statuses=['running'])")
    writer.requeue([ours.key, other.key])
    assert (reader.find(ours.key).status, reader.find(ours.key).reason) == ("queued", "interrupted")
    assert reader.find(other.key).status == "lost"


def test_retry_queues_failed_diverged_and_stopped_runs(writer: Writer, reader: Reader) -> None:
    runs = dict(zip(["finished", "diverged", "failed", "stopped", "running", "queued"], queue(writer, 6), strict=True))
    writer.claim([run.key for status, run in runs.items() if status != "queued"])
    for status in ("finished", "diverged", "stopped"):
        writer.write([Boundary(runs[status].key, 1, 7), Finished(runs[status].key, 1, status, "so")])  # type: ignore[arg-type]
    writer.write([Boundary(runs["failed"].key, 1, 7), Failed(runs["failed"].key, 1, "crash", "gone")])
    retried = writer.retry([run.key for run in runs.values()])
    assert set(retried) == {runs[status].key for status in ("diverged", "failed", "stopped")}
    boundaries = {status: reader.find(runs[status].key).boundary for status in ("diverged", "failed", "stopped")}
    assert boundaries == {"diverged": 0, "failed": 7, "stopped": 7}
    assert reader.status_counts() == {"queued": 4, "running": 1, "finished": 1}


def test_retry_from_the_start_deletes_points_and_boundary(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write([points(run, "loss", [3.0, 2.0, 1.0]), Boundary(run.key, 1, 2), Failed(run.key, 1, "crash", "gone")])
    assert writer.retry([run.key], from_start=True) == [run.key]
    [again] = writer.claim([run.key])
    assert (again.boundary, again.attempt) == (0, 2)
    assert reader.series(run.key, "loss")[0].tolist() == []


def test_stop_request_reaches_the_driver_once(writer: Writer, reader: Reader) -> None:
    driven, other, waiting, done = queue(writer, 4)
    writer.claim([driven.key, other.key, done.key])
    writer.write([Finished(done.key, 1, "finished", "all epochs")])
    for run in (driven, driven, other, waiting, done):
        writer.request(run.key, "stop")
    writer.request("nobodys", "stop")
    assert writer.pop_requests([driven.key, done.key]) == [(driven.key, "stop")]
    assert writer.pop_requests([driven.key]) == []
    assert [reader.find(run.key).status for run in (driven, other, waiting, done)] == [
        "running",
        "running",
        "stopped",
        "finished",
    ]
    writer.requeue([other.key])
    writer.claim([other.key])
    assert writer.pop_requests([other.key]) == []  # the request was for the earlier attempt
    writer.request(waiting.key, "retry")
    assert reader.find(waiting.key).status == "queued"


def test_tags_notes_and_archive_flag_can_be_edited(writer: Writer, reader: Reader) -> None:
    a, b = queue(writer, 2)
    writer.tag([a.key, b.key], add=["good", "new"])
    writer.tag([a.key], add=["good"], remove=["new", "never"])
    assert [run.tags for run in reader.runs()] == [("good",), ("good", "new")]
    writer.note(a.key, "look again")
    assert reader.find(a.key).note == "look again"
    writer.note(a.key, "")
    assert reader.find(a.key).note is None
    writer.archive([a.key])
    assert reader.keys() == [b.key]
    assert reader.find(a.key).archived
    writer.archive([a.key], False)
    assert reader.keys() == [a.key, b.key]


def test_removing_a_run_deletes_all_its_rows_and_files(writer: Writer, reader: Reader, path: Path) -> None:
    removed, remaining = start(writer, 2, sources={"grid": "text"})
    for run in (removed, remaining):
        writer.write([points(run, "loss", [1.0]), Log(run.key, 1, "hello")])
        writer.tag([run.key], ["tag"])
        writer.request(run.key, "stop")
        folder = path.with_name("runs.db.files") / run.key
        folder.mkdir(parents=True)
        (folder / "snapshot").write_bytes(b"weights")
    writer.remove([removed.key])
    with pytest.raises(RunNotFound):
        reader.find(removed.key)
    tables = ("runs", "points", "summary", "tags", "logs", "requests", "run_sources", "sources", "experiments")
    assert [writer._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables] == [1] * 9
    assert [folder.name for folder in path.with_name("runs.db.files").iterdir()] == [remaining.key]
    writer.remove([remaining.key])
    assert reader.runs() == []
    assert not path.with_name("runs.db.files").exists()
    assert writer._connection.execute("SELECT count(*) FROM experiments").fetchone() == (0,)


def test_remove_rejects_a_key_that_leads_out_of_the_folder_of_files(writer: Writer, path: Path) -> None:
    queue(writer)
    (path.parent / "precious").mkdir()
    writer._connection.execute("UPDATE runs SET key = '../precious'")
    with pytest.raises(InputError, match="a key is letters and digits"):
        writer.remove(["../precious"])
    assert (path.parent / "precious").exists()


def test_locked_database_raises_a_store_error_and_recovers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labbench.store import connection

    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    with Writer(path) as writer, Writer(path) as other:
        [run] = start(writer)
        other._connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked the database"):
            writer.write([points(run, "loss", [1.0])])
        other._connection.execute("COMMIT")
        writer.write([points(run, "loss", [1.0])])


def test_stop_rule_of_a_grid_is_stored(writer: Writer) -> None:
    queue(writer, stop=Stop("val/loss", "min", target=float("inf")))
    [(stop,)] = writer._connection.execute("SELECT stop FROM runs")
    assert json.loads(stop)["metric"] == "val/loss"


def test_closing_twice_is_a_no_op(path: Path) -> None:
    writer = Writer(path)
    writer.close()
    writer.close()


def test_renamed_run_keeps_its_key_and_identity(writer: Writer, reader: Reader) -> None:
    [run] = queue(writer, 1)
    writer.rename(run.key, "the good one")
    [renamed] = reader.runs("name~good")
    assert (renamed.key, renamed.identity) == (run.key, run.identity)
    assert [record.key for record in queue(writer, 1)] == [run.key]


def test_inserted_run_keeps_a_free_key_and_gets_a_new_one_otherwise(writer: Writer) -> None:
    [run] = queue(writer)
    with writer._transaction() as connection:
        columns = {"experiment_id": 1, "name": "copy", "origin": "rerun", "status": "queued", "created": 1.0}
        keys = [insert_run(connection, {**columns, "key": key})[1] for key in ("freekey2", run.key, "")]
    assert keys[0] == "freekey2"
    assert len({*keys, run.key}) == 4


def test_a_database_is_closed_without_room_for_its_checkpoint(path: Path) -> None:
    """Its values stay in the write-ahead log. Files may not grow any more, as on a full disk."""
    program = f"""
import resource
writer = Writer({str(path)!r})
[run] = start(writer, 1)
writer.write([points(run, "loss", [1 / (step + 1) for step in range(5000)])])
size = max(4096, Path({str(path)!r}).stat().st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
writer.close()
print(Path({str(path)!r} + "-wal").stat().st_size > size)
"""
    assert run_in_another_process("from pathlib import Path\n" + program).strip() == "True"
    with Reader(path) as reader:
        [run] = reader.runs()
        assert run.summary["loss"].n == 5000


def test_a_write_ahead_log_that_cannot_be_created_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    Writer(path).close()
    (tmp_path / "runs.db-wal").mkdir()
    with pytest.raises(InputError, match=r"runs\.db: the database cannot be opened"):
        Writer(path)
