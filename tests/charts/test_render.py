"""Charts as text: lines, ticks, marks and the legend."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from labbench.charts.crosshair import next_best_x, step_crosshair
from labbench.charts.glyphs import OTHER_SLOT
from labbench.charts.lines import Line, PreparedLines
from labbench.charts.palette import BAND, BEST, BRIGHT, LINE, OTHER, slot_and_style
from labbench.charts.render import ChartRenderer
from labbench.charts.series import Buckets, ExactPoints, Series
from labbench.charts.view import ChartView, Display

WIDTH, HEIGHT = 60, 16


def line(key: str, y: list[float], *, x: list[float] | None = None, slot: int = 1, broken: bool = False) -> Line:
    steps = np.arange(len(y), dtype=float) if x is None else np.array(x, dtype=float)
    return Line(
        key, key, Series(steps, np.array(y, dtype=float)), slot, "▸●◆■"[slot], "diverged" if broken else "finished"
    )


def rows(lines: list[Line], view: ChartView = ChartView(), *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[str]:  # noqa: B008
    return ["".join(part for part, _ in row) for row in ChartRenderer().draw(lines, view, *size)]


def inks(lines: list[Line], view: ChartView) -> set[int]:
    return {ink for row in ChartRenderer().draw(lines, view, WIDTH, HEIGHT) for _, ink in row}


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right() -> None:
    drawn = rows([line("a", [10.0, 0.0])])
    columns = [max(i for i, c in enumerate(row) if "⠀" < c <= "⣿") for row in drawn[1 : HEIGHT - 2]]
    assert columns == sorted(columns)
    assert drawn[HEIGHT - 3].endswith("●")
    assert [row.split("┤")[0].strip() for row in drawn if "┤" in row] == ["10", "5", "0"]
    assert drawn[-1].split() == ["0", "0.5", "1.0"]


def test_every_row_has_exactly_the_requested_width() -> None:
    for size in ((12, 5), (38, 9), (200, 50)):
        drawn = rows([line(name, [3.0, 1.0, 2.0]) for name in "abcdef"], size=size)
        assert len(drawn) == size[1]
        assert {len(row) for row in drawn} == {size[0]}


def test_the_legend_lists_the_best_last_value_first_and_diverged_runs_last() -> None:
    lines = [line("worse", [3, 2]), line("broken", [3, np.nan], slot=2, broken=True), line("better", [3, 1], slot=3)]

    def order(view: ChartView) -> list[str]:
        text = "\n".join(rows(lines, view))
        return sorted(("worse", "broken", "better"), key=text.index)

    assert order(ChartView(goal="min")) == ["better", "worse", "broken"]
    assert order(ChartView(goal="max")) == ["worse", "better", "broken"]


def test_a_legend_that_is_too_long_counts_the_hidden_lines() -> None:
    drawn = "\n".join(rows([line(f"run{number}", [1.0, number]) for number in range(40)]))
    assert "run0" in drawn
    hidden = re.search(r"and (\d+) more", drawn)
    assert hidden is not None
    assert int(hidden[1]) + len(re.findall(r"run\d+", drawn)) == 40


def test_the_legend_is_above_the_plot_and_never_over_its_points() -> None:
    lines = [line(f"run{number}", [1.0, number, 1.0, number], slot=1 + number % 3) for number in range(6)]
    drawn = rows(lines)
    legend = [row for row in drawn if "run" in row and not set("│┤┝") & set(row)]
    assert legend == drawn[: len(legend)]
    assert not any("⠀" < character <= "⣿" for row in legend for character in row)
    values = rows(lines, ChartView(names=False))
    assert "run" not in values[0]
    assert values[0].split()[1] == "0"


def test_the_number_of_hidden_values_is_never_cut() -> None:
    lines = [line(f"run{number}", [1.0, number]) for number in range(120)]
    for width in range(30, 60):
        values = rows(lines, ChartView(names=False, display="runs"), size=(width, HEIGHT))[0]
        shown, _, hidden = values.partition("+")
        assert len(shown.split()) // 2 + int(hidden) == 120


def test_the_highlighted_line_is_bright_on_top_and_has_a_star_at_its_best_value() -> None:
    lines = [line("same", [2.0, 1.0, 2.0]), line("other", [2.0, 1.0, 2.0], slot=2)]
    used = inks(lines, ChartView(highlighted="same"))
    assert BEST in used
    assert (1, BRIGHT) in {slot_and_style(ink) for ink in used}
    drawn = ChartRenderer().draw(lines, ChartView(highlighted="same"), WIDTH, HEIGHT)
    braille = {slot_and_style(ink) for row in drawn for part, ink in row if any("⠀" < c <= "⣿" for c in part)}
    assert braille == {(1, BRIGHT)}, "it covers the other line completely"


def test_smoothing_draws_a_bright_line_over_the_dim_raw_values() -> None:
    noisy = [1.0, 5.0] * 50
    assert {slot_and_style(ink) for ink in inks([line("a", noisy), line("b", noisy, slot=2)], ChartView())} >= {
        (1, LINE)
    }
    styles = {slot_and_style(ink) for ink in inks([line("a", noisy)], ChartView(smoothing="0.9"))}
    assert {(1, BAND), (1, BRIGHT)} <= styles


def test_a_diverged_run_does_not_flatten_the_others() -> None:
    calm = line("calm", [1.0, 0.5, 0.4])
    alone = rows([calm])
    together = rows([calm, line("wild", [1.0, 1e9, np.nan], slot=2, broken=True)])
    labels = [row.split("┤")[0] for row in alone if "┤" in row]
    assert [row.split("┤")[0] for row in together if "┤" in row] == labels
    assert any("✗" in row for row in together)


def test_outliers_do_not_flatten_the_others_and_are_counted() -> None:
    calm = [line(f"run {number}", [2.0, 1.0 + number / 10]) for number in range(5)]
    wild = line("wild", [2.0, 30_000.0])
    drawn = rows([*calm, wild], ChartView())
    assert "↑ 1 off scale" in "\n".join(drawn)
    assert not re.search(r"\dk *┤", "\n".join(drawn))
    few = rows([*calm[:3], wild], ChartView())
    assert "off scale" not in "\n".join(few)
    assert re.search(r"\dk *┤", "\n".join(few))


def test_lines_without_values_are_not_counted_as_outliers() -> None:
    calm = [line(f"run {number}", [2.0, 1.0 + number / 10]) for number in range(5)]
    empty = [line("nothing logged", []), line("nan alone", [np.nan, np.nan])]
    assert "off scale" not in rows([*calm, *empty], ChartView())[0]


def test_the_count_of_lines_off_scale_covers_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    falling = [line(f"run{number}", [1.0, *[0.1 + 0.01 * number] * 8]) for number in range(6)]
    far = line("far", [1e6, 1e6, *[0.1] * 7], slot=2)
    drawn = rows([*falling, far])
    monkeypatch.setattr(PreparedLines, "count_off_scale", lambda lines, frame: (0, 0))
    without_count = rows([*falling, far])
    note = "↑ 1 off scale"
    [(row, start)] = [(row, words.index(note)) for row, words in enumerate(drawn) if note in words]
    assert without_count[row][start : start + len(note)].isspace()
    assert not without_count[row][:start].isspace()


def test_values_that_are_not_positive_are_gaps_on_a_logarithmic_axis() -> None:
    drawn = rows([line("a", [100.0, 10.0, 1.0, 0.0, -5.0])], ChartView(log=True))
    labels = [row.split("┤")[0].strip() for row in drawn if "┤" in row]
    assert labels == ["100", "10", "1"]
    assert "nothing is positive" in "\n".join(rows([line("a", [0.0, -1.0])], ChartView(log=True)))


@pytest.mark.parametrize("lines", [[], [line("a", [])], [line("a", [np.nan, np.inf])]])
def test_a_chart_without_values_says_so(lines: list[Line]) -> None:
    assert "no values yet" in "\n".join(rows(lines))


def test_one_point_and_equal_values_are_drawn() -> None:
    assert "●" in "\n".join(rows([line("a", [0.5])]))
    assert "●" in "\n".join(rows([line("a", [0.0, 0.0, 0.0])]))


def test_the_time_axis_has_ticks_at_round_durations() -> None:
    drawn = rows([line("a", [3.0, 2.0, 1.0], x=[0.0, 60.0, 125.0])], ChartView(x_axis="time"))
    assert drawn[-1].split() == ["0", "30s", "1m", "1m30s", "2m"]


def test_the_same_lines_are_not_smoothed_and_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving the highlight only redraws dots; moving the crosshair does not even redraw dots."""
    from labbench.charts import lines as module
    from labbench.charts import render as drawing
    from labbench.charts import series

    calls = []

    def count(module: object, name: str) -> None:
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **more: calls.append(name) or plain(*args, **more))

    count(series, "smooth")
    count(module, "measure_all_spans")
    count(drawing, "draw_curves")
    lines = [line("a", [3.0, 1.0]), line("b", [2.0, 1.0], slot=2)]
    plot = ChartRenderer()
    plot.draw(lines, ChartView(smoothing="0.6", highlighted="a"), WIDTH, HEIGHT)
    assert calls == ["smooth", "smooth", "draw_curves", "measure_all_spans", "measure_all_spans"]
    plot.draw(lines, ChartView(smoothing="0.6", highlighted="b"), WIDTH, HEIGHT)
    plot.draw(lines, ChartView(smoothing="0.6", highlighted="b", crosshair=0.5), WIDTH, HEIGHT)
    assert calls[5:] == ["draw_curves"]


