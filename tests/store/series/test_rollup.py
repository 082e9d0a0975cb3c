"""The rollup matches the points after any sequence of writes, and curves are read from it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.store_samples import points, start
from helpers.summaries import is_same_summary, summarize
from labbench.errors import InputError
from labbench.records import Boundary, Points
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.series import points as points_module
from labbench.store.series import rollup
from labbench.store.series.buckets import BucketedSeries
from labbench.store.series.curves import CurveRequest
from labbench.store.writer import Writer

NAN, INF = math.nan, math.inf

SAME_DATABASE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.floats() | st.sampled_from([0.0, 1.0, NAN, INF, -INF, 1.7976931348623157e308])
SERIES = st.dictionaries(st.integers(-5, 60) | st.integers(-(10**9), 10**9), VALUES, max_size=50)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set chunks to two buckets of two points, so that a few dozen points fill several levels."""
    monkeypatch.setattr(rollup, "FACTOR", 2)
    monkeypatch.setattr(rollup, "CHUNK", 4)
    monkeypatch.setattr(rollup, "MAX_DELAY", 3)


def expected_chunks(series: dict[int, float]) -> dict[tuple[int, int], list[tuple[float, ...]]]:
    """Compute all full chunks from all points at once, by definition, by level and first step.

    The time of a point is ten times its step.
    """
    factor, buckets = rollup.FACTOR, rollup.CHUNK // rollup.FACTOR
    ordered = sorted(series.items())
    chunks, level = {}, 1
    while len(ordered) >= (per_chunk := buckets * factor**level):
        for begin in range(0, len(ordered) - per_chunk + 1, per_chunk):
            starts = range(begin, begin + per_chunk, factor**level)
            chunks[level, ordered[begin][0]] = [bucket(ordered[start : start + factor**level]) for start in starts]
        level += 1
    return chunks


def bucket(inside: Sequence[tuple[int, float]]) -> tuple[float, ...]:
    finite = [value for _, value in inside if math.isfinite(value)]
    first, last = inside[0][0], inside[-1][0]
    mean = float(sum(map(Fraction, finite)) / len(finite)) if finite else NAN
    return (
        first, last, 10 * first, 10 * last, min(finite, default=NAN), max(finite, default=NAN), mean,
        len(inside) - len(finite),
    )  # fmt: skip


def stored_chunks(path: Path) -> dict[tuple[int, int], list[rollup.Bucket]]:
    """Return the stored_chunks chunks of the newest run."""
    query = "SELECT level, first_step, buckets FROM rollup WHERE run_id = (SELECT max(id) FROM runs)"
    with closing(sqlite3.connect(path)) as connection:
        return {
            (level, first): [rollup.Bucket._make(fields) for fields in rollup.BUCKET.iter_unpack(chunk)]
            for level, first, chunk in connection.execute(query)
        }


def assert_chunks_match(path: Path, series: dict[int, float]) -> None:
    """Assert that the chunks match the points; the last points may be in no chunk yet."""
    actual = stored_chunks(path)
    covered = rollup.CHUNK * sum(level == 1 for level, _ in actual)
    assert covered > len(series) - rollup.CHUNK - rollup.MAX_DELAY
    expected = expected_chunks(dict(sorted(series.items())[:covered]))
    assert actual.keys() == expected.keys()
    for chunk_key, chunk in expected.items():
        for expected_bucket, stored in zip(chunk, actual[chunk_key], strict=True):
            np.testing.assert_array_equal((*stored[:6], stored[7]), (*expected_bucket[:6], expected_bucket[7]))
            assert stored.mean == pytest.approx(expected_bucket[6], rel=1e-9, abs=1e293, nan_ok=True)


