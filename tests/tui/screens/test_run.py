"""The run screen: facts, charts, output and pictures of one run; keys in, screens out."""

from __future__ import annotations

import math
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rich.color import Color
from textual.content import Content
from textual.pilot import Pilot

import labbench
from helpers.golden import SIZES, SMALL, compare, golden_name, press, settle, type_in, use, wait_for_words
from helpers.store_samples import start
from helpers.tui_samples import write_portraits
from labbench.records import Finished, Log, MetricSummary, RunRecord, Started, Status
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.text import format_number
from labbench.tui.screens.run import RunScreen
from labbench.tui.screens.run_facts import facts
from labbench.tui.screens.run_queries import RunDetail
from labbench.tui.theme import DARK, LIGHT
from labbench.tui.widgets.log_view import LogView
from labbench.tui.widgets.partial_drawing import StaticText


@SIZES
def test_the_run_screen_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("run", size), with_fixed_key_and_times(await press(pilot, "enter"), database))

    use(database, look, size=size)


@SIZES
def test_pictures_of_the_network_are_beside_the_facts_or_in_their_place(database: Path, size: tuple[int, int]) -> None:
    with Reader(database) as reader:
        write_portraits(database, reader.runs(None))

    async def look(pilot: Pilot[None]) -> None:
        before = await press(pilot, "enter")
        compare(golden_name("pictures", size), with_fixed_key_and_times(await press(pilot, "p"), database))
        assert await press(pilot, "escape") == before

    use(database, look, size=size)


def with_fixed_key_and_times(screen: str, database: Path) -> str:
    """Return the screen of the best run with its key and times replaced by constants."""
    with Reader(database) as reader:
        key = reader.find("adam lr=1 s1").key
    return re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-30 12:00:00", screen.replace(key, "k3f9a2b1"))


def test_the_run_from_which_a_run_continued_is_named() -> None:
    run = RunRecord(1, "k3f9a2b1", "longer", "e", "running", {}, continued_from="x7h2m4pq", continued_step=400)
    assert "continued from   x7h2m4pq at step 400" in facts(RunDetail(run), 60).plain


@pytest.mark.parametrize("width", [38, 46, 52, 80])
def test_the_metrics_fit_the_width_of_the_facts(width: int) -> None:
    summary = {
        name: MetricSummary(20, 1, 7, last, 400, best, 380, 2.3, 10)
        for name, last, best in (("val/accuracy_per_class", 0.9963, 0.9926), ("train/loss", 0.0101, 0.004431))
    }
    lines = facts(RunDetail(RunRecord(1, "k", "r", "e", "finished", {}, summary=summary)), width).plain.splitlines()
    table = lines[lines.index("metrics") + 1 :]
    assert max(map(len, table)) <= width
    assert [line.split()[-3:] for line in table if "loss" in line] == [["0.01010", "0.00443", "380"]]
    assert "  1 non-finite, first at step 7" in table


@pytest.mark.parametrize(("status", "last"), [("diverged", 0.2), ("diverged", math.nan), ("finished", math.inf)])
def test_the_best_value_of_a_diverged_run_is_not_shown(status: Status, last: float) -> None:
    summary = {"val/loss": MetricSummary(3, 0 if last == 0.2 else 1, None, last, 3, 0.1, 1, 2.3, 0)}
    lines = facts(RunDetail(RunRecord(1, "k", "r", "e", status, {}, summary=summary)), 60).plain.splitlines()
    assert [line.split()[1:] for line in lines if line.startswith("val/loss")] == [[format_number(last)]]
    assert status in lines[1]


