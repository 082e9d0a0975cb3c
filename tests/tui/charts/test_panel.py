"""Charts under keys and mouse, checked on the screen."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from helpers.golden import SIZES, compare, press, screen, settle, type_in, use, wait_for_words
from helpers.store_samples import points
from labbench.charts.ticks import MAX_AXIS_VALUE, MIN_AXIS_EXTENT
from labbench.charts.view import resolve_display
from labbench.records import Finished, NewRun, Points, Started, Submission
from labbench.store.writer import Writer
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.charts.widget import Chart


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """One run of 100,000 noisy points."""
    path, steps = tmp_path / "runs.db", list(range(100_000))
    values = np.sin(np.arange(100_000) / 15_000) + np.random.default_rng(0).normal(0, 0.1, 100_000)
    with Writer(path) as writer:
        [run] = writer.claim([run.key for run in writer.queue(Submission("long", ""), [NewRun("long", {}, "1")])])
        writer.write([Started(run.key, run.attempt, "box", 1, "cpu")])
        writer.write([Points(run.key, run.attempt, "loss", steps, steps, values.tolist())])
        writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])
    return path


def panel(pilot: Pilot[None]) -> ChartPanel:
    return pilot.app.screen.query_one(ChartPanel)


def chart(pilot: Pilot[None]) -> Chart:
    return panel(pilot).page.charts()[0]


def x_labels(text: str) -> list[str]:
    """Return the labels of the x axis of the chart at the lower right."""
    lines = text.splitlines()
    axis = max(number for number, line in enumerate(lines) if "└" in line and "┬" in line)
    return lines[axis + 1].rpartition("││")[2].strip("│ ").split()


def crosshair(text: str) -> str | None:
    title = re.search(r"(step|epoch|time) (\d[\d.]*\w*) ", text)
    return title and title[2]


def focused(*keys: str) -> list[str]:
    """Return the keys with one before them that focuses the charts."""
    return ["tab", *keys]


# The crosshair


def test_the_crosshair_moves_along_the_points_and_lists_every_run_best_first(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert crosshair(await press(pilot, "space", "j", "space", "j", "j", "space")) is None
        now = await press(pilot, "h")
        assert crosshair(now) == "20"
        now = await press(pilot, "h", "h")
        assert crosshair(now) == "18"
        readout = now[now.index("epoch 18") :]
        order = re.findall(r"[●◆■] \S+ +(?:s\d +)?(0\.\d{4})", readout)
        assert len(order) == 3
        assert order == sorted(order)
        assert crosshair(await press(pilot, "H")) == "8"
        assert crosshair(await press(pilot, "L", "l")) == "19"
        assert crosshair(await press(pilot, "l", "l", "l", "l")) == "20"
        assert crosshair(await press(pilot, "escape")) is None

    use(database, look)


def test_w_and_b_jump_between_best_values(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", *focused("w"))
        first = panel(pilot).page.crosshair
        await press(pilot, "w")
        second = panel(pilot).page.crosshair
        best_epochs = {run.summary["val/loss"].min_step / 10 for run in panel(pilot).page._runs}
        assert {first, second} <= best_epochs
        await press(pilot, "b")
        assert panel(pilot).page.crosshair == first

    use(database, look)


def test_the_mouse_moves_the_crosshair_until_it_leaves_the_chart(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "h", "h")
        await pilot.hover(Chart, offset=(30, 10))
        await settle(pilot)
        pointed = crosshair(screen(pilot))
        assert pointed is not None
        assert float(pointed) < 12
        await pilot.hover("TopBar")
        await settle(pilot)
        assert crosshair(screen(pilot)) == "19"

    use(database, look)


# Zooming and moving


def test_keys_zoom_around_the_crosshair_and_fit_again(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        whole = x_labels(screen(pilot))
        await press(pilot, "h", "H")
        now = await press(pilot, "+", "+")
        assert "zoomed" in now
        left, right = panel(pilot).settings.window
        assert right - left == pytest.approx(5)
        assert left < 10 < right
        assert x_labels(now) != whole
        assert x_labels(await press(pilot, "=")) == whole
        now = await press(pilot, "+", "-")
        assert "zoomed" not in now

    use(database, look)


def test_brackets_and_z_set_the_window_with_the_crosshair(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "h", "H", "[", "L", "h", "h", "]")
        assert panel(pilot).settings.window == pytest.approx((10, 18))
        await press(pilot, "=", "tab", "z", "h", "h", "h", "z")
        assert panel(pilot).settings.window == pytest.approx((15, 18))

    use(database, look)


def test_arrows_pan_and_stretch_while_the_charts_have_the_focus(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "plus", *focused("right", "right"))
        left, right = panel(pilot).settings.window
        assert (left, right) == pytest.approx((10, 20))
        await press(pilot, "left")
        assert panel(pilot).settings.window == pytest.approx((7.5, 17.5))
        before = chart(pilot).frame
        await press(pilot, "shift+up")
        after = chart(pilot).frame
        assert after.high - after.low == pytest.approx((before.high - before.low) / 2)
        await press(pilot, "up")
        assert chart(pilot).frame.low > after.low

    use(database, look)


def test_every_key_of_a_burst_counts_before_the_chart_is_drawn_again(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "h", "H", "tab")
        charts, before = panel(pilot), chart(pilot).frame
        for _ in range(3):  # without a pause in which the chart could be drawn
            charts.perform("zoom", 0.5)
            charts.perform("stretch", 0.5)
        charts.perform("lift", 0.5)
        charts.perform("lift", 0.5)
        await settle(pilot)
        after, (left, right) = chart(pilot).frame, charts.settings.window
        assert right - left == pytest.approx((before.right - before.left) / 8)
        assert after.high - after.low == pytest.approx((before.high - before.low) / 8)
        middle = (after.high + after.low - before.high - before.low) / 2
        assert middle == pytest.approx((before.high - before.low) / 8)

    use(database, look)


def test_the_wheel_zooms_and_a_drag_draws_a_box(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        from textual.events import MouseScrollUp

        target = chart(pilot)
        region = target.content_region
        x, y = region.x + 40, region.y + 10
        event = MouseScrollUp(target, 40, 10, 0, 0, 0, False, False, False, screen_x=x, screen_y=y)
        target.post_message(event)
        await settle(pilot)
        assert panel(pilot).settings.window is not None
        await press(pilot, "=")
        await pilot.mouse_down(Chart, offset=(30, 5))
        await pilot.hover(Chart, offset=(60, 15))
        await settle(pilot)
        assert chart(pilot).view.box is not None
        await pilot.mouse_up(Chart, offset=(60, 15))
        await settle(pilot)
        assert chart(pilot).view.box is None
        left, right = panel(pilot).settings.window
        assert 5 < left < right < 16
        assert "val/loss" in panel(pilot).settings.heights
        await press(pilot, "escape", "escape", "escape")
        assert panel(pilot).settings.window is None

    use(database, look)


def test_zooming_into_a_long_run_reads_its_points_and_keeps_the_smoothing(long_run: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "s", "s", "s")
        [line] = panel(pilot).page.lines_of("loss")
        assert line.series.buckets.n.max() > 20
        from labbench.charts.series import smooth_series
        from labbench.charts.smoothing_spec import Smoothing

        coarse = smooth_series(line.series, Smoothing("ema", 0.999))
        await press(pilot, "h", *["H"] * 6, *["+"] * 8)
        [line] = panel(pilot).page.lines_of("loss")
        left, right = panel(pilot).settings.window
        inside = (line.series.x >= left) & (line.series.x <= right)
        assert inside.sum() > 0.9 * (right - left), (
            "nearly every point of the window is read, more than the screen has dots"
        )
        fine = smooth_series(line.series, Smoothing("ema", 0.999))
        x = fine[0][inside]
        np.testing.assert_allclose(fine[1][inside], np.interp(x, *coarse), atol=0.01)

    use(long_run, look)


def test_follow_stays_at_the_newest_steps(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        [run] = writer.claim([run.key for run in writer.queue(Submission("live", ""), [NewRun("a", {}, "1")])])
        import os

        writer.write([Started(run.key, run.attempt, "box", os.getpid(), "cpu")])
        writer.write([points(run, "loss", [1.0 / (1 + step) for step in range(100)])])

        async def look(pilot: Pilot[None]) -> None:
            assert "following" in await press(pilot, "F")
            assert chart(pilot).view.window == pytest.approx((99 * 0.75, 99))
            writer.write([points(run, "loss", dict.fromkeys(range(100, 200), 0.01))])
            await wait_for_words(pilot, "180")
            assert chart(pilot).view.window == pytest.approx((199 * 0.75, 199))

        use(path, look)


# Settings


def test_smoothing_can_be_typed_and_invalid_input_is_explained(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "#")
        await type_in(pilot, "mean x")
        assert "is not a smoothing: use 0.9" in await press(pilot, "enter")
        await press(pilot, *["backspace"] * 6)
        await type_in(pilot, "gauss 3")
        assert "val/loss  gauss 3 · by epoch" in await press(pilot, "enter")
        assert "gauss" not in await press(pilot, "s")

    use(database, look)


def test_either_axis_can_be_logarithmic(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "X")
        assert "log x" in now
        assert x_labels(now) == ["1", "2", "5", "10", "20"]
        assert "log y · log x" in await press(pilot, "y")
        await press(pilot, "plus")
        left, right = panel(pilot).settings.window
        assert left * right == pytest.approx(20), "zoomed around the middle of the screen"

    use(database, look)


def test_groups_over_seeds_have_a_mean_a_band_and_a_count(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "space", "j", "space", "j", "space", "j", "space", "B")
        assert "± 95 % of the mean" in now
        assert re.search(r"lr=0\.01 ×2 +0\.\d+ ±[\d.e-]+", now)
        assert "± standard deviation" in await press(pilot, "i")
        assert "from lowest to highest" in await press(pilot, "i")
        assert "density of 4 runs" in await press(pilot, "B")
        assert "density" not in await press(pilot, "B")

    use(database, look)


def test_many_runs_are_drawn_as_groups_by_default() -> None:
    assert resolve_display("auto", 30) == "runs"
    assert resolve_display("auto", 31) == "groups"
    assert resolve_display("runs", 500) == "runs"


def test_the_status_glyph_marks_the_end_of_a_run(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "o")
        await type_in(pilot, "name")
        await press(pilot, "enter", "g")
        for _ in range(12):  # to the run, by its entry in the legend
            now = screen(pilot)
            if "▸ sgd lr=0.01 s0" in now or "▲ sgd lr=0.01 s0" in now.rpartition("by epoch")[2]:
                break
            await press(pilot, "j")
        assert "□" in "\n".join(line.rpartition("││")[2] for line in now.splitlines())

    use(database, look)


# Pages of charts


def test_the_page_shows_more_charts_and_enter_a_single_one(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "greater_than_sign", "greater_than_sign")
        assert all(f"─ {metric} " in now for metric in ("val/loss", "val/accuracy", "train/loss"))
        now = await press(pilot, *focused("n", "enter"))
        assert "─ val/accuracy " in now
        assert "─ train/loss " not in now
        assert "─ train/loss " in await press(pilot, "enter")

    use(database, look)


def test_charts_share_their_window_and_crosshair(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "greater_than_sign", "greater_than_sign", "h", "h", "+")
        assert now.count("epoch 19") == 3
        assert now.count("zoomed") == 3
        assert len({chart.view.window for chart in panel(pilot).page.charts()}) == 1

    use(database, look)


def test_chart_settings_are_saved_and_restored(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "y", "s", "greater_than_sign", "+", "X", "X", "+")
        saved = panel(pilot).state()
        await press(pilot, "y", "s", "<", "=", "x")
        panel(pilot).restore(saved)
        await settle(pilot)
        assert panel(pilot).state() == saved
        panel(pilot).restore({"layout": "x", "window": [3], "log": [1], "smoothing": 7, "x_axis": "nope"})

    use(database, look)


# Golden screens


@SIZES
def test_a_page_of_charts_with_a_crosshair_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        keys = ["space", "j", "space", "j", "space", "greater_than_sign", "greater_than_sign", "s", "h", "H"]
        compare(f"charts-{size[0]}x{size[1]}", await press(pilot, *keys))

    use(database, look, size=size, view="chart")


@SIZES
def test_groups_match_their_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        keys = ["space", "j", "space", "j", "space", "j", "space", "j", "space", "j", "space", "B", "y"]
        compare(f"groups-{size[0]}x{size[1]}", await press(pilot, *keys))

    use(database, look, size=size, view="chart")


# Edge cases


@SIZES
def test_the_x_axis_can_be_changed_without_epochs(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "f")
        await type_in(pilot, "name=zz")
        await press(pilot, "enter", "escape", "x", "x")
        assert panel(pilot).settings.x_axis == "time"

    use(database, look, size=size)


def test_an_axis_is_limited_to_finite_numbers(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "y", *focused())
        for _ in range(14):  # each zoom starts from the range that is drawn
            await press(pilot, "shift+down")
        assert panel(pilot).settings.heights["val/loss"] == pytest.approx((MIN_AXIS_EXTENT, MAX_AXIS_VALUE))
        now = await press(pilot, *["shift+up"] * 80)
        assert "┤" in now

    use(database, look)


def test_a_crosshair_at_0_disappears_on_a_logarithmic_axis(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "x", "x", "tab", "l", *["H"] * 30)
        panel(pilot)._move_crosshair(0.0)
        await press(pilot, "X", "plus", "plus", "h", "left_square_bracket", *["H"] * 30, "plus", "minus")
        assert panel(pilot).page.crosshair != 0.0

    use(database, look)
