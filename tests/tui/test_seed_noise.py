"""Differences of runs that seeds explain, and those that they do not."""

from __future__ import annotations

from pathlib import Path

from helpers.store_samples import points
from labbench.records import Finished, NewRun, RunRecord, Started, Submission
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui.screens.compare_table import comparison_rows
from labbench.tui.seed_noise import read_seed_noise

LOSSES = {0.1: [0.50, 0.54, 0.52], 0.2: [0.53, 0.51, 0.55], 0.3: [0.90, 0.94, 0.92]}


def runs_with_losses(path: Path, losses: dict[float, list[float]]) -> list[RunRecord]:
    """Write runs with these best losses, by lr and seed, and return them."""
    new_runs = [
        NewRun(f"lr={lr} s{seed}", {"lr": lr, "seed": seed}, f"{lr} {seed}")
        for lr, values in losses.items()
        for seed in range(len(values))
    ]
    with Writer(path) as writer:
        queued = writer.queue(Submission("e", "", {"val/loss": "min"}), new_runs)
        for run in writer.claim([run.key for run in queued]):
            value = losses[run.config["lr"]][run.config["seed"]]
            writer.write([Started(run.key, run.attempt, "box", 1, "cpu"), points(run, "val/loss", [1.0, value])])
            writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])
    with Reader(path) as reader:
        return reader.by_keys([run.key for run in queued])


def colours_of_losses(path: Path, runs: list[RunRecord]) -> list[str]:
    with Reader(path) as reader:
        noise = read_seed_noise(reader, runs, ["val/loss"])
    rows = comparison_rows(runs, {"val/loss": "min"}, noise, everything=False)
    [row] = [row for row in rows if row.label.text == "val/loss"]
    return [cell.colour for cell in row.cells]


def test_only_differences_larger_than_the_spread_over_seeds_are_coloured(tmp_path: Path) -> None:
    runs = runs_with_losses(tmp_path / "runs.db", LOSSES)
    first, close, far = runs[0], runs[3], runs[6]
    assert colours_of_losses(tmp_path / "runs.db", [first, close, far]) == ["foreground", "foreground", "error"]
    assert colours_of_losses(tmp_path / "runs.db", [far, first]) == ["foreground", "success"]


def test_without_repeated_seeds_no_difference_is_coloured(tmp_path: Path) -> None:
    runs = runs_with_losses(tmp_path / "runs.db", {0.1: [0.5], 0.3: [0.9]})
    assert colours_of_losses(tmp_path / "runs.db", runs) == ["foreground", "foreground"]


def test_two_seeds_each_say_little_about_a_difference(tmp_path: Path) -> None:
    """Four runs have two degrees of freedom: 4.3 standard errors are needed, not 1.96."""
    runs = runs_with_losses(tmp_path / "runs.db", {0.1: [0.50, 0.54], 0.2: [0.60, 0.64]})
    assert colours_of_losses(tmp_path / "runs.db", [runs[0], runs[2]]) == ["foreground", "foreground"]
