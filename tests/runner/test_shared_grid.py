"""A grid that two processes train at the same time: each counts what it trains, and what the other one does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")

from labbench.cli.run_report import print_report
from labbench.grid import Grid
from labbench.records import Finished, RunRecord
from labbench.runner.expanded_grid import load_grid
from labbench.runner.progress import TerminalProgress
from labbench.runner.run_grid import TrainingOptions, run_grid
from labbench.store.writer import Writer


class BesideAnother(TerminalProgress):
    """Progress of a grid of which another process claims two runs at the start, and ends the first of them."""

    def begin(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None:
        super().begin(grid, runs, due)
        self.other = Writer(Path("runs.db"))
        first, _ = self.other.claim([run.key for run in due[:2]])
        self.other.write([Finished(first.key, first.attempt, "finished", "all epochs")])


def test_runs_that_another_process_takes_are_counted_as_such(
    tiny_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    expanded, stream = load_grid(tiny_grid), io.StringIO()
    progress = BesideAnother(Path("runs.db"), stream)
    outcome = run_grid(expanded, Path("runs.db"), progress, TrainingOptions(device="cpu", workers=0))
    last_line = stream.getvalue().splitlines()[-1]
    assert last_line.startswith("2/2 runs · 0 running · 2 in another process")
    assert (outcome.trained, outcome.ended, len(outcome.elsewhere)) == (2, {"finished": 2}, 2)
    print_report(expanded, outcome, Path("runs.db"), with_table=False)
    report = capsys.readouterr().err
    assert "tiny: 2 finished in " in report
    assert "tiny: 1 run is training in another process" in report
    assert "tiny: 1 run was trained by another process" in report
    progress.other.close()


def test_runs_that_are_running_elsewhere_are_not_done(
    tiny_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    expanded, stream = load_grid(tiny_grid), io.StringIO()
    progress = BesideAnother(Path("runs.db"), stream)
    run_grid(load_grid(tiny_grid, limit=3), Path("runs.db"), progress, TrainingOptions(device="cpu", workers=0))
    stream = io.StringIO()
    run_grid(expanded, Path("runs.db"), TerminalProgress(Path("runs.db"), stream), TrainingOptions("cpu", 0))
    assert stream.getvalue().startswith("tiny: 1 run to train, 2 done before, 1 running in another process\n")
    progress.other.close()
