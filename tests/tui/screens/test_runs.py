"""Browsing runs: keys in, screens out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import LARGE, SMALL, choose, press, row_of, screen, settle, type_in, use, wait_for_words, with_name
from helpers.store_samples import points, start
from helpers.tui_samples import many_runs
from labbench.errors import InputError
from labbench.records import Failed, Finished, NewRun, Points, Started, Submission
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui import run_app
from labbench.tui.widgets.run_table import RunsTable


def table_of(screen: str) -> list[str]:
    """Return the rows of the table, each from its mark on, with the settings in columns as the name of the run."""
    lines = (line.split("││")[0] for line in screen.splitlines() if line.startswith("│") and "││" in line)
    rows = [line[1:].rstrip("▁▂▃▄▅▆▇█ ") for line in lines][2:]
    return list(map(with_name, rows))


def names_of(screen: str) -> list[str]:
    return [match.group() for line in table_of(screen) if (match := re.search(r"(adam|sgd) lr=\S+ s\d", line))]


def legend_of(screen: str) -> list[str]:
    """Return the glyph and label of each entry in the chart's legend."""
    entry = re.compile(r"([▸●◆■▲▼◉◈▣]) ([a-z][^▸●◆■▲▼◉◈▣│]*?) +(-?\d[\d.e-]*|nan)(?= |│)")
    charts = (line.rpartition("││")[2] for line in screen.splitlines())
    return [f"{glyph} {label}" for line in charts for glyph, label, _ in entry.findall(line)]


# The table


