"""The overview of a series agrees with its points after any sequence of writes, and charts of many runs read it."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.store_samples import execute, points, read_tables, start
from labbench.records import Boundary, Finished, RunRecord
from labbench.store.maintenance.health import diagnose
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.reader import Reader
from labbench.store.series import overview
from labbench.store.series.buckets import BucketedSeries
from labbench.store.series.curves import CurveRequest
from labbench.store.writer import Writer

COARSE = CurveRequest(1600, times=False, coarse=True)
DATABASES = Path(__file__).parents[2] / "databases"
VALUES = st.floats() | st.floats(-1, 1) | st.sampled_from([math.nan, math.inf, 1e300])


def read_coarse(path: Path, metric: str = "loss") -> BucketedSeries:
    with Reader(path) as reader:
        [run] = reader.runs()
        return reader.curves([run.id], metric, COARSE)[run.id]


def read_rows(path: Path) -> list[tuple[int, int, int, int]]:
    """Return (points, last step, time in milliseconds, steps per bucket) of all overviews."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT n, last_step, last_ms, width FROM overview").fetchall()


def write_run(writer: Writer, series: Mapping[int, float], batch: int) -> RunRecord:
    """Write a series to a new run in batches, and finish the run."""
    [run] = start(writer)
    steps = sorted(series)
    for first in range(0, len(steps), batch):
        writer.write([points(run, "loss", {step: series[step] for step in steps[first : first + batch]})])
    writer.write([Finished(run.key, 1, "finished", "all epochs")])
    return run


@given(
    st.lists(VALUES, min_size=1, max_size=300),
    st.sampled_from([1, 4, 37]),
    st.integers(0, 40),
    st.integers(1, 200),
    st.sampled_from([1, 20, 300]),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_overview_agrees_with_the_points_however_they_arrive(
    tmp_path: Path, values: list[float], stride: int, jitter: int, cut: int, batch: int
) -> None:
    path = tmp_path / "runs.db"
    path.unlink(missing_ok=True)
    steps = [stride * number + (number * jitter) % stride for number in range(len(values))]
    with Writer(path) as writer:
        run = write_run(writer, dict(zip(steps, values, strict=True)), batch)
        rows = read_rows(path)
        assert [(n, last) for n, last, _, _ in rows] == ([(len(values), steps[-1])] if len(values) > 64 else [])
        assert diagnose(path).is_sound
        # resume from an earlier checkpoint, and log other values
        [run] = writer.claim([run.key], statuses=["finished", "diverged"])
        writer.write([Boundary(run.key, run.attempt, steps[min(cut, len(steps) - 1)])])
        [run] = writer.claim([run.key], statuses=["running"])
        writer.write([points(run, "loss", [1.0, 2.0] * 40, attempt=run.attempt)])
        writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])
    diagnosis = diagnose(path)
    assert diagnosis.is_sound
    assert diagnosis.n_without_overview == 0


def test_coarse_series_has_every_extreme_in_few_buckets(path: Path, writer: Writer) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    values[[0, 500, 999]] = 7, 90, -90
    write_run(writer, dict(enumerate(values.tolist())), 1000)
    series = read_coarse(path)
    assert len(series.n) == 63
    assert (series.first_step[0], series.last_step[-1], series.n.sum()) == (0, 999, 1000)
    for first, last, low, high, mean in zip(
        series.first_step, series.last_step, series.low, series.high, series.mean, strict=True
    ):
        part = values[first : last + 1]
        assert (low, high, mean) == pytest.approx((part.min(), part.max(), part.mean()), rel=1e-6, abs=1e-6)


def test_points_after_the_overview_of_a_running_run_are_read_too(path: Path, writer: Writer) -> None:
    [run] = start(writer)
    writer.write([points(run, "loss", [1.0] * 100)])
    writer.write([points(run, "loss", {100: 5.0, 101: math.nan, 102: 6.0})])
    assert [n for n, *_ in read_rows(path)] == [100]
    series = read_coarse(path)
    assert series.last_step[-3:].tolist() == [100, 101, 102]
    np.testing.assert_array_equal(series.mean[-3:], [5.0, math.nan, 6.0])


def test_overview_is_rewritten_once_a_second_and_at_the_end(path: Path, writer: Writer) -> None:
    """Points come every 10 ms, one by one."""
    [run] = start(writer)
    written = []
    for step in range(1000):
        writer.write([points(run, "loss", {step: 0.5})])
        written += [ms for _, _, ms, _ in read_rows(path)][:1]
    seconds = sorted(set(written))
    assert len(seconds) > 5
    assert min(after - before for before, after in pairwise(seconds)) >= overview.REWRITE_MS
    writer.write([Finished(run.key, 1, "finished", "all epochs")])
    assert [(n, last) for n, last, _, _ in read_rows(path)] == [(1000, 999)]


