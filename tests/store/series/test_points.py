"""Points are read back as written and summaries match them, for any sequence of writes."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.store_samples import points, queue, start
from helpers.summaries import is_same_summary, summarize
from labbench.records import Boundary, Event, Points, RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer

NAN, INF = math.nan, math.inf

VALUES = st.floats() | st.sampled_from([0.0, -0.0, 1.0, NAN, INF, -INF, 1.7976931348623157e308, 5e-324])
SAME_DATABASE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""All examples share one database, with a run each: creating a database takes longer than an example."""

BATCHES = st.lists(
    st.tuples(st.sampled_from(["loss", "val/accuracy"]), st.dictionaries(st.integers(-5, 30), VALUES, max_size=12)),
    max_size=8,
)


@SAME_DATABASE
@given(batches=BATCHES, split=st.integers(0, 8))
def test_summary_matches_the_points_after_any_sequence_of_writes(
    writer: Writer, reader: Reader, batches: list[tuple[str, dict[int, float]]], split: int
) -> None:
    """In any order, repeated, in one transaction or two: the last write of a step wins."""
    [run] = start(writer, rerun=True)
    events = [points(run, metric, series) for metric, series in batches]
    writer.write(events[:split])
    writer.write(events[split:])
    expected: dict[str, dict[int, float]] = {}
    for metric, series in batches:
        expected.setdefault(metric, {}).update(series)
    logged = {metric: series for metric, series in expected.items() if series}
    summary = reader.find(run.key).summary
    assert summary.keys() == logged.keys()
    for metric, series in logged.items():
        assert is_same_summary(summary[metric], summarize(series))
        steps, values = reader.series(run.key, metric)
        assert steps.tolist() == sorted(series)
        assert list(map(repr, values + 0.0)) == list(map(repr, np.array([series[s] for s in sorted(series)]) + 0.0))
        assert reader.times(run.key, metric).tolist() == [10 * step for step in sorted(series)]


@SAME_DATABASE
@given(
    attempts=st.lists(
        st.tuples(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), max_size=5), st.booleans()), max_size=4
    )
)
def test_points_of_different_attempts_never_mix(
    writer: Writer, reader: Reader, attempts: list[tuple[list[tuple[bool, int]], bool]]
) -> None:
    """Each value is its attempt's number.

    Points after the boundary of an earlier attempt are deleted, and late events of an earlier attempt are dropped.
    """
    [run] = queue(writer, rerun=True)
    before: RunRecord | None = None
    expected: dict[int, float] = {}
    boundary = 0
    for epochs, restarts in attempts:
        if restarts and before is not None:
            writer.write([Boundary(run.key, run.attempt, 0)])
            boundary = 0
        [run] = writer.claim([run.key], statuses=["queued", "running"])
        # a value at the boundary's own step stays until the next attempt has measured it too
        expected = {step: value for step, value in expected.items() if boundary and step <= boundary}
        step = boundary
        for bounded, length in epochs:
            batch = {step + i: float(run.attempt) for i in range(length)}
            expected.update(batch)
            step += length
            events: list[Event] = [points(run, "loss", batch)]
            if bounded:
                events.append(Boundary(run.key, run.attempt, step))
                boundary = step
            if before is not None:
                events.insert(0, points(before, "loss", {0: -1.0, step + 99: -1.0}))
                events.append(Boundary(run.key, before.attempt, step + 99))
            writer.write(events)
        before = run
    steps, values = reader.series(run.key, "loss")
    assert dict(zip(steps.tolist(), values.tolist(), strict=True)) == expected
    summary = reader.find(run.key).summary
    assert is_same_summary(summary["loss"], summarize(expected)) if expected else summary == {}


def test_nan_is_stored_as_null_and_infinity_as_infinity(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [NAN, INF, -INF, 0.5])])
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert connection.execute("SELECT value FROM points").fetchall() == [(None,), (INF,), (-INF,), (0.5,)]
        assert connection.execute("SELECT sum(n), sum(n_nonfinite) FROM summary").fetchall() == [(4, 3)]


def test_point_takes_less_than_30_bytes(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        runs = start(writer, 10)
    before = path.stat().st_size
    with Writer(path) as writer:
        writer.write([points(run, metric, [1 / (i + 1) for i in range(1000)]) for run in runs for metric in "abcd"])
    assert path.stat().st_size - before < 29 * 40_000


def test_steps_times_and_values_must_have_equal_lengths(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        with pytest.raises(ValueError, match="2 steps, 2 times and 1 values"):
            writer.write([Points(run.key, 1, "loss", [1, 2], [1, 2], [0.5])])
        writer.write([Points(run.key, 1, "loss", [], [], [])])
    with Reader(tmp_path / "runs.db") as reader:
        assert reader.find(run.key).summary == {}


def test_failed_transaction_writes_nothing(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        with pytest.raises(ValueError, match="the lengths must be equal"):
            writer.write([points(run, "fine", [1.0]), Points(run.key, 1, "torn", [1], [], [])])
        writer.write([points(run, "later", [1.0])])
    with Reader(tmp_path / "runs.db") as reader:
        assert list(reader.find(run.key).summary) == ["later"]
