"""Series read for charts: true points, and runs without the chart's x axis."""

from __future__ import annotations

from pathlib import Path

import pytest

from labbench.charts.lines import best_point
from labbench.charts.view import XAxis
from labbench.records import Finished, NewRun, Points, RunRecord, Started, Submission
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui.charts.series_cache import SeriesCache
from labbench.tui.charts.series_reader import RUNS_IN_FULL, SeriesRequest, read_finer, read_series

N = 20_000
SPIKE = 7_777


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, list[RunRecord]]:
    """A long run with a spike and epochs, and a run without epochs."""
    path, steps = tmp_path / "runs.db", list(range(N))
    values = [0.1] * N
    values[SPIKE] = 5.0
    with Writer(path) as writer:
        new = [NewRun("with epochs", {}, "1"), NewRun("without", {}, "2")]
        keys = [run.key for run in writer.queue(Submission("long", ""), new)]
        for run in writer.claim(keys):
            writer.write([Started(run.key, run.attempt, "box", 1, "cpu")])
            writer.write([Points(run.key, run.attempt, "loss", steps, [10 * step for step in steps], values)])
            if run.key == keys[0]:
                writer.write([Points(run.key, run.attempt, "epoch", [0, N - 1], [0, 1], [0.0, 2.0])])
            writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])
    with Reader(path) as reader:
        records = {run.key: run for run in reader.runs()}
    return path, [records[key] for key in keys]


@pytest.mark.parametrize("axis", ["step", "epoch", "time"])
def test_the_best_point_and_the_ends_of_a_long_series_are_exact(
    runs: tuple[Path, list[RunRecord]], axis: XAxis
) -> None:
    path, [run, _] = runs
    series = read_series(path, SeriesRequest("loss", [run]), axis)[run.key]
    assert series is not None
    assert series.exact is not None
    scale = {"step": 1.0, "epoch": 2.0 / (N - 1), "time": 0.01}[axis]
    best = best_point(series, "max")
    assert best is not None
    assert best == (pytest.approx(SPIKE * scale), 5.0)
    assert (series.exact.x[0], series.exact.x[-1]) == (0.0, pytest.approx((N - 1) * scale))


def test_a_run_without_epochs_is_drawn_by_step(runs: tuple[Path, list[RunRecord]]) -> None:
    path, [with_epochs, without] = runs
    request = SeriesRequest("loss", [with_epochs, without])
    series = read_series(path, request, "epoch")
    by_epoch, by_step = series[with_epochs.key], series[without.key]
    assert by_epoch is not None
    assert by_step is not None
    assert (by_epoch.is_by_step, by_step.is_by_step) == (False, True)
    assert by_step.x[0] == 0
    assert by_step.x[-1] > N / 2
    cache = SeriesCache()
    cache.store(request, series, "epoch")
    labels = [line.label for line in cache.lines([with_epochs, without], {}, "loss", "epoch", {})]
    assert [label.startswith("by step: ") for label in labels] == [False, True]


def test_of_very_many_runs_only_those_that_stand_out_are_read_in_full(tmp_path: Path) -> None:
    path, steps = tmp_path / "runs.db", list(range(200))
    with Writer(path) as writer:
        new = [NewRun(f"run {number}", {"seed": number}, str(number)) for number in range(RUNS_IN_FULL + 1)]
        for run in writer.claim([run.key for run in writer.queue(Submission("many", ""), new)]):
            writer.write([Points(run.key, run.attempt, "loss", steps, steps, [0.5 + 1e-9 * step for step in steps])])
            writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])
    with Reader(path) as reader:
        runs = reader.runs()
    cache = SeriesCache()
    cache.n_visible = len(runs)
    request = cache.missing(runs, "loss", "step", {runs[3].key})
    assert [run.key for run in request.runs] == [runs[3].key]
    series = read_series(path, request, "step")
    cache.store(request, series, "step")
    coarse, whole = series[runs[0].key], series[runs[3].key]
    assert coarse is not None
    assert whole is not None
    assert (len(coarse), coarse.is_coarse, len(whole), whole.is_coarse) == (50, True, 200, False)
    assert cache.missing(runs, "loss", "step", {runs[3].key}) == SeriesRequest("loss", [], [])
    assert [run.key for run in cache.missing(runs, "loss", "step", {runs[0].key}).runs] == [runs[0].key]
    # a zoomed window shows true points again
    window = (50.0, 60.0)
    requested = cache.find_coarse(runs, "loss", "step", window, dots=100)
    assert len(requested) == RUNS_IN_FULL
    finer = read_finer(path, requested, "loss", "step", window)[runs[0].key]
    assert [y for x, y in zip(finer.x, finer.y, strict=True) if 50 <= x <= 60] == [
        0.5 + 1e-9 * x for x in range(50, 61)
    ]
