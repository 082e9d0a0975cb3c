"""`Reader`: pages, lookup of runs, series and curves, and commits of other processes."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labbench
from helpers.store_samples import files_beside, new_run, points, queue, start
from labbench.errors import InputError, RunNotFound
from labbench.records import Finished, NewRun
from labbench.store import liveness
from labbench.store.reader import Reader
from labbench.store.series.curves import CurveRequest
from labbench.store.writer import Writer

NAN, INF = math.nan, math.inf


def test_open_returns_a_reader_for_scripts(path: Path, writer: Writer) -> None:
    [run] = start(writer, [new_run(optimizer="adam")])
    writer.write([points(run, "val/loss", [2.0, 1.0])])
    db = labbench.open(path)
    [record] = db.runs("optimizer=adam")
    steps, values = db.series(record.key, "val/loss")
    assert (steps.tolist(), values.tolist()) == ([0, 1], [2.0, 1.0])
    assert (steps.dtype, values.dtype) == (np.int64, np.float64)
    db.close()


def test_pages_of_runs_are_in_queue_order(writer: Writer, reader: Reader) -> None:
    keys = [run.key for run in queue(writer, 7)]
    assert [run.key for run in reader.runs(limit=3)] == keys[:3]
    assert [run.key for run in reader.runs(limit=3, offset=3)] == keys[3:6]
    assert [run.key for run in reader.runs(offset=6)] == keys[6:]
    assert [run.key for run in reader.runs(descending=True, limit=2)] == [keys[6], keys[5]]
    assert reader.runs(offset=7) == reader.runs(limit=0) == []


def test_summaries_can_be_loaded_for_all_some_or_no_metrics(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write([points(run, metric, [1.0]) for metric in ("a", "b", "c")])
    assert list(reader.runs()[0].summary) == ["a", "b", "c"]
    assert list(reader.runs(summaries=["c", "nothing"])[0].summary) == ["c"]
    assert reader.runs(summaries=False)[0].summary == {}


@pytest.mark.parametrize("name", ["lr=1000000 s0", "lr=1e6 s0", "lr=1e+06 s0"])
def test_find_takes_names_whose_numbers_are_spelled_in_another_way(writer: Writer, reader: Reader, name: str) -> None:
    run, *_ = queue(writer, [new_run(0, name=name), new_run(1, name="lr=0.1 s0"), new_run(2, name="lr=1e6 s1")])
    for word in ("lr=1000000 s0", "lr=1e6 s0", "lr=1000000.0 s0", "lr=1E+6 s0"):
        assert reader.find(word).key == run.key
    with pytest.raises(RunNotFound):
        reader.find("lr=1000001 s0")


def test_find_prefers_key_over_name_over_key_prefix(writer: Writer, reader: Reader) -> None:
    a, b, c, d = queue(writer, [new_run(0, name="one"), new_run(1, name="two"), new_run(2, name="two"), new_run(3)])
    set_key = "UPDATE runs SET key = ? WHERE id = ?"
    for run, key in ((a, "kaaaaaaa"), (b, "kabbbbbb"), (c, "mccccccc"), (d, "kaaaaaab")):
        writer._connection.execute(set_key, (key, run.id))
    writer._connection.execute("UPDATE runs SET name = 'kabb' WHERE id = ?", (d.id,))
    assert reader.find("kaaaaaaa").id == a.id
    assert reader.find("kabbb").id == b.id
    assert reader.find("kabb").id == d.id  # a name wins over a key prefix
    assert reader.find("one").id == a.id
    with pytest.raises(RunNotFound, match="`two` matches 2 runs, newest first; use a key") as caught:
        reader.find("two")
    assert caught.value.candidates == ("mccccccc  two  (queued)", "kabbbbbb  two  (queued)")
    writer._connection.execute("UPDATE runs SET started = 1700000000, status = 'finished' WHERE id = ?", (c.id,))
    with pytest.raises(RunNotFound, match=r"mccccccc  two  \(finished, started 2023-11-1\d \d\d:\d\d:\d\d\)"):
        reader.find("two")
    with pytest.raises(RunNotFound, match="matches 2 runs") as caught:
        reader.find("kaaa")
    assert len(caught.value.candidates) == 2
    assert [run.id for run in reader.find_many(["one", "mccc", "kaaaaaaa"])] == [a.id, c.id]


def test_three_characters_of_a_key_name_no_run_but_suggest_one(writer: Writer, reader: Reader) -> None:
    [run] = queue(writer)
    with pytest.raises(RunNotFound, match=r"a part of a key needs 4 characters\); did you mean") as caught:
        reader.find(run.key[:3])
    assert caught.value.candidates == (f"{run.key}  run 0",)


@pytest.mark.parametrize("word", ["", "%", "_", "*", "kaaaaaaaa", "no such run", "\x1b[2J", "\U0010ffff"])
def test_find_raises_for_an_unknown_word(writer: Writer, reader: Reader, word: str) -> None:
    queue(writer, 2)
    with pytest.raises(RunNotFound):
        reader.find(word)


def test_find_suggests_similar_names(writer: Writer, reader: Reader) -> None:
    queue(writer, [new_run(0, name="adam lr=0.01 bn"), new_run(1, name="sgd lr=0.1")])
    with pytest.raises(RunNotFound, match="did you mean") as caught:
        reader.find("adam lr=0.01 nb")
    assert caught.value.candidates[0][10:] == "adam lr=0.01 bn"
    with pytest.raises(RunNotFound) as caught:
        reader.find("lr=0.1")
    assert [candidate[10:] for candidate in caught.value.candidates] == ["sgd lr=0.1"]


def test_by_keys_returns_runs_in_order_archived_ones_included(writer: Writer, reader: Reader) -> None:
    _, second, third = start(writer, 3)
    writer.write([points(second, "loss", [2.0, 1.0])])
    writer.archive([third.key])
    runs = reader.by_keys([third.key, "gone", second.key, third.key])
    assert [run.key for run in runs] == [third.key, second.key]
    assert runs[1].summary["loss"].last == 1.0
    assert reader.by_keys([]) == []


def test_differing_and_constant_config_keys_depend_on_the_filter(writer: Writer, reader: Reader) -> None:
    queue(writer, [new_run(0, bn=True), new_run(1, bn=True, momentum=0.9), new_run(2, bn=True, lr=0.2)])
    assert reader.config_keys() == ["lr", "seed", "bn", "momentum"]
    assert reader.differing() == ["lr", "seed"]
    assert reader.constant() == {"bn": True}
    assert reader.differing("lr=0.1") == ["seed"]
    assert (reader.differing("seed=0"), reader.constant("seed=0")) == ([], {"lr": 0.1, "seed": 0, "bn": True})
    assert (reader.differing("seed=9"), reader.constant("seed=9")) == ([], {})


def test_metrics_and_experiments_depend_on_the_filter(writer: Writer, reader: Reader) -> None:
    [a] = start(writer, [new_run(0)], experiment="first", metrics={"val/accuracy": "max"})
    [b] = start(writer, [new_run(1, lr=7)], experiment="second")
    writer.write([points(a, "train/loss", [1.0]), points(b, "val/accuracy", [1.0])])
    assert reader.metrics() == {"val/accuracy": "max", "train/loss": "min"}
    assert reader.metrics("lr=0.1") == {"train/loss": "min"}
    assert reader.experiments() == ["first", "second"]
    assert reader.experiments("lr=7") == ["second"]
    assert reader.identities("first") == {f"{0:064x}"}
    assert reader.identities("first", statuses=["finished"]) == set()


def test_series_of_an_unlogged_metric_is_empty(writer: Writer, reader: Reader) -> None:
    [run] = queue(writer)
    steps, values = reader.series(run.key, "never")
    assert (steps.tolist(), values.tolist(), reader.times(run.key, "never").tolist()) == ([], [], [])
    assert reader.curves([run.id], "never", CurveRequest(100)) == {}
    with pytest.raises(RunNotFound, match="no run has the key `nobodys`"):
        reader.series("nobodys", "never")


def test_series_can_be_limited_to_a_range_of_steps(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write([points(run, "loss", [0.0, 1.0, 2.0, 3.0])])
    steps, values = reader.series(run.key, "loss", first_step=1, last_step=2)
    assert (steps.tolist(), values.tolist()) == ([1, 2], [1.0, 2.0])
    assert reader.times(run.key, "loss", first_step=3).tolist() == [30]
    assert reader.series(run.key, "loss", last_step=-1)[0].tolist() == []


VALUES = st.dictionaries(
    st.integers(-(2**40), 2**40) | st.integers(0, 50),
    st.floats(-1e300, 1e300) | st.sampled_from([NAN, INF, -INF]),
    min_size=1,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(series=VALUES, columns=st.integers(1, 60))
def test_curve_keeps_extremes_and_counts_each_point_once(
    writer: Writer, reader: Reader, series: dict[int, float], columns: int
) -> None:
    [run] = start(writer, rerun=True)
    writer.write([points(run, "loss", series)])
    curve = reader.curves([run.id], "loss", CurveRequest(columns))[run.id]
    assert 0 < len(curve.n) <= columns
    assert curve.n.sum() == len(series)
    assert (curve.first_step[1:] > curve.last_step[:-1]).all()
    width = (max(series) - min(series) + 1) / columns
    assert ((curve.last_step - curve.first_step) <= width * (1 + 1e-9)).all()
    for index in range(len(curve.n)):
        inside = [series[step] for step in series if curve.first_step[index] <= step <= curve.last_step[index]]
        finite = [value for value in inside if math.isfinite(value)]
        assert (curve.n[index], curve.n_nonfinite[index]) == (len(inside), len(inside) - len(finite))
        if finite:
            assert (curve.low[index], curve.high[index]) == (min(finite), max(finite))
            assert curve.mean[index] == pytest.approx(math.fsum(value / len(finite) for value in finite), abs=1e288)
        else:
            assert np.isnan([curve.low[index], curve.high[index], curve.mean[index]]).all()
    assert (curve.first_time == 10 * curve.first_step).all()
    assert (curve.last_time == 10 * curve.last_step).all()


def test_short_series_has_one_bucket_per_point(writer: Writer, reader: Reader) -> None:
    a, b = start(writer, 2)
    writer.write([points(a, "loss", {0: 1.0, 1: NAN, 1000: 3.0})])
    curves = reader.curves([b.id, a.id], "loss", CurveRequest(3))
    assert list(curves) == [a.id]
    assert curves[a.id].first_step.tolist() == curves[a.id].last_step.tolist() == [0, 1, 1000]
    assert curves[a.id].n_nonfinite.tolist() == [0, 1, 0]


def test_points_stream_by_run_and_steps_group_them(writer: Writer, reader: Reader) -> None:
    a, b = start(writer, [new_run(0, name="a"), new_run(1, name="b")])
    writer.write([points(a, "loss", [1.0, NAN]), points(b, "loss", {5: INF}), points(a, "epoch", {1: 1.0})])
    rows = [(row.name, row.metric, row.step, row.time, repr(row.value)) for row in reader.points()]
    assert rows == [
        ("a", "loss", 0, 0.0, "1.0"),
        ("a", "loss", 1, 0.01, "nan"),
        ("a", "epoch", 1, 0.01, "1.0"),
        ("b", "loss", 5, 0.05, "inf"),
    ]
    assert [(row.name, row.step, repr(row.values)) for row in reader.steps()] == [
        ("a", 0, "{'loss': 1.0}"),
        ("a", 1, "{'loss': nan, 'epoch': 1.0}"),
        ("b", 5, "{'loss': inf}"),
    ]
    assert [row.metric for row in reader.points("name=a", ["epoch"])] == ["epoch"]
    assert [run.name for run in reader.each_run("name=b")] == ["b"]
    with pytest.raises(InputError, match="no run has logged the metric `los`; did you mean `loss`"):
        next(reader.points(metrics=["los"]))


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("WIDTHS", "width"), ("Optimizer.LR", "optimizer.lr"), ("acc", "val/acc"), ("rate", "optimizer.rate")],
)
def test_suggestion_for_a_name_ignores_capitals_and_the_path_of_the_key(
    writer: Writer, reader: Reader, word: str, nearest: str
) -> None:
    [run] = start(writer, [NewRun("a", {"optimizer.lr": 0.1, "optimizer.rate": 1, "width": 8, "rates": 2}, "0" * 64)])
    writer.write([points(run, "val/acc", [1.0]), Finished(run.key, run.attempt, "finished", "")])
    with pytest.raises(InputError, match=f"; did you mean `{nearest}`"):
        reader.check_names(f"{word}=1")


@pytest.mark.parametrize(
    ("filter_", "notes"),
    [
        ("optimizer=adm", ["no run has optimizer=adm; did you mean `adam`?"]),
        ("lr=0.2,0.3 optimizer=adam", ["no run has lr=0.2,0.3; runs have 0.01, 0.1"]),
        ("hidden=[16]", ["no run has hidden=[16]; runs have [8]"]),
        ("experiment=gird", ["no run has experiment=gird; did you mean `grid`?"]),
        ("tag=god", ["no run has tag=god; did you mean `good`?"]),
        ("lr=0.1 optimizer=sgd", []),
        ("status=failed", []),
        ("lr>1", []),
        ("optimizer=adam,adm", []),
    ],
)
def test_values_that_no_run_has_are_named_if_nothing_matches(
    writer: Writer, reader: Reader, filter_: str, notes: list[str]
) -> None:
    configs = [{"lr": 0.1, "optimizer": "adam", "hidden": [8]}, {"lr": 0.01, "optimizer": "sgd", "hidden": [8]}]
    runs = start(writer, [NewRun("a", config, f"{index:064x}") for index, config in enumerate(configs)])
    writer.tag([runs[0].key], ["good"])
    assert list(reader.check_names(filter_).unmatched) == notes


def test_recorded_numbers_are_named_in_their_one_spelling(writer: Writer, reader: Reader) -> None:
    start(writer, [new_run(0, lr=1e6), new_run(1, lr=1e25)])
    assert list(reader.check_names("lr=7").unmatched) == ["no run has lr=7; runs have 1e6, 1e25"]


def test_stream_sees_one_snapshot(writer: Writer, reader: Reader, path: Path) -> None:
    [run] = start(writer)
    writer.write([points(run, "loss", dict.fromkeys(range(5000), 1.0))])
    stream = reader.points()
    next(stream)
    writer.write([points(run, "loss", dict.fromkeys(range(5000, 6000), 2.0))])
    assert sum(1 for _ in stream) == 4999
    assert sum(1 for _ in reader.points()) == 6000


def test_reading_a_closed_database_creates_no_files(path: Path) -> None:
    with Writer(path) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1.0])])
    before = path.stat()
    with Reader(path) as reader:
        assert len(reader.runs()) == 1
        assert files_beside(path) == ["runs.db"]
        assert len(list(reader.points())) == 1
        assert files_beside(path) == ["runs.db"]
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)


def test_reader_sees_commits_of_successive_writers(path: Path) -> None:
    """The version changes with each commit and at no other time."""
    Writer(path).close()
    with Reader(path) as reader:
        seen = {reader.data_version()}
        for number in range(3):
            with Writer(path) as writer:
                [run] = start(writer, [new_run(number)])
                version = reader.data_version()
                assert version not in seen
                assert len(reader.runs()) == number + 1
                assert reader.data_version() == version
                writer.write([points(run, "loss", [1.0])])
                seen |= {version, reader.data_version()}
                assert len(seen) == 2 * number + 3
                assert reader.find(run.key).summary["loss"].n == 1
            assert len(reader.runs()) == number + 1
            assert reader.data_version() in seen
        other = Path(f"{path}.new")
        Writer(other).close()
        other.replace(path)
        assert reader.runs() == []
    assert files_beside(path) == ["runs.db"]


def test_reader_sees_commits_of_other_programs_with_a_rollback_journal(path: Path) -> None:
    with Writer(path) as writer:
        queue(writer)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = delete")
    with Reader(path) as reader:
        [run] = reader.runs()
        version = reader.data_version()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE runs SET note = 'by hand'")
        assert reader.data_version() != version
        assert reader.find(run.key).note == "by hand"
    assert files_beside(path) == ["runs.db"]


def test_version_changes_when_a_run_loses_its_process(
    writer: Writer, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process commits nothing, but the status of its run changes."""
    [run] = start(writer)
    assert reader.find(run.key).status == "running"
    version = reader.data_version()
    monkeypatch.setattr(liveness, "_exists", lambda pid: False)
    assert reader.data_version() != version
    assert reader.find(run.key).status == "lost"