FAR = (
    [2.0, 1.7e308],
    [2, 1e100, 1e200, 1.7e308, 1.5e308],
    [1e308, -1e308, 5e-324],
    [1.7e308, 1.7e308],
    [-1.7e308, 1.7e308],
    [2, np.nan, np.inf, -np.inf, 1e300],
    [5e-324, 1e-323, 2e-320],
    [1e300, np.nextafter(1e300, np.inf)],
)


@pytest.mark.parametrize("gather", ["runs", "groups", "density"])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", FAR, ids=str)
def test_any_numbers_can_be_drawn(y: list[float], log: bool, gather: Display) -> None:
    lines = [line("a", y), line("b", y[::-1], slot=2), line("c", [1.0, 2.0], slot=3), line("d", y[1:])]
    shifted = [line("a", [1.0, 2.0, 3.0], x=[-1.7e308, 0.0, 1.7e308])]
    for smoothing in ("", "ema 0.9", "gauss 1e308"):
        for crosshair in (None, 1.0, 1.7e308):
            view = ChartView(log=log, display=gather, smoothing=smoothing, crosshair=crosshair, glyphs=True)
            for some in (lines, lines[:1], lines + shifted):
                assert len(rows(some, view)) == HEIGHT
    for height in ((-1e308, 1e308), (1e-320, 2e-320), (-1.7e308, 1.7e308), (3.0, 3.0 + 1e-15)):
        assert len(rows(lines, ChartView(log=log, display=gather, height=height, window=height))) == HEIGHT


