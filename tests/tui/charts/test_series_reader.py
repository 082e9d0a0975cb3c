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
from labbench.tui.charts.series_reader import read_series

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
    series = read_series(path, [run], "loss", axis)[run.key]
    assert series is not None
    assert series.exact is not None
    scale = {"step": 1.0, "epoch": 2.0 / (N - 1), "time": 0.01}[axis]
    best = best_point(series, "max")
    assert best is not None
    assert best == (pytest.approx(SPIKE * scale), 5.0)
    assert (series.exact.x[0], series.exact.x[-1]) == (0.0, pytest.approx((N - 1) * scale))


def test_a_run_without_epochs_is_drawn_by_step(runs: tuple[Path, list[RunRecord]]) -> None:
    path, [with_epochs, without] = runs
    series = read_series(path, [with_epochs, without], "loss", "epoch")
    by_epoch, by_step = series[with_epochs.key], series[without.key]
    assert by_epoch is not None
    assert by_step is not None
    assert (by_epoch.is_by_step, by_step.is_by_step) == (False, True)
    assert by_step.x[0] == 0
    assert by_step.x[-1] > N / 2
    cache = SeriesCache()
    cache.store([with_epochs, without], series, "loss", "epoch", visible=2)
    labels = [line.label for line in cache.lines([with_epochs, without], {}, "loss", "epoch")]
    assert [label.startswith("by step: ") for label in labels] == [False, True]
