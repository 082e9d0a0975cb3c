"""Curves of `labbench plot` as text: the axis, the legend and the names of runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import labbench as library

Labbench = Callable[..., Result]


def record(folder: Path, name: str, losses: list[float], **config: float) -> str:
    with library.start(name=name, config=config, db=folder / "runs.db", system_metrics=False) as run:
        for loss in losses:
            run.log({"train/loss": loss, "val/accuracy": 1.0 / loss})
    return str(run.key)


def test_losses_over_decades_have_a_log_axis_unless_a_linear_one_is_requested(
    labbench: Labbench, tmp_path: Path
) -> None:
    for lr, losses in ((0.1, [2.0, 1.0, 0.5]), (10.0, [2.0, 1e9, 1e6])):
        record(tmp_path, f"lr {lr:g}", losses, lr=lr)
    drawn = labbench("plot", "train/loss").stdout
    assert "train/loss  (log axis; --linear for a linear one)" in drawn
    assert labbench("plot", "train/loss", "--log").stdout.splitlines()[1:] == drawn.splitlines()[1:]
    linear = labbench("plot", "train/loss", "--linear").stdout
    assert "log axis" not in linear
    assert linear.splitlines()[1:] != drawn.splitlines()[1:]
    assert "log axis" not in labbench("plot", "val/accuracy").stdout, "greater values are better"
    assert "log axis" not in labbench("plot", "train/loss", "lr<1").stdout, "the others span a factor of 4"


def test_a_figure_of_losses_over_decades_is_linear_and_names_the_option(labbench: Labbench, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record(tmp_path, "a", [1.0, 1e6])
    assert "--log draws a logarithmic axis" in labbench("plot", "train/loss", "-o", "a.svg").stderr
    for option in ("--log", "--linear"):
        assert "--log draws" not in labbench("plot", "train/loss", option, "-o", "a.svg").stderr


def test_the_legend_of_a_pipe_is_below_the_chart_and_names_every_curve(labbench: Labbench, tmp_path: Path) -> None:
    for number in range(12):
        record(tmp_path, f"run {number}", [1.0, 0.5 + 0.01 * number], lr=float(number))
    lines = labbench("plot", "train/loss").stdout.splitlines()
    border = next(index for index, line in enumerate(lines) if "└" in line)
    assert not any("run" in line for line in lines[1:border])
    assert {f"{letter} run {number}" for number, letter in enumerate("abcdefghijkl")} == {
        entry.strip() for line in lines[border + 3 :] for entry in line.split("   ") if entry.strip()
    }


def test_equal_runs_of_one_name_have_their_keys_in_the_legend(labbench: Labbench, tmp_path: Path) -> None:
    keys = [record(tmp_path, "baseline", [1.0, 0.5]) for _ in range(2)]
    others = [record(tmp_path, "tuned", [1.0, 0.5], lr=lr) for lr in (0.1, 0.2)]
    drawn = labbench("plot", "train/loss").stdout
    assert all(f"baseline {key}" in drawn for key in keys)
    assert "tuned lr=0.1" in drawn
    assert not any(key in drawn for key in others)