@pytest.mark.parametrize(
    "series",
    [
        dict.fromkeys(range(64), 1.0),  # as short as an overview
        {2**step: 1.0 for step in range(55)} | dict.fromkeys(range(100, 120), 1.0),  # most points in few buckets
        dict.fromkeys(range(100), 1e-60),  # more digits than an overview has
        dict.fromkeys(range(100), 1e60),
    ],
)
def test_series_that_an_overview_would_distort_are_read_as_points(
    path: Path, writer: Writer, series: dict[int, float]
) -> None:
    write_run(writer, series, 1000)
    curve = read_coarse(path)
    assert (curve.n == 1).all()
    assert curve.mean.tolist() == pytest.approx([series[step] for step in sorted(series)], rel=1e-14)


def test_gap_of_nonfinite_values_stays_a_gap_and_missing_steps_do_not_become_one(path: Path, writer: Writer) -> None:
    series = {step: math.nan if 300 <= step < 400 else 1.0 for step in range(1000) if not 600 <= step < 700}
    write_run(writer, series, 1000)
    curve = read_coarse(path)
    gap = (curve.first_step >= 300) & (curve.last_step < 400)
    assert gap.any()
    assert np.isnan(curve.mean[gap]).all()
    assert not np.isnan(curve.mean[~gap & (curve.first_step > 400)]).any()
    assert not ((curve.first_step > 600) & (curve.last_step < 700)).any()


def test_doctor_finds_and_rebuilds_a_wrong_overview(path: Path, writer: Writer) -> None:
    write_run(writer, dict(enumerate(np.linspace(3, 1, 500).tolist())), 100)
    sound = [row[:-1] for row in read_tables(path)["overview"]]
    for statement in (
        "UPDATE overview SET buckets = zeroblob(14 * 50)",
        "UPDATE overview SET n = n - 1",
        "UPDATE overview SET width = 0",
        "UPDATE overview SET last_step = 'x'",
        "UPDATE points SET value = 9 WHERE step = 123",
    ):
        execute(path, statement)
        diagnosis = diagnose(path)
        assert len(diagnosis.wrong) == 1, statement
        with MaintenanceWriter(path) as keeper:
            keeper.repair(diagnosis)
        assert diagnose(path).is_sound
        assert [row[:-1] for row in read_tables(path)["overview"]] == sound


def test_doctor_reports_missing_overviews_and_adds_them(path: Path, writer: Writer, labbench: object) -> None:
    assert callable(labbench)
    write_run(writer, dict.fromkeys(range(500), 1.0), 100)
    execute(path, "DELETE FROM overview")
    result: Result = labbench("doctor", "--db", path)
    assert result.exit_code == 0
    assert "1 series without an overview" in result.output
    labbench("doctor", "--fix", "--db", path)
    assert [n for n, *_ in read_rows(path)] == [500]


def test_first_writer_adds_overviews_to_an_older_database_and_its_reader_needs_none(path: Path) -> None:
    shutil.copyfile(DATABASES / "external id.db", path)
    query = "select count(*) from summary where n > 64"
    with closing(sqlite3.connect(path)) as connection:
        [[n_long]] = connection.execute(query).fetchall()
    assert n_long > 0

    def read_longest() -> BucketedSeries:
        with Reader(path) as reader:
            run = max(reader.runs(), key=lambda run: max((each.n for each in run.summary.values()), default=0))
            return reader.curves([run.id], "loss", COARSE)[run.id]

    before = read_longest()
    Writer(path).close()
    assert len(read_rows(path)) == n_long
    after = read_longest()
    assert len(after.n) <= overview.BUCKETS < len(before.n)
    assert after.n.sum() == before.n.sum()
    assert after.low.min() == pytest.approx(before.low.min(), rel=1e-6)


def test_merged_runs_have_overviews_and_removed_ones_leave_none(path: Path, tmp_path: Path) -> None:
    other, older = tmp_path / "other.db", tmp_path / "older.db"
    with Writer(other) as writer:
        run = write_run(writer, dict.fromkeys(range(500), 1.0), 100)
    shutil.copyfile(DATABASES / "external id.db", older)
    with MaintenanceWriter(path) as writer:
        writer.merge(other)
        assert [n for n, *_ in read_rows(path)] == [500]
        writer.merge(older)
        diagnosis = diagnose(path)
        assert diagnosis.is_sound
        assert diagnosis.n_without_overview == 0
        assert len(read_rows(path)) > 1
        writer.remove([run.key])
    assert 500 not in [n for n, *_ in read_rows(path)]
