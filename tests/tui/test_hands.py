"""Ten tasks of a user, each done with the keys of the documentation, and the keys that find, window and export."""

from __future__ import annotations

import csv
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from helpers.golden import SMALL, line_of, press, settle, type_in, use
from helpers.waiting import HANG_SECONDS
from labbench.records import EngineNote, Finished, NewRun, Started, Submission
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui.app import LabbenchApp


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read_csv(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as rows:
        return list(csv.reader(rows))


def test_which_learning_rate_is_best_and_what_helped_takes_one_key(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "4")
        assert "adam, lr 1" in now
        assert "optimizer: " in now

    use(database, look)


def test_the_diverged_run_and_its_reason_take_four_keys(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "3", "tab", "j", "j")
        now = await press(pilot, "G")
        assert "non-finite train/loss at step 29" in now

    use(database, look)


def test_the_curves_shown_are_exported_with_exact_values_in_three_keys(database: Path, tmp_path: Path) -> None:
    use(database, lambda pilot: press(pilot, "e", "enter", "enter"))
    [file] = tmp_path.glob("*curves.csv")
    titles, *rows = read_csv(file)
    assert titles == ["key", "run", "metric", "step", "value"]
    with Reader(database) as reader:
        for run in reader.runs("name~adam lr=1"):
            steps, values = reader.series(run.key, "val/loss")
            points = [(int(row[3]), float(row[4])) for row in rows if row[0] == run.key]
            assert points in ([], list(zip(steps.tolist(), values.tolist(), strict=True)))
    assert len({row[0] for row in rows}) == 5


def test_the_first_steps_are_shown_by_a_window_typed_as_numbers(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "left_curly_bracket")
        await type_in(pilot, "100")
        now = await press(pilot, "enter")
        assert "zoomed" in now
        await press(pilot, "left_curly_bracket")
        await type_in(pilot, "7..3")
        assert "the second number must be larger" in await press(pilot, "enter")
        await press(pilot, "escape", "left_curly_bracket")
        await type_in(pilot, "3..7")
        await press(pilot, "enter")
        assert pilot.app.session.chart["window"] == (3.0, 7.0)  # type: ignore[attr-defined]

    use(database, look)


@pytest.mark.parametrize(
    ("words", "axis", "window"),
    [
        ("100 steps", "step", (0.0, 100.0)),
        ("50.. steps", "step", (50.0, 199.0)),
        ("2..5 epochs", "epoch", (2.0, 5.0)),
        ("60..90", "epoch", (60.0, 90.0)),
    ],
)
def test_a_window_may_name_its_axis(database: Path, words: str, axis: str, window: tuple[float, float]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "left_curly_bracket")
        await type_in(pilot, words)
        assert f"by {axis} · zoomed" in await press(pilot, "enter")
        shown = pilot.app.session.chart["window"]  # type: ignore[attr-defined]
        assert shown == pytest.approx(window, abs=1)

    use(database, look)


def test_a_live_run_is_stopped_by_its_key_and_a_yes(tmp_path: Path) -> None:
    database = tmp_path / "live.db"
    with Writer(database) as writer:
        [run] = writer.queue(Submission("live", "digits"), [NewRun("a live run", {"lr": 0.1}, "live")])
        writer.claim([run.key])
        writer.write([Started(run.key, 1, "box", os.getpid(), "cpu")])

    async def look(pilot: Pilot[None]) -> None:
        assert "stop a live run?" in await press(pilot, "K")
        await press(pilot, "y")

    use(database, look)
    with Writer(database) as writer:
        assert writer.pop_requests([run.key]) == [(run.key, "stop")]


def test_a_command_that_trains_a_run_again_takes_three_keys(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "Y", "down", "enter")
        assert "--rerun" in pilot.app.clipboard
        assert "--only" in pilot.app.clipboard

    use(database, look)


def test_why_a_run_trained_alone_takes_one_key_on_the_run(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        new_run = NewRun("deep", {"lr": 0.1, "init_from": "old.pt"}, "deep")
        [run] = writer.queue(Submission("alone", "digits"), [new_run])
        [run] = writer.claim([run.key])
        reason = "trained alone, because no other run has the same structure"
        writer.write([Started(run.key, 1, "box", 1, "cpu"), EngineNote(run.key, 1, f"{reason}\n")])
        writer.write([Finished(run.key, 1, "finished", "all epochs")])

    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "enter")
        assert "alone, because no other run has the same structure" in line_of(now, "trained  ")
        assert "old.pt" in line_of(now, "weights from")

    use(database, look)


def test_the_value_at_a_step_is_a_column_in_three_keys(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "at")
        await type_in(pilot, "100")
        now = await press(pilot, "enter")
        assert re.search(r"optimizer .* at 100 ", now)
        with Reader(database) as reader:
            [run] = reader.runs("name='adam lr=1 s1'")
            value = float(reader.series(run.key, "val/loss", last_step=100)[1][-1])
        assert f"{value:.4f}" in now
        await press(pilot, "M")
        await type_in(pilot, "train/loss")
        await press(pilot, "enter", "at")
        await type_in(pilot, "0")
        assert re.search(r"optimizer .* at 0 ", await press(pilot, "enter"))
        assert pilot.app.session.query.values_at == (("val/loss", 100), ("train/loss", 0))  # type: ignore[attr-defined]
        assert " at 0 " not in await press(pilot, "at", "enter")

    use(database, look)


def test_the_keys_that_two_runs_differ_in_take_four_keys(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "space", "j", "space", "2")
        assert "compare 2 runs" in now
        assert "batch_size" not in now

    use(database, look)


def test_a_run_is_found_by_words_and_the_same_again_finds_the_next(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notices are recorded: each is on the screen for two seconds, which a busy machine may miss."""
    notices: list[str] = []
    notify = LabbenchApp.notify

    def record(app: LabbenchApp, message: str, **options: Any) -> None:
        notices.append(message)
        notify(app, message, **options)

    async def look(pilot: Pilot[None]) -> None:
        for place in ("1 of 2", "2 of 2"):
            await press(pilot, "slash")
            await type_in(pilot, "sgd lr=0.01 ") if place == "1 of 2" else None
            await press(pilot, "enter")
            await wait_for_notice(pilot, notices, f"{place} with")
        await press(pilot, "slash")
        await type_in(pilot, "nothing like it")
        await press(pilot, "enter")
        await wait_for_notice(pilot, notices, "no run in the table")

    monkeypatch.setattr(LabbenchApp, "notify", record)
    use(database, look)


async def wait_for_notice(pilot: Pilot[None], notices: list[str], words: str) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not any(words in notice for notice in notices):
        assert time.monotonic() < deadline, notices
        await pilot.pause(0.05)


def test_a_row_is_reached_by_its_number(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "colon")
        await type_in(pilot, "12")
        await press(pilot, "enter")
        assert pilot.app.screen.table.cursor == pilot.app.screen.table.keys[-1]  # type: ignore[attr-defined]

    use(database, look)


def test_metrics_are_chosen_by_typing_one_or_a_pattern_for_a_page(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "M")
        await type_in(pilot, "accuracy")
        assert "val/accuracy" in (await press(pilot, "enter")).splitlines()[3]
        await press(pilot, "M")
        assert "charts of the 2 metrics" in await type_in(pilot, "^val/")
        now = await press(pilot, "up", "enter")
        assert "─ val/loss" in now
        assert "─ val/accuracy" in now
        assert "─ train/loss" not in now

    use(database, look)


def test_the_table_is_exported_with_all_digits_and_the_charts_as_a_picture(database: Path, tmp_path: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        for words in ("the table as CSV", "the charts as an SVG"):
            await press(pilot, "e")
            await type_in(pilot, words)
            await press(pilot, "enter", "enter")
            await settle(pilot)

    use(database, look)
    titles, first, *_ = read_csv(next(tmp_path.glob("*-runs.csv")))
    with Reader(database) as reader:
        [run] = reader.runs("name='adam lr=1 s1'")
    assert float(first[titles.index("best val/loss")]) == run.summary["val/loss"].min
    assert next(tmp_path.glob("*charts.svg")).read_text().startswith("<svg")


def test_marks_survive_the_comparison_of_a_heat_cell(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "3")
        assert "compare 2 runs" in await press(pilot, "enter")
        await press(pilot, "escape", "1")
        assert len(pilot.app.session.marks) == 1  # type: ignore[attr-defined]
        assert "compare 1 run" in await press(pilot, "2")

    use(database, look)


def test_the_border_between_table_and_charts_moves_and_is_kept(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        table = pilot.app.screen.table  # type: ignore[attr-defined]
        before, right = table.outer_size.width, table.region.right
        await pilot.mouse_down(offset=(right - 1, 20))
        await pilot.hover(offset=(right + 29, 20))
        await pilot.mouse_up(offset=(right + 29, 20))
        await settle(pilot)
        assert table.outer_size.width == pytest.approx(before + 30, abs=1)
        await press(pilot, "ctrl+left")
        assert table.outer_size.width < before + 30

    use(database, look)
    use(database, lambda pilot: press(pilot, "ctrl+right"), size=SMALL)


def test_the_constant_settings_are_listed_by_a_key(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "percent_sign")
        assert "constant: the same in all runs" in now
        assert "batch_size   64" in now

    use(database, look)
