"""Curves of long series, which are read in buckets."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers.store_samples import points, start
from labbench.cli import main
from labbench.reports import metric_curves
from labbench.store.writer import Writer

N = 40_000


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        writer.write([points(run, "noisy", [1 + (step * 7919) % 101 for step in range(N)])])
        writer.write([points(run, "smooth", [2 + max(-0.9, min(0.9, math.cos(step / 6000))) for step in range(N)])])
    return tmp_path / "runs.db"


def draw(database: Path, *words: str) -> str:
    result = CliRunner().invoke(main, ["--db", str(database), "plot", *words], env={"COLUMNS": "80", "LINES": "24"})
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "words",
    [("noisy",), ("noisy", "--x", "time"), ("smooth", "--group", "lr"), ("noisy", "--smooth", "0.9")],
    ids=" ".join,
)
def test_a_long_series_looks_the_same_when_it_is_read_in_buckets(
    database: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    from_all_points = draw(database, *words)
    monkeypatch.setattr(metric_curves, "MAX_POINTS", N - 1)  # buckets of two points
    from_buckets = draw(database, *words)
    assert len(from_buckets) == len(from_all_points)
    n_other_cells = sum(a != b for a, b in zip(from_buckets, from_all_points, strict=True))
    assert n_other_cells <= len(from_all_points) // 50  # edges of cells