def test_output_is_followed_and_searched(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        [run] = start(writer, 1)
        lines = "".join(f"epoch {number}: loss {1 / (number + 1):.3f}\n" for number in range(100))
        bar = "10 %\r50 %\r100 %\n"
        writer.write([Started(run.key, 1, "box", os.getpid(), "cpu"), Log(run.key, 1, lines), Log(run.key, 1, bar)])

        async def look(pilot: Pilot[None]) -> None:
            now = await press(pilot, "enter")
            assert "│100 % " in now
            assert "50 %" not in now
            writer.write([Log(run.key, 1, "warning: \x1b[31mslow\x1b[0m\n"), Finished(run.key, 1, "finished", "done")])
            now = await wait_for_words(pilot, "slow")
            assert "warning: slow" in now
            log = pilot.app.screen.query_one(LogView)
            parts = [part for y in range(log.size.height) for part in log.render_line(y)]
            assert ("slow", Color.from_ansi(1)) in [(part.text, part.style.color) for part in parts if part.style]
            await press(pilot, "slash")
            await type_in(pilot, "EPOCH 42")
            now = await press(pilot, "enter")
            assert "epoch 42: loss" in now
            assert "1 line with “epoch 42”" in now
            assert "runs" in await press(pilot, "escape")

        use(database, look)


def test_the_run_screen_says_that_its_run_was_deleted(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        with Writer(database) as writer, Reader(database) as reader:
            writer.remove([reader.find("adam lr=1 s1").key])
        assert "this run was deleted" in await wait_for_words(pilot, "was deleted")
        await settle(pilot)
        assert "11 runs" in await press(pilot, "escape")

    use(database, look)


@pytest.mark.parametrize(("name", "drawn"), [("LABBENCH_ASCII", "@@@@"), ("NO_COLOR", "▓▓▓▓")])
def test_pictures_are_drawn_without_colours_and_without_unicode(
    database: Path, monkeypatch: pytest.MonkeyPatch, name: str, drawn: str
) -> None:
    monkeypatch.setenv(name, "1")
    with Reader(database) as reader:
        write_portraits(database, reader.runs(None))

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        now = await press(pilot, "p")
        assert drawn in now
        assert "▀" not in now
        assert now.isascii() == (name == "LABBENCH_ASCII")

    use(database, look)


def test_a_run_without_pictures_explains_how_to_get_them_and_p_shows_the_chart_again(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        before = await press(pilot, "enter")
        now = await press(pilot, "p")
        assert "[runtime] watch = true" in now
        assert await press(pilot, "p") == before

    use(database, look)


def test_pictures_scroll_and_a_search_returns_to_the_output(database: Path) -> None:
    with Reader(database) as reader:
        write_portraits(database, reader.runs(None))

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        first = await press(pilot, "p")
        assert "decision boundary" in first
        assert "gradients by layer" not in first
        assert "gradients by layer" in await press(pilot, "G")
        assert await press(pilot, "g") == first
        now = await press(pilot, "slash", "escape")
        assert "no output is here: none was captured" in now

    use(database, look, size=SMALL)


def test_logged_images_are_named_beside_the_facts_and_drawn_with_p(tmp_path: Path) -> None:
    with labbench.start("gan", db=tmp_path / "runs.db", system_metrics=False) as run:
        for step in (0, 50):
            run.log({"loss": 1.0, "samples": labbench.Image(np.eye(12) * (step > 0))}, step=step)

    async def look(pilot: Pilot[None]) -> None:
        assert "p shows the image samples of step 50" in await press(pilot, "enter")
        now = await press(pilot, "p")
        assert "samples  step 50; 1 earlier, from step 0" in now
        assert "▀" * 12 in now

    use(tmp_path / "runs.db", look)


def test_long_facts_continue_below_their_start_and_a_command_is_shown() -> None:
    versions = {"python": "3.11.7", "labbench": "0.2.0", "numpy": "2.4.6"}
    record = RunRecord(1, "k", "r", "e", "finished", {}, versions=versions)
    detail = RunDetail(record, sources={"command": "cd here && python train.py\n", "script": "1\n2\n"})
    lines = facts(detail, 50).plain.splitlines()
    index = next(index for index, line in enumerate(lines) if line.startswith("versions"))
    assert lines[index : index + 2] == ["versions         python 3.11.7, labbench 0.2.0,", " " * 17 + "numpy 2.4.6"]
    assert "command          cd here && python train.py" in lines
    assert "script           2 lines" in lines


def test_output_is_visible_whatever_its_colours(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer, 1)
        words = "\x1b[30mblack\x1b[0m \x1b[97mwhite\x1b[0m \x1b[31;41mhidden\x1b[0m \x1b[32mgreen\x1b[0m\n"
        writer.write([Log(run.key, 1, words), Finished(run.key, 1, "finished", "done")])

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        for theme in (DARK.name, LIGHT.name):
            pilot.app.theme = theme
            await settle(pilot)
            log = pilot.app.screen.query_one(LogView)
            styles = {part.text: part.style for part in log.render_line(0) if part.style}
            plain = log.rich_style.color
            assert (styles["black"].color == plain) == (theme == DARK.name)
            assert (styles["white"].color == plain) == (theme == LIGHT.name)
            assert styles["hidden"].color == plain
            assert styles["green"].color == Color.from_ansi(2)

    use(tmp_path / "runs.db", look)


def test_facts_are_laid_out_for_the_width_beside_the_scroll_bar(database: Path) -> None:
    words = f"{'a' * 18} {'b' * 17}"  # as wide as the column without a scroll bar
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE runs SET config = json_set(config, '$.comment', ?), note = ?", (words, "line\n" * 60)
        )

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        run_screen, words = pilot.app.screen, pilot.app.screen.query_one("#facts-text", StaticText)
        width = run_screen.query_one("#facts").scrollable_content_region.width
        assert width == words.size.width
        assert isinstance(run_screen, RunScreen)
        assert run_screen._detail is not None
        assert isinstance(words.content, Content)
        assert words.content.plain == facts(run_screen._detail, width).plain

    use(database, look, size=(120, 40))
