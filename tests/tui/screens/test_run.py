"""The screens compare, grid, why and run: keys in, screens out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import LARGE, SMALL, compare, press, screen, settle, type_in, use, wait_for_words
from helpers.store_samples import points, start
from helpers.tui_samples import grid_of_runs, many_runs, write_portraits
from labbench.records import Failed, Finished, Log, Started
from labbench.store.reader import Reader
from labbench.store.writer import Writer

SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x50"])


@pytest.fixture
def database(tmp_path: Path) -> Path:
    grid_of_runs(tmp_path / "runs.db")
    return tmp_path / "runs.db"


def golden_name(name: str, size: tuple[int, int]) -> str:
    return f"{name}-{size[0]}x{size[1]}"


def line_of(screen: str, words: str) -> str:
    return next(line for line in screen.splitlines() if words in line)


# Compare


@SIZES
def test_the_compare_screen_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "j", "space", "j", "j", "space", "2")
        compare(golden_name("compare", size), screen(pilot))

    use(database, look, size=size)


def test_settings_that_differ_are_compared_and_a_key_shows_all(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "space", "j", "j", "space", "c")
        assert "compare 2 runs" in now
        assert re.search(r"│lr +1 +0\.01 ", line_of(now, "│lr"))
        assert "batch_size" not in now
        assert re.search(r"★0\.0545 +0\.0631 ▼ \+8\.5\d+e-3", line_of(now, "│val/loss"))
        assert re.search(r"│batch_size +64 +=", await press(pilot, "a"))

    use(database, look)


def test_the_baseline_comes_first_and_a_run_can_be_unmarked(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", "2")
        now = await press(pilot, "right", "p")
        assert line_of(now, "│lr").split()[1:3] == ["0.01", "1"]
        now = await press(pilot, "right", "space")
        assert "compare 1 run " in now
        assert len(pilot.app.session.marks) == 1

    use(database, look)


def test_at_most_a_hundred_marked_runs_are_compared_and_the_title_says_so(tmp_path: Path) -> None:
    many_runs(tmp_path / "runs.db", 120)

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "asterisk")
        assert "compare 100 of 120 marked runs" in await press(pilot, "2")

    use(tmp_path / "runs.db", look)


def test_comparing_without_marks_explains_what_to_do(tmp_path: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "mark two or more runs on screen 1 (␣)" in await press(pilot, "2")
        assert "no runs yet" in await press(pilot, "escape")

    use(tmp_path / "runs.db", look, size=SMALL)


# The grid


@SIZES
def test_the_grid_screen_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("grid", size), await press(pilot, "3"))

    use(database, look, size=size)


def test_the_heat_map_uses_the_chosen_keys_and_counts_diverged_runs(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "best val/loss  optimizer by lr, mean over the other keys" in now
        assert re.search(r"│optimizer +lr 0\.001 +lr 0\.01 +lr 1", now)
        assert re.search(r"│adam .*★ ✗1", now)
        await press(pilot, "x")
        await type_in(pilot, "seed")
        now = await press(pilot, "enter")
        assert "optimizer by seed" in now
        await press(pilot, "z")
        await type_in(pilot, "lr")
        now = await press(pilot, "enter")
        assert "lr 0.001" in now
        assert "best val/accuracy" in await press(pilot, "m")

    use(database, look)


def test_enter_on_a_cell_opens_its_runs(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "3", "right")
        assert "compare 2 runs" in await press(pilot, "enter")

    use(database, look)


def test_failures_show_the_last_line_of_their_traceback_and_can_be_retried(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        [run] = start(writer, 1)
        traceback = "Traceback (most recent call last):\n  File\nFileNotFoundError: no data/x.npz\n"
        writer.write([Started(run.key, 1, "box", os.getpid(), "cpu"), Failed(run.key, 1, "user", "no file", traceback)])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "FileNotFoundError: no data/x.npz" in line_of(now, "run 0")
        assert "Traceback" not in now
        now = await press(pilot, "tab")
        assert now.index("Traceback (most recent call last):") < now.rindex("FileNotFoundError: no data/x.npz")
        assert "Traceback" not in await press(pilot, "tab")
        now = await press(pilot, "tab", "enter")
        assert "Traceback (most recent call last):" in now
        await press(pilot, "escape", "r")
        assert "no failures" in await wait_for_words(pilot, "no failures")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count("status=queued") == 1


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x50"])
def test_the_end_of_a_long_traceback_is_shown_for_the_highlighted_failure(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        for number, run in enumerate(start(writer, 3)):
            traceback = "\n".join(
                [f"  line {line} of {number}" for line in range(40)] + [f"ValueError: {number}\x1b[31m"]
            )
            events = [Started(run.key, 1, "box", os.getpid(), "cpu"), points(run, "val/loss", [1.0])]
            writer.write([*events, Failed(run.key, 1, "user", "no file", traceback)])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3", "tab")
        first = next(number for number in range(3) if f"line 39 of {number}" in now)
        assert f"ValueError: {first}␛[31m" in now.splitlines()[-3]
        now = await press(pilot, "j")
        assert f"line 39 of {first}" not in now
        assert "line 39 of" in now

    use(database, look, size=size)


def test_a_running_run_is_listed_and_stopped_from_the_grid(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        [run] = start(writer, 1)
        writer.write([Started(run.key, 1, "box", os.getpid(), "cpu"), points(run, "loss", [1.0, 0.5])])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3")
        assert "1 running on" in now
        await press(pilot, "tab", "K")
        assert "stop requested: run 0" in await wait_for_words(pilot, "stop requested")

    use(database, look)
    with Writer(database) as writer:
        assert writer.pop_requests([run.key]) == [(run.key, "stop")]


# Why


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
        assert "why val/loss   optimizer=adam" in now
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


# One run


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


# All screens


@SIZES
@pytest.mark.parametrize("view", ["runs", "compare", "grid", "why"])
def test_every_screen_has_help_and_fits_the_terminal(database: Path, view: str, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        for keys in ((), ("question_mark",)):
            await press(pilot, *keys)
            assert all(strip.cell_length == size[0] for strip in pilot.app.screen._compositor.render_strips())
        assert "Quit" in screen(pilot) or await press(pilot, "G")

    use(database, look, size=size, view=view)


def test_a_click_on_a_tab_switches_the_screen(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        top = screen(pilot).splitlines()[0]
        await pilot.click(offset=(top.index("why") + 1, 0))
        await settle(pilot)
        assert "best: adam" in screen(pilot)

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
        assert "no output was captured" in now

    use(database, look, size=SMALL)
