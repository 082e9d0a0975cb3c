"""The why screen: keys in, screens out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import SIZES, choose, compare, golden_name, press, screen, type_in, use, wait_for_words
from helpers.store_samples import points
from helpers.tui_samples import grid_of_runs
from labbench.records import Finished, NewRun, Started, Submission
from labbench.store.writer import Writer
from labbench.tui.screens.base import ReadCancelled


@SIZES
def test_the_why_screen_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("why", size), await press(pilot, "4"))

    use(database, look, size=size)


def test_the_answer_covers_the_filtered_runs_and_the_chosen_metric(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        await type_in(pilot, "optimizer=adam")
        now = await press(pilot, "enter", "4")
        assert "why val/loss  filter optimizer=adam" in now
        assert "best: lr" in now
        assert "optimizer   val" not in now
        assert "why val/accuracy" in await press(pilot, "m")
        await press(pilot, "Y")
        assert pilot.app.clipboard.startswith("best: lr")
        assert "sorted by best val/accuracy" in await press(pilot, "1")

    use(database, look)


def test_why_shows_an_answer_once_runs_have_ended(tmp_path: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "no run has ended yet" in await press(pilot, "4")
        grid_of_runs(tmp_path / "runs.db")
        assert "best: adam" in await wait_for_words(pilot, "best: adam")

    use(tmp_path / "runs.db", look)


@pytest.mark.parametrize("key", ["3", "4"])
def test_quitting_does_not_wait_for_an_analysis(database: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def analyse(selection: object, metric: str, goal: str, *, check: Callable[[], None]) -> None:
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline:
                check()
                time.sleep(0.01)
        except ReadCancelled:
            ended.append("cancelled")
            raise
        ended.append("too late")

    monkeypatch.setattr("labbench.analysis.explain", analyse)

    async def look(pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await pilot.pause(0.5)
        await pilot.press("q")

    use(database, look)
    assert ended == ["cancelled"]


def test_all_screens_open_on_the_first_declared_metric(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        pairs = [(lr, seed) for lr in (1, 2) for seed in (0, 1)]
        new_runs = [NewRun(f"lr={lr} s{seed}", {"lr": lr, "seed": seed}, f"{lr} {seed}") for lr, seed in pairs]
        runs = writer.queue(Submission("declared", "digits", {"gap/loss": "min", "val/accuracy": "max"}), new_runs)
        for run in writer.claim([run.key for run in runs]):
            measured = [points(run, name, [0.5]) for name in ("val/loss", "gap/loss", "val/accuracy")]
            ended = Finished(run.key, 1, "finished", "all epochs")
            writer.write([Started(run.key, 1, "box", 1, "cpu"), *measured, ended])

    async def look(pilot: Pilot[None]) -> None:
        assert "sorted by best val/accuracy" in screen(pilot)
        assert "best val/accuracy" in await press(pilot, "3")
        assert "why val/accuracy" in await press(pilot, "4")

    use(database, look)


def test_an_experiment_is_chosen_for_the_grid_and_for_its_explanation(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        for experiment, rates in {"first": (1, 2), "second": (3, 4)}.items():
            pairs = [(lr, seed) for lr in rates for seed in (0, 1)]
            new_runs = [NewRun(f"lr={lr} s{seed}", {"lr": lr, "seed": seed}, f"{lr} {seed}") for lr, seed in pairs]
            runs = writer.queue(Submission(experiment, "digits", {"val/loss": "min"}), new_runs)
            for run in writer.claim([run.key for run in runs]):
                ended = Finished(run.key, 1, "finished", "all epochs")
                loss = points(run, "val/loss", [run.config["lr"] + 0.01 * run.config["seed"]])
                writer.write([Started(run.key, 1, "box", 1, "cpu"), loss, ended])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "4")
        assert "why val/loss  second (2 of 2 experiments, E changes)" in now
        assert "best: lr 3" in now
        now = await choose(pilot, "E", "first")
        assert "why val/loss  first (1 of 2 experiments, E changes)" in now
        assert "best: lr 1" in now
        assert "first (1 of 2 experiments, E changes)" in await press(pilot, "3")
        await choose(pilot, "E", "second")
        assert "best: lr 3" in await press(pilot, "4")

    use(database, look)