@SAME_DATABASE
@example(batches=[(dict.fromkeys(range(7), 1.7976931348623157e308) | {-1: INF}, False, None)])
@given(batches=st.lists(st.tuples(SERIES, st.booleans(), st.none() | st.integers(-5, 60)), max_size=8))
def test_rollup_matches_the_points_after_any_sequence_of_writes_and_retries(
    writer: Writer,
    reader: Reader,
    path: Path,
    small_chunks: None,
    batches: list[tuple[dict[int, float], bool, int | None]],
) -> None:
    """In any order and repeated; each retry deletes the points after its boundary."""
    [run] = start(writer, rerun=True)
    series: dict[int, float] = {}
    for batch, in_order, boundary in batches:
        batch = dict(sorted(batch.items())) if in_order else batch
        writer.write([points(run, "loss", batch)])
        series |= batch
        if boundary is not None:
            writer.write([Boundary(run.key, run.attempt, boundary)])
            [run] = writer.claim([run.key], statuses=["running"])
            series = {step: value for step, value in series.items() if boundary and step <= boundary}
        assert_chunks_match(path, series)
    summary = reader.find(run.key).summary
    assert is_same_summary(summary["loss"], summarize(series)) if series else summary == {}


def select_range(series: dict[int, float], first: int, last: int) -> dict[int, float]:
    return {step: value for step, value in sorted(series.items()) if first <= step <= last}


def assert_curve_matches(curve: BucketedSeries, series: dict[int, float]) -> None:
    """Assert that each point is in exactly one bucket and each bucket matches its points."""
    assert curve.n.sum() == len(series)
    assert (curve.first_step[1:] > curve.last_step[:-1]).all()
    assert curve.first_time is not None
    assert curve.last_time is not None
    for index in range(len(curve.n)):
        inside = [*select_range(series, curve.first_step[index], curve.last_step[index]).items()]
        first, last, first_time, last_time, low, high, mean, bad = bucket(inside)
        assert (first, last) == (curve.first_step[index], curve.last_step[index])
        assert (first_time, last_time) == (curve.first_time[index], curve.last_time[index])
        assert (len(inside), bad) == (curve.n[index], curve.n_nonfinite[index])
        np.testing.assert_array_equal((curve.low[index], curve.high[index]), (low, high))
        assert curve.mean[index] == pytest.approx(mean, rel=1e-9, abs=1e293, nan_ok=True)


