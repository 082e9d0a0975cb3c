"""Progress of a training grid, computed from its events."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from labbench.grid import Grid, expand, read_grid
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING
from labbench.records import EngineNote, Failed, Finished, Points, RunRecord, Started, Submitted
from labbench.runner.progress import GridProgress, TerminalProgress, failure_cause, progress_line


@pytest.fixture
def grid(tiny_grid: Path) -> Grid:
    return read_grid(tiny_grid)


@pytest.fixture
def runs(grid: Grid) -> list[RunRecord]:
    configs = expand(grid, {**TRAINING, **BUILTIN["digits"]}).configs
    return [RunRecord(i, f"k{i}", f"run {i}", grid.name, "queued", config) for i, config in enumerate(configs)]


def test_progress_counts_ended_runs_steps_and_epochs(grid: Grid, runs: list[RunRecord]) -> None:
    progress = GridProgress(grid, runs, runs)
    for event in (
        Started("k0", 1, "here", 1, "cpu"),
        Points("k0", 1, "train/loss", range(20), range(20), [1.0] * 20),
        Points("k0", 1, "epoch", [0, 20], [0, 9], [0.0, 1.0]),
        Started("k1", 1, "here", 1, "cpu"),
        Failed("k1", 1, "user", "ValueError: no"),
        Started("k2", 1, "here", 1, "cpu"),
        Finished("k2", 1, "diverged", "non-finite train/loss at step 3"),
    ):
        progress.take(event)
    assert (progress.ended, progress.running, progress.steps) == (2, {"k0"}, 20)
    assert progress.share == pytest.approx((0.5 + 1 + 1) / 4)
    line = progress_line(progress, rate=1234.0, left=65.0)
    assert line == "2/4 runs · 1 running · 1 failed · 1 diverged · 1,234 run-steps/s · 1m05s left"


def test_the_best_value_follows_the_goal_and_ignores_nan(grid: Grid, runs: list[RunRecord]) -> None:
    progress = GridProgress(grid, runs, runs)
    for run, values in (("k0", [0.5, 0.9]), ("k1", [float("nan")]), ("k2", [0.8])):
        progress.take(Points(run, 1, "val/accuracy", range(len(values)), range(len(values)), values))
    assert "best val/accuracy 0.9000 (run 0)" in progress_line(progress, rate=0.0, left=None)


def test_the_best_value_is_not_of_a_diverged_run(grid: Grid, runs: list[RunRecord]) -> None:
    progress = GridProgress(grid, runs, runs)
    for run, values in (("k0", [0.5]), ("k1", [0.9])):
        progress.take(Points(run, 1, "val/accuracy", [1], [1], values))
    assert "best val/accuracy 0.9000 (run 1)" in progress_line(progress, rate=0.0, left=None)
    progress.take(Finished("k1", 1, "diverged", "non-finite train/loss at step 3"))
    assert "best val/accuracy 0.5000 (run 0)" in progress_line(progress, rate=0.0, left=None)


def test_the_best_value_is_of_the_metric_that_ranks_first(grid: Grid, runs: list[RunRecord]) -> None:
    progress = GridProgress(replace(grid, metrics={}, stop=None), runs, runs)
    for metric, value in (("train/loss", 0.1), ("grad_norm", 9.0), ("eval_loss", 0.3), ("test_accuracy", 0.8)):
        progress.take(Points("k0", 1, metric, [1], [1], [value]))
    assert "best eval_loss 0.3000 (run 0)" in progress_line(progress, rate=0.0, left=None)


def test_a_log_file_receives_plain_lines_without_escape_sequences(grid: Grid, runs: list[RunRecord]) -> None:
    stream = io.StringIO()
    progress = TerminalProgress(Path("runs.db"), stream)
    progress.begin(grid, runs, runs)
    progress.take(Failed("k1", 1, "user", "ValueError: \x1b]52;c;aGk=\x07"))
    progress.end()
    text = stream.getvalue()
    assert "\x1b" not in text
    assert text.splitlines()[0] == "tiny: 4 runs to train"
    assert text.splitlines()[1].startswith("failed: run 1 (k1): ValueError")
    assert text.splitlines()[2].startswith("1/4 runs")


def test_runs_that_fail_alike_are_reported_once_with_their_number(grid: Grid, runs: list[RunRecord]) -> None:
    stream = io.StringIO()
    progress = TerminalProgress(Path("runs.db"), stream)
    progress.begin(grid, runs, runs)
    for index in range(3):
        traceback = f'File "train.py", line 3\nValueError: no lr {index}e-3\n'
        progress.take(Failed(f"k{index}", 1, "user", "python: exit status 1", traceback))
    progress.take(Failed("k3", 1, "user", "KeyError: 'x'", "KeyError: 'x'"))
    progress.end()
    failures = [line for line in stream.getvalue().splitlines() if "fail" in line and not line.startswith("4/4")]
    assert failures == [
        "failed: run 0 (k0): python: exit status 1: ValueError: no lr 0e-3",
        "failed: run 3 (k3): KeyError: 'x'",
        "3 runs failed alike, the first: run 0 (k0)",
    ]


def test_the_engine_of_failed_runs_is_not_reported_and_an_error_is_printed_once(
    grid: Grid, runs: list[RunRecord]
) -> None:
    stream = io.StringIO()
    progress = TerminalProgress(Path("runs.db"), stream)
    progress.begin(grid, runs, runs)
    for index in range(4):
        progress.take(EngineNote(f"k{index}", 1, "trained alone, because KeyError: 'x'\n"))
    for index in range(3):
        progress.take(Failed(f"k{index}", 1, "user", "KeyError: 'x' (task.py:3)", "KeyError: 'x'"))
    progress.end()
    text = stream.getvalue()
    assert "1 run trained alone" in text
    assert text.count("task.py:3") == 1
    assert "3 runs failed alike, the first: run 0 (k0)\n" in text


def test_a_failure_says_its_message_once_if_the_traceback_ends_with_it() -> None:
    message = "samples of `val` must be pairs"
    assert failure_cause(Failed("k", 1, "user", message, f"labbench.errors.SampleError: {message}")) == message


def test_a_closed_terminal_does_not_end_the_training(grid: Grid, runs: list[RunRecord]) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("Input/output error")

    progress = TerminalProgress(Path("runs.db"), Gone())
    progress.begin(grid, runs, runs)
    progress.tick()
    progress.end()


def test_the_line_names_the_nodes_of_a_cluster(grid: Grid, runs: list[RunRecord]) -> None:
    progress = GridProgress(grid, runs, runs)
    progress.take(Submitted("k0", 1, "slurm", "c", "7"))
    progress.take(Started("k0", 1, "node1", 1, "cuda:0"))
    progress.take(Started("k1", 1, "here", 1, "cpu"))
    assert progress_line(progress, rate=0.0, left=None) == "0/4 runs · 2 running on node1 cuda:0"