def test_the_best_run_comes_first_and_has_a_star(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        first = table_of(screen(pilot))[0]
        assert "adam lr=1 s1" in first
        assert "★0.0545" in first
        assert "sorted by best val/loss ▲" in screen(pilot)

    use(database, look)


def test_constant_settings_are_one_line_instead_of_columns(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "constant: epochs 20, batch_size 64, hidden 128-64" in screen(pilot)
        heading = next(line for line in screen(pilot).splitlines() if "optimizer " in line and "best" in line)
        assert "epochs" not in heading

    use(database, look)


def test_every_status_has_its_glyph(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "space")  # a mark, without which the leaders have their glyphs
        assert row_of(now, "adam lr=1 s0").startswith("│   ✗")
        assert row_of(now, "sgd lr=0.001 s1").startswith("│   !")
        assert row_of(now, "sgd lr=0.01 s0").startswith("│   □")
        assert row_of(now, "sgd lr=1 s0").startswith("│   ○")
        assert row_of(now, "sgd lr=0.01 s1").startswith("│   ✓")

    use(database, look)


def test_choosing_a_column_sorts_by_it_and_choosing_it_again_reverses_the_order(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "o")
        await type_in(pilot, "name")
        sorted_by_name = names_of(await press(pilot, "enter"))
        assert sorted_by_name == sorted(sorted_by_name)
        assert "sorted by name ▲" in screen(pilot)
        await press(pilot, "o")
        await type_in(pilot, "name")
        assert names_of(await press(pilot, "enter")) == sorted_by_name[::-1]
        assert names_of(await press(pilot, "O")) == sorted_by_name

    use(database, look)


def test_sorting_by_a_smoothed_metric_starts_with_the_best(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        for metric, arrow in (("val/loss", "▲"), ("val/accuracy", "▼")):
            await press(pilot, "o")
            await type_in(pilot, "smooth")
            assert f"sorted by smooth {metric} {arrow}" in await press(pilot, "enter")
            assert names_of(screen(pilot))[0] == "adam lr=1 s1"
            await press(pilot, "m")

    use(database, look)


def test_a_metric_to_maximize_is_sorted_descending(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "m")
        assert "sorted by best val/accuracy ▼" in screen(pilot)
        assert "adam lr=1 s1" in table_of(screen(pilot))[0]
        assert "sorted by best val/loss ▲" in await choose(pilot, "M", "val/loss")

    use(database, look)


def test_another_metric_updates_all_of_its_columns(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert row_of(screen(pilot), "adam lr=1 s1").split()[6:9] == ["0.0929", "★0.0545", "150"]
        assert row_of(await press(pilot, "m", "m"), "adam lr=1 s1").split()[6:9] == ["0.0866", "★0.0500", "149"]

    use(database, look)


def test_a_click_on_a_title_sorts_and_a_click_on_a_row_highlights_it(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        heading = next(line for line in screen(pilot).splitlines() if "optimizer " in line and "best" in line)
        await pilot.click("RunsTable", offset=(heading.index("optimizer") + 1, 1))
        await settle(pilot)
        assert "sorted by optimizer ▲" in screen(pilot)
        await pilot.click("RunsTable", offset=(10, 5))
        await settle(pilot)
        table = pilot.app.screen.query_one(RunsTable)
        assert table.record(table.cursor).name == names_of(screen(pilot))[2]

    use(database, look)


def test_of_thousands_of_rows_only_the_visible_ones_are_read(tmp_path: Path) -> None:
    many_runs(tmp_path / "runs.db", 3000)

    async def look(pilot: Pilot[None]) -> None:
        assert "1–42 of 3000" in screen(pilot)
        await press(pilot, "G")
        assert "run 2999" in screen(pilot)
        assert "2959–3000 of 3000" in screen(pilot)
        table = pilot.app.screen.query_one("RunsTable")
        assert len(table._records) < 400
        await press(pilot, "pageup", "pageup", "k")
        assert "run 2916" in screen(pilot)
        assert "…" not in screen(pilot)
        assert "run 0 " in await press(pilot, "g")
        now = await press(pilot, *["pagedown"] * 12)  # faster than the rows are read
        assert "run 492 " in now
        assert "…" not in now

    use(tmp_path / "runs.db", look)


# The filter


def test_typing_a_filter_narrows_the_table_immediately(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, *"foptimizer=sgd", "space", *"lr<0.1")
        assert sorted(names_of(now)) == ["sgd lr=0.001 s0", "sgd lr=0.001 s1", "sgd lr=0.01 s0", "sgd lr=0.01 s1"]
        assert "4 of 12" in now
        assert "⏎ done" in now
        now = await press(pilot, "enter", "j", "space")
        assert "4 of 12" in now
        assert "●" in table_of(now)[1]

    use(database, look)


def test_an_invalid_filter_keeps_the_table_and_explains_the_error(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        await type_in(pilot, "optimizer=sgd")
        now = await type_in(pilot, " or")
        assert "6 of 12" in now
        assert "a term is missing here" in now
        assert "⏎ done" in await press(pilot, "enter")
        assert "a term is missing here" not in await press(pilot, "backspace", "backspace")

    use(database, look)


def test_name_that_exists_nowhere_keeps_the_table_and_suggests_the_nearest(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        before = await type_in(pilot, "status=finished")
        now = await type_in(pilot, " optimiser=sgd")
        assert "no run has a config key or a metric `optimiser`; did you mean `optimizer`?" in now
        assert [line for line in before.splitlines() if "finished" in line or "of 12" in line]
        count = next(word for word in before.split() if word.isdigit() and f"{word} of 12" in before)
        assert f"{count} of 12" in now
        assert "no run has" not in await press(pilot, "escape")

    use(database, look)


def test_name_that_runs_in_progress_may_record_leaves_an_empty_table_with_a_note(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        start(writer)

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        now = await type_in(pilot, "val_los<0.3")
        assert "no run has a config key or a metric `val_los` (queued and running runs may still record it)" in now
        assert "0 of 1" in now
        assert "may still record it" in await press(pilot, "enter")
        assert "may still record it" not in await press(pilot, "f", *["backspace"] * 11)

    use(tmp_path / "runs.db", look)


def test_escape_restores_the_previous_filter(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        await type_in(pilot, "lr=0.01")
        await press(pilot, "enter", "f")
        assert "no run matches" in await type_in(pilot, " seed=7")
        now = await press(pilot, "escape")
        assert "4 of 12" in now
        assert "␣ mark" in now

    use(database, look)


# The chart


def test_without_marks_the_best_run_of_each_leading_configuration_is_drawn(database: Path) -> None:
    """A leader has the same glyph in the table and on the chart; the highlighted run is drawn, too."""

    async def look(pilot: Pilot[None]) -> None:
        leaders = ["● adam lr=1", "◆ adam lr=0.01", "■ adam lr=0.001", "▲ sgd lr=0.01", "▼ sgd lr=0.001"]
        assert sorted(legend_of(screen(pilot))) == sorted(leaders)
        for leader in leaders:
            assert row_of(screen(pilot), leader[2:]).startswith(f"│ {leader[0]}")
        legend = legend_of(await press(pilot, "j", "j"))  # with the seeds, which now separate two runs
        assert [entry.rpartition(" s")[0] for entry in sorted(legend)] == sorted([*leaders, "▸ adam lr=0.01"])

    use(database, look)


@pytest.mark.parametrize(("size", "charts"), [(LARGE, 3), ((159, 50), 1), ((160, 39), 1), (SMALL, 1)])
def test_a_large_screen_opens_on_the_charts_of_the_leading_metrics(
    database: Path, size: tuple[int, int], charts: int
) -> None:
    async def look(pilot: Pilot[None]) -> None:
        titles = re.findall(r"─ (train/loss|val/loss|val/accuracy) ", screen(pilot))
        assert titles == ["train/loss", "val/loss", "val/accuracy"] if charts == 3 else titles == ["val/loss"]

    use(database, look, size=size, chart={})


def test_a_loss_that_falls_steeply_opens_on_a_logarithmic_axis_until_another_is_chosen(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "val/loss  log y · by epoch" in screen(pilot)
        assert "val/loss  by epoch" in await press(pilot, "y")
        pilot.app.screen._panel.restore(pilot.app.screen._panel.state())
        assert "val/loss  by epoch" in await press(pilot, "j")
        assert "val/accuracy  by epoch" in await press(pilot, "m")

    use(database, look, size=SMALL, chart={})


def test_marked_runs_are_drawn_together_with_labels_of_what_differs(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "space", "j", "space")
        assert set(legend_of(now)) == {"● lr=1", "◆ lr=0.01"}
        assert row_of(now, "adam lr=1 s1").startswith("│[●]✓ ")
        assert row_of(now, "adam lr=0.01 s0").startswith("│[◆]✓ ")
        now = await press(pilot, "j")
        assert set(legend_of(now)) == {"▸ lr=0.01 s1", "● lr=1 s1", "◆ lr=0.01 s0"}
        assert "▲ sgd lr=0.01 s0" in legend_of(await press(pilot, "U"))

    use(database, look)


def test_marks_outlive_a_filter_that_hides_their_runs(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "f")
        await type_in(pilot, "optimizer=sgd")
        now = await press(pilot, "enter")
        assert "● adam lr=1" in legend_of(now)

    use(database, look)


def test_keys_cycle_scale_smoothing_and_x_axis(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "val/loss  by epoch" in screen(pilot)
        assert "val/loss  log y · by epoch" in await press(pilot, "y")
        assert "val/loss  log y · ema 0.6 · by epoch" in await press(pilot, "s")
        assert "val/loss  log y · ema 0.97 · by epoch" in await press(pilot, "s", "s")
        assert "val/loss  log y · ema 0.97 · by time" in await press(pilot, "x")
        assert "val/loss  log y · ema 0.97 · by clock" in await press(pilot, "x")
        assert "val/loss  log y · ema 0.97 · by step" in await press(pilot, "x")
        assert "val/loss  log y · by step" in await press(pilot, "s")
        assert "val/accuracy  by step" in await press(pilot, "m")

    use(database, look)


def test_a_diverged_run_is_drawn_up_to_its_last_finite_value(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "m", "m", "o")
        await type_in(pilot, "best train")
        await press(pilot, "enter", "g")
        now = screen(pilot)
        for _ in range(12):  # to the run, by its entry in the legend
            if "▸ adam lr=1 s0" in "".join(legend_of(now)):
                break
            now = await press(pilot, "j")
        assert "nan" in row_of(now, "adam lr=1 s0")
        chart = "\n".join(line.split("││")[1] for line in now.splitlines() if "││" in line)
        assert "✗" in chart

    use(database, look)


def test_v_shows_the_chart_in_full_screen_and_the_cursor_still_moves(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "v")
        assert "││" not in now
        assert "● adam lr=1" in legend_of(now)
        assert "▸ adam lr=0.01 s1" in legend_of(await press(pilot, "j", "j"))
        assert "││" in await press(pilot, "escape")
        assert "││" in await press(pilot, "escape")

    use(database, look)


def test_a_queued_run_has_nothing_to_draw(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "no values yet" in await press(pilot, "G", "space")

    use(database, look)


# Live


def test_new_records_appear_by_themselves_and_the_cursor_stays_on_its_run(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "j", "j", "space")
        assert legend_of(now) == ["● adam lr=0.01 s1"]
        with Writer(database) as writer:
            [run] = start(writer, 1, experiment="later")
            events = [Started(run.key, run.attempt, "box", os.getpid(), "cpu")]
            writer.write([*events, points(run, "val/loss", [0.5, 0.03])])
            now = await wait_for_words(pilot, "◐ 1 running")
            assert "2 experiments" in now
            assert "run 0" in table_of(now)[0]
            assert re.search(r"\d+ %", now.splitlines()[0])
            writer.write([points(run, "val/loss", {2: 0.02}), Finished(run.key, run.attempt, "finished", "done")])
        now = await wait_for_words(pilot, "✓ 8 finished")
        assert "★0.0200" in row_of(now, "run 0")
        assert legend_of(now) == ["● adam lr=0.01 s1"]

    use(database, look)


def test_a_database_that_is_created_later_is_shown(tmp_path: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "no runs yet" in screen(pilot)
        many_runs(tmp_path / "runs.db", 3)
        assert "run 2" in await wait_for_words(pilot, "run 2")

    use(tmp_path / "runs.db", look, size=SMALL)


def test_a_corrupted_database_is_reported_in_one_line_until_escape(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        database.write_bytes(b"not a database at all, but long enough to look at" * 100)
        assert "this is not an SQLite database" in await wait_for_words(pilot, "SQLite")
        assert "this is not an SQLite database" not in await press(pilot, "escape")

    use(database, look)


# The program


def test_the_palette_finds_actions_by_their_description(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "ctrl+p")
        await type_in(pilot, "logarithmic")
        await pilot.pause(0.5)
        assert "Logarithmic or linear y axis" in screen(pilot)
        await press(pilot, "enter")
        assert "val/loss  log y" in await wait_for_words(pilot, "log y ·")

    use(database, look)


def test_q_quits_and_escape_does_not(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "escape", "escape")
        assert pilot.app.is_running
        await pilot.press("q")
        await pilot.pause()
        assert pilot.app._exit

    use(database, look)


def test_an_unknown_view_and_a_foreign_file_are_refused_before_the_screen_opens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="runs, chart"):
        run_app(tmp_path / "runs.db", view="cahrt")
    (tmp_path / "notes.txt").write_text("hello, this is not a database")
    with pytest.raises(InputError, match="not an SQLite database"):
        run_app(tmp_path / "notes.txt")


def test_a_database_of_archived_runs_says_how_to_see_them(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "asterisk", "A")
        assert "12 runs are archived" in await wait_for_words(pilot, "archived=true")
        await press(pilot, "f")
        await type_in(pilot, "archived=true")
        assert "12 runs   sorted" in await press(pilot, "enter")

    use(database, look)


def test_the_chart_shows_the_groups_of_the_table_under_the_same_names(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "b")
        await type_in(pilot, "optimizer")
        now = await press(pilot, "enter")
        assert re.search(r"● . ▸ optimizer (adam|sgd) +6 ", now)
        assert re.search(r"◆ . ▸ optimizer (adam|sgd) +6 ", now)
        assert "± 95 % of the mean · 2 groups" in now
        assert sorted(re.findall(r"optimizer (\w+) ×\d", now)) == ["adam", "sgd"]

    use(database, look)


def test_a_run_without_the_x_axis_is_left_out_of_the_curve_of_its_group(database: Path) -> None:
    with Reader(database) as reader:
        config = dict(next(run.config for run in reader.runs() if run.config["optimizer"] == "adam"))
    with Writer(database) as writer:
        submission = Submission("other", "digits")
        [run] = writer.claim([r.key for r in writer.queue(submission, [NewRun("early failure", config, "e")])])
        writer.write([Points(run.key, 1, "val/loss", [1, 2], [10, 20], [0.7, 0.6])])
        writer.write([Failed(run.key, 1, "user", "no memory")])

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "b")
        await type_in(pilot, "optimizer")
        now = await press(pilot, "enter")
        assert "1 run without epoch · ± 95 % of the mean · 2 groups" in now
        assert "by step: optimizer" not in now
        assert sorted(re.findall(r"optimizer (\w+) ×\d", now)) == ["adam", "sgd"]
        now = await press(pilot, "x")
        assert ("by time" in now, "without epoch" in now) == (True, False)

    use(database, look)


def test_several_keys_to_group_by_can_be_typed_at_once(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "b")
        assert "several keys: optimizer,lr" in now
        assert "by optimizer,lr" in await type_in(pilot, "opt,lr")
        now = await press(pilot, "enter")
        assert "▸ adam lr=0.01" in now
        assert "6 groups" in now or "1–6 of 6" in now

    use(database, look)