@SAME_DATABASE
@given(
    series=st.lists(st.tuples(st.sampled_from([1, 1, 1, 3, 100]), VALUES), min_size=1, max_size=200),
    columns=st.integers(1, 40),
    zoom=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_zoomed_curve_keeps_extremes_and_counts_each_point_once(
    writer: Writer,
    reader: Reader,
    small_chunks: None,
    series: list[tuple[int, float]],
    columns: int,
    zoom: tuple[float, float],
) -> None:
    """Steps are partly dense, partly far apart."""
    steps = np.cumsum([gap for gap, _ in series]).tolist()
    logged = dict(zip(steps, [value for _, value in series], strict=True))
    [run] = start(writer, rerun=True)
    writer.write([points(run, "loss", logged)])
    whole = reader.curves([run.id], "loss", CurveRequest(columns))[run.id]
    assert len(whole.n) <= columns
    assert_curve_matches(whole, logged)
    first, last = sorted(round(steps[0] + share * (steps[-1] - steps[0])) for share in zoom)
    inside = select_range(logged, first, last)
    zoomed = reader.curves([run.id], "loss", CurveRequest(columns, first_step=first, last_step=last))
    assert zoomed.keys() == ({run.id} if inside else set())
    if inside:
        curve = zoomed[run.id]
        assert len(curve.n) <= columns
        assert_curve_matches(curve, inside)
        widest = 2 * (last - first + 1) / columns
        assert ((curve.last_step - curve.first_step) <= widest).all()
        without_times = CurveRequest(columns, first_step=first, last_step=last, times=False)
        plain = reader.curves([run.id], "loss", without_times)[run.id]
        assert plain.first_time is plain.last_time is None
        np.testing.assert_array_equal(plain.mean, curve.mean)


def noisy_values(n: int) -> list[float]:
    return (np.random.default_rng(0).normal(size=n) + 1 / np.arange(1, n + 1)).tolist()


def test_chunks_of_real_size_match_the_points(writer: Writer, path: Path) -> None:
    values = noisy_values(60_000)
    values[7], values[30_000], values[59_999] = NAN, INF, -INF
    [run] = start(writer)
    for at in range(0, 60_000, 7_000):
        steps = range(at, min(at + 7_000, 60_000))
        writer.write([Points(run.key, 1, "loss", steps, [10 * step for step in steps], values[at : at + 7_000])])
    assert {level for level, _ in stored_chunks(path)} == {1, 2}
    assert_chunks_match(path, dict(enumerate(values)))


def test_short_series_has_no_rollup(writer: Writer, path: Path) -> None:
    [run] = start(writer)
    writer.write([points(run, "loss", noisy_values(rollup.CHUNK - 1))])
    assert stored_chunks(path) == {}
    writer.write([points(run, "loss", dict.fromkeys(range(rollup.CHUNK, rollup.CHUNK + rollup.MAX_DELAY), 0.0))])
    assert len(stored_chunks(path)) == 1


def test_runs_that_fill_chunks_together_write_them_in_different_transactions(writer: Writer, path: Path) -> None:
    runs, batch = start(writer, 64), rollup.CHUNK // 20
    written = []
    for first in range(0, 2 * rollup.CHUNK + rollup.MAX_DELAY, batch):
        values = dict.fromkeys(range(first, first + batch), 1.0)
        writer.write([points(run, "loss", values) for run in runs])
        with closing(sqlite3.connect(path)) as connection:
            [n] = connection.execute("SELECT count(*) FROM rollup").fetchone()
            written.append(n - sum(written))
    assert sum(written) == 2 * len(runs)
    assert max(written) <= len(runs) / 4
    assert diagnose(path).is_sound


def count_rows_read(monkeypatch: pytest.MonkeyPatch, read: Callable[[], object]) -> int:
    """Return the number of points and buckets that a call reads, all through one of two functions of numpy."""
    fetched = 0

    def counting(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def counted(*arguments: object) -> np.ndarray:
            nonlocal fetched
            array = function(*arguments)
            fetched += len(array)
            return array

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(np, "fromiter", counting(np.fromiter))
        patch.setattr(np, "frombuffer", counting(np.frombuffer))
        read()
    return fetched


@pytest.mark.parametrize("columns", [50, 400])
def test_rows_read_for_a_curve_depend_on_the_number_of_columns(
    writer: Writer, reader: Reader, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    [run] = start(writer)
    n = 200_000
    writer.write([points(run, "loss", noisy_values(n))])
    for first, last in ((0, n - 1), (50_000, 150_000), (100_000, 100_999), (199_000, n - 1)):
        read = partial(reader.curves, [run.id], "loss", CurveRequest(columns, first, last))
        # at most one level finer than the columns, plus the incomplete chunks at both ends
        assert count_rows_read(monkeypatch, read) <= rollup.FACTOR * columns + 4 * rollup.CHUNK


def test_late_point_rebuilds_only_later_chunks(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that log to one series write slightly out of order, which must not rebuild the whole series."""
    [run] = start(writer)
    values = dict(enumerate(noisy_values(100_000)))
    writer.write([points(run, "loss", values)])
    rebuilt = 0
    read_buckets = rollup._read_buckets

    def counted(rows: Sequence[tuple[int, int, float]]) -> list[tuple[float, ...]]:
        nonlocal rebuilt
        rebuilt += 1
        return read_buckets(rows)

    monkeypatch.setattr(rollup, "_read_buckets", counted)
    values |= {99_990: 5.0, 97_000: -99.0}
    writer.write([points(run, "loss", {99_990: 5.0, 97_000: -99.0})])
    assert rebuilt <= 3
    assert_chunks_match(path, values)


def test_curve_without_columns_is_rejected(writer: Writer, reader: Reader) -> None:
    with pytest.raises(InputError, match="at least one column, not 0"):
        reader.curves([1], "loss", CurveRequest(0))


def test_rebuilding_a_series_changes_nothing(writer: Writer, path: Path) -> None:
    [run] = start(writer)
    writer.write([points(run, "loss", noisy_values(30_000))])
    before = stored_chunks(path)
    with writer._transaction() as connection:
        points_module.rebuild_series(connection, run.id, 1)
    assert stored_chunks(path) == before