def test_a_value_too_large_for_the_axis_is_drawn_at_its_end_and_shown_exactly() -> None:
    drawn = rows([line("a", [0.0, 1.7e308]), line("b", [0.0, 4e307])])
    assert "1.700e308" in "".join(drawn)
    assert "●" in drawn[0]


def test_constants_are_straight_lines() -> None:
    for value in (0.1, 1e6 / 3, 5e-11):
        noise = np.random.default_rng(0).uniform(-1e-14, 1e-14, 500)
        for smoothing in ("", "ema 0.999", "gauss 9"):
            drawn = rows([line("a", list(value * (1 + noise)))], ChartView(smoothing=smoothing))
            dots = {c for row in drawn for c in row if "⠀" < c <= "⣿"}
            assert len(dots) == 1, "every cell has the same dots"


def test_the_legend_shows_the_last_value_of_the_table_and_nan_only_for_a_metric_that_ended_so() -> None:
    fine = Line("a", "a", line("a", [3.0, 0.5]).series, 1, "●", "diverged", last=0.5)
    broken = Line("b", "b", line("b", [3.0, 1.0]).series, 2, "◆", "diverged", last=float("nan"))
    text = "\n".join(rows([fine, broken]))
    assert re.search(r"● a +0\.5", text)
    assert re.search(r"◆ b +nan", text)


def bucketed_spike() -> Line:
    """1,000 values of 0.1 with one of 5 at step 333, in 10 buckets."""
    first, last = np.arange(0, 1000, 100), np.arange(99, 1000, 100)
    mean, high = np.full(10, 0.1), np.full(10, 0.1)
    mean[3], high[3] = 0.149, 5.0
    buckets = Buckets(last.astype(float), np.full(10, 0.1), high, np.full(10, 100), first, last)
    exact = ExactPoints(np.array([0, 333, 999]), np.array([0.0, 333.0, 999.0]), np.array([0.1, 5.0, 0.1]))
    return Line("a", "a", Series(first.astype(float), mean, buckets, exact), 1, "●", last=0.1)


def test_the_crosshair_reads_points_where_it_can_and_else_says_that_it_reads_a_mean() -> None:
    lines = [bucketed_spike(), line("b", [0.2] * 1000, slot=2)]

    def legend(x: float, label: str = "a") -> str:
        named = [replace(lines[0], label=label), lines[1]]
        return "\n".join(rows(named, ChartView(crosshair=x, goal="max"), size=(160, 30)))

    assert re.search(r"● a +5\.", legend(333.0))
    assert "mean of" not in legend(333.0)
    assert re.search(r"● a +0\.149\d* +300-399", legend(340.0))
    name = "a name that needs its room"
    assert re.search(rf"● {name} +0\.149\d* +300-399", legend(340.0, name))
    assert "means of points" in legend(340.0)
    narrow = "\n".join(rows(lines[:1], ChartView(crosshair=340.0)))
    assert "step 340 · mean of steps 300-399" in narrow
    assert re.search(r"● a +0\.1", legend(999.0))
    assert next_best_x(lines[:1], None, 1, "max") == 333.0