def test_reading_a_deleted_database_raises(path: Path) -> None:
    Writer(path).close()
    with Reader(path) as reader:
        path.unlink()
        with pytest.raises(InputError, match="no such database"):
            reader.runs()


def test_all_commits_of_a_killed_writer_are_read(path: Path) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.store_samples import points, start
from labbench.store.writer import Writer
writer = Writer({str(path)!r})
[run] = start(writer)
writer.write([points(run, "loss", [1.0, 2.0])])
print(run.key, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    key = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip()
    assert "runs.db-wal" in files_beside(path)
    with Reader(path) as reader:
        assert reader.series(key, "loss")[1].tolist() == [1.0, 2.0]
        assert reader.find(key).status == "lost"
    assert files_beside(path) == ["runs.db"]


def test_threads_can_share_a_reader_while_a_process_writes(writer: Writer, reader: Reader) -> None:
    runs = start(writer, 20)
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                reader.data_version()
                for run in reader.runs(sort="loss", limit=5):
                    steps, values = reader.series(run.key, "loss")
                    # one snapshot: a transaction is seen whole or not at all
                    assert len(values) % 10 == 0
                    assert (values == steps).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    writer.write([points(run, "loss", {step: float(step) for step in range(10)}) for run in runs])
    for thread in threads:
        thread.start()
    for first in range(10, 200, 10):
        writer.write([points(run, "loss", {step: float(step) for step in range(first, first + 10)}) for run in runs])
        time.sleep(0.002)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_end_of_a_run_is_seen_immediately(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write([Finished(run.key, 1, "finished", "all epochs")])
    assert reader.status_counts() == {"finished": 1}
    assert json.dumps(reader.runs()[0].config) == '{"lr": 0.1, "seed": 0}'


def test_values_return_settings_and_headings_of_each_run(writer: Writer, reader: Reader) -> None:
    first, second, third = start(writer, [new_run(0, bn=True), new_run(1, bn=1), new_run(2)])
    writer.write([points(first, "loss", [3.0, 1.0, 2.0]), points(second, "loss", [4.0])])
    rows = reader.values(["best(loss)", "loss", "status"], by=["bn", "lr"], sort="best(loss)", descending=True)
    assert [row[0] for row in rows] == [second.key, first.key, third.key]
    assert [json.loads(row[1])[:2] for row in rows] == [[1, 0.1], [True, 0.1], [None, 0.1]]
    assert json.loads(rows[1][1])[0] is True
    assert [row[2:] for row in rows] == [(4.0, 4.0, "running"), (1.0, 2.0, "running"), (None, None, "running")]
    assert [json.loads(row[1])[:1] for row in reader.values([], by=["seed"])] == [[0], [1], [2]]
    assert [json.loads(row[1])[:1] for row in reader.values([], by=['odd"key'])] == [[None]] * 3
    assert reader.values(["seed"], "seed>0") == [(second.key, "[]", 1), (third.key, "[]", 2)]


def test_compare_configs_returns_differing_varying_and_constant_keys(writer: Writer, reader: Reader) -> None:
    queue(writer, [new_run(0, bn=True), new_run(1)])
    keys = reader.compare_configs()
    assert (keys.names, keys.differing, keys.varying) == (("lr", "seed", "bn"), ("seed",), ("seed", "bn"))
    assert keys.constant == {"lr": 0.1}
    reader.constant().clear()
    assert reader.constant() == {"lr": 0.1}
    queue(writer, [new_run(2, lr=1.0)])
    assert (reader.compare_configs().varying, reader.constant()) == (("lr", "seed", "bn"), {})