def test_a_diverged_run_has_no_best_point() -> None:
    values = [3.0, 0.5, 1.0]
    for status, last, has_best in (("finished", 1.0, True), ("diverged", 1.0, False), ("finished", math.nan, False)):
        lines = [replace(line("a", values), status=status, last=last)]
        assert (next_best_x(lines, None, 1, "min") == 1.0) is has_best
        drawn = "\n".join(rows(lines, ChartView(goal="min", highlighted="a")))
        assert ("★" in drawn) is has_best


def test_a_line_of_buckets_ends_at_its_last_value() -> None:
    series = bucketed_spike().series
    assert series.buckets is not None
    high = series.buckets.high.copy()
    high[-1] = 5.0
    ending = replace(series, buckets=replace(series.buckets, high=high))
    for last, row in ((5.0, 1), (0.1, 16)):
        drawn = rows([Line("a", "a", ending, 1, "●", last=last)], ChartView(), size=(60, 20))
        ends = [number for number, text in enumerate(drawn) if number and "●" in text]
        assert ends == [pytest.approx(row, abs=1)]


def test_the_crosshair_reaches_the_first_and_the_last_step() -> None:
    lines, renderer = [bucketed_spike()], ChartRenderer()
    renderer.draw(lines, ChartView(), WIDTH, HEIGHT)
    assert renderer.frame is not None
    assert step_crosshair(lines, None, 1, renderer.frame) == 0.0
    assert step_crosshair(lines, None, -1, renderer.frame) == 999.0
    assert step_crosshair(lines, 990.0, 1, renderer.frame) == 999.0
    assert step_crosshair(lines, 5.0, -1, renderer.frame) == 0.0


def test_a_group_shows_the_mean_of_the_values_of_the_table_and_smoothed_values_are_labelled() -> None:
    lines = [
        Line(key, key, line(key, [1.0, value]).series, 1, "●", group="lr=1", last=value)
        for key, value in (("a", 0.25), ("b", 0.5))
    ]
    assert re.search(r"lr=1 ×2 +0\.3750", "\n".join(rows(lines, ChartView(display="groups"))))
    assert "smoothed: ema 0.9" in "\n".join(rows(lines, ChartView(smoothing="ema 0.9")))


def test_runs_off_scale_are_counted_on_their_side() -> None:
    calm = [line(f"run {number}", [2.0, 1.0 + number / 10]) for number in range(5)]
    drawn = rows([*calm, line("low", [2.0, -30_000.0])])
    assert "↓ 1 off scale" in drawn[HEIGHT - 3]
    assert "off scale" not in drawn[0]


def test_a_logarithmic_axis_has_minor_ticks() -> None:
    drawn = rows([line("a", [100.0, 1.0])], ChartView(log=True), size=(60, 40))
    assert sum("┝" in row for row in drawn) >= 6


def test_a_metric_logged_once_is_drawn_as_bars_sorted_by_value_with_a_dot_for_each_seed() -> None:
    values = {"worse": [0.8, 0.6], "better": [0.2, 0.3]}
    lines = [
        Line(
            f"{group}{seed}",
            f"{group} s{seed}",
            Series(np.array([9.0]), np.array([y])),
            1 + slot,
            "●◆"[slot],
            group=group,
        )
        for slot, (group, ys) in enumerate(values.items())
        for seed, y in enumerate(ys)
    ]
    drawn = rows(lines, ChartView(goal="min"))
    assert drawn[0].split()[:2] == ["◆", "better"]
    assert "0.2500" in drawn[0]
    assert drawn[1].split()[:2] == ["●", "worse"]
    assert drawn[0].count("•") == drawn[1].count("•") == 2
    assert drawn[1].count("█") > drawn[0].count("█")
    assert rows(lines, ChartView(goal="max"))[0].split()[1] == "worse"


def test_a_line_far_away_from_the_others_does_not_flatten_them() -> None:
    """A run that ended after one point of 1e24 has no height."""
    lines = [line(str(number), [1.0 + number, 0.5]) for number in range(9)]
    drawn = rows([*lines, line("far", [1e24])])
    assert "e24" not in "".join(drawn[4:])
    assert any("1 off scale" in row for row in drawn)


def test_of_many_lines_the_best_groups_have_colours_and_the_others_are_grey() -> None:
    def member(group: str, seed: int, level: float, slot: int) -> Line:
        steps = np.arange(3.0)
        series = Series(steps, level + 0.1 * seed + np.array([0.2, 0.1, 0.0]))
        return Line(f"{group}{seed}", f"{group} s{seed}", series, slot, "▸●◆■"[max(slot, 0)], group=group)

    lines = [member("best", seed, 1.0, 1) for seed in range(3)] + [member("second", seed, 2.0, 2) for seed in range(3)]
    lines += [member(f"other {number}", seed, 3.0 + number, OTHER_SLOT) for number in range(10) for seed in range(3)]
    runs = ChartRenderer().draw(lines, ChartView(), 80, 24)
    styles = {ink if slot_and_style(ink) is None else slot_and_style(ink) for row in runs for _, ink in row}
    assert {(1, BAND), (1, LINE), (2, LINE), OTHER} <= styles
    text = "\n".join("".join(part for part, _ in row) for row in runs)
    assert "best ×3" in text
    assert "second ×3" in text
    assert "other" not in text
    assert "and 10 more" in text


def test_names_stand_beside_the_ends_of_lines_where_there_is_room_and_never_over_points() -> None:
    short, long = line("short", [9.0, 5.0], slot=1), line("long", [1.0, 1.0, 1.0, 1.0, 1.0], slot=2)
    drawn = rows([short, long])[1:]
    [named] = [row for row in drawn if "● short" in row]
    assert "┤" not in named.partition("short")[2]
    above = next(number for number, row in enumerate(drawn) if row.rstrip().endswith("◆")) - 1
    assert drawn[above].rstrip().endswith("long")
    crowded = rows([line(f"name{number}", [1.0 + number / 10, 2.0 - number / 10]) for number in range(10)])[4:]
    points_with_names = sum("⠀" < character <= "⣿" for row in crowded for character in row)
    without = rows([line(str(number) * 40, [1.0 + number / 10, 2.0 - number / 10]) for number in range(10)])[4:]
    assert points_with_names == sum("⠀" < character <= "⣿" for row in without for character in row)


def test_a_pruned_run_is_dim_unless_it_is_highlighted() -> None:
    kept, pruned = line("kept", [3, 2, 1]), replace(line("pruned", [3, 2.9], slot=2), status="pruned")
    styles = {slot_and_style(ink) for ink in inks([kept, pruned], ChartView())}
    assert {(1, LINE), (2, BAND)} <= styles
    highlighted = {slot_and_style(ink) for ink in inks([kept, pruned], ChartView(highlighted="pruned"))}
    assert (2, BRIGHT) in highlighted


@pytest.mark.parametrize("width", [30, 44, 60, 109, 160])
def test_the_numbers_of_groups_are_whole_or_left_out(width: int) -> None:
    values = {"first": (0.1213, 0.1301, 0.1257), "second": (0.1427, 0.1627, 0.1527), "third": (0.1737, 0.1907, 0.1822)}
    lines = [
        replace(line(f"{group} {seed}", [3.0, value], slot=slot), group=group)
        for slot, (group, members) in enumerate(values.items(), start=1)
        for seed, value in enumerate(members)
    ]
    view = ChartView(display="groups")
    whole = set(re.findall(r"±\S+", "\n".join(rows(lines, view, size=(200, 16)))))
    assert whole
    assert all(float(number[1:]) > 0 for number in whole)
    drawn = "\n".join(rows(lines, view, size=(width, 16)))
    assert set(re.findall(r"±\S*", drawn)) <= whole
    assert set(re.findall(r"0\.1\d\d+", drawn)) <= {"0.1257", "0.1527", "0.1822"}


def test_a_group_of_one_run_has_no_interval() -> None:
    lines = [replace(line(f"a{seed}", [3.0, 1.0 + seed / 10]), group="a") for seed in range(3)]
    lines.append(replace(line("b", [3.0, 2.0], slot=2), group="b"))
    drawn = rows(lines, ChartView(display="groups"), size=(160, 16))
    assert any(re.search(r"a ×3 +1\.1\d* ±", row) for row in drawn)
    assert any(re.search(r"b ×1 +2\.0*(?! ±)", row) for row in drawn)
    assert not any(re.search(r"b ×1.*±", row) for row in drawn)


def test_the_values_of_bars_are_whole() -> None:
    lines = [line("a", [-654321.0987]), line("b", [0.0123], slot=2)]
    drawn = "\n".join(rows(lines))
    assert "-654321.0987" in drawn
