"""Braille drawing: dots and inks of spans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.charts.palette import BLANK
from labbench.charts.plot.braille import Canvas

NAN = float("nan")


def draw(canvas: Canvas, *layers: tuple[list[float], list[float], int], **options: int) -> Canvas:
    """Draw layers of (tops of the dot columns, bottoms, ink)."""
    tops, bottoms, inks = zip(*layers, strict=True)
    canvas.draw(np.array(tops), np.array(bottoms), np.array(inks, dtype=np.int32), **options)
    return canvas


def text(canvas: Canvas) -> list[str]:
    return ["".join(part for part, _ in line) for line in canvas.lines()]


def test_each_dot_has_its_braille_bit() -> None:
    canvas = draw(Canvas(4, 1), ([0, 1, 2, 3, 0, NAN, NAN, 0], [0, 1, 2, 3, 3, NAN, NAN, 1], 1))
    assert text(canvas) == ["⠑⢄⡇⠘"]


def test_a_span_fills_all_cells_between_its_ends() -> None:
    canvas = draw(Canvas(1, 3), ([3, NAN], [8, NAN], 1))
    assert text(canvas) == ["⡀", "⡇", "⠁"]


def test_the_last_layer_owns_the_cells_it_touches() -> None:
    canvas = draw(Canvas(2, 1), ([0, 0, 0, 0], [3, 3, 3, 3], 5), ([0, NAN, NAN, NAN], [0, NAN, NAN, NAN], 7))
    assert canvas.lines() == [[("⠁", 7), ("⣿", 5)]]


def test_spans_are_clipped_to_the_plot() -> None:
    canvas = draw(Canvas(3, 3), ([-9, -9, 7, NAN], [2, -2, 40, NAN], 1), left=1, rows=2)
    assert text(canvas) == [" ⠇ ", "  ⡀", "   "]


def test_text_overwrites_dots_and_is_clipped_at_the_border() -> None:
    canvas = draw(Canvas(6, 1), ([0] * 12, [3] * 12, 1))
    canvas.put(-1, 0, "abc", 2)
    canvas.put(4, 0, "xyz", 3)
    canvas.put(0, 1, "below", 4)
    assert canvas.lines() == [[("bc", 2), ("⣿⣿", 1), ("xy", 3)]]


def test_wide_characters_take_two_cells() -> None:
    canvas = Canvas(6, 1)
    canvas.put(0, 0, "a学b", 1, widths=[1, 2, 1])
    assert canvas.lines() == [[("a学b", 1), ("  ", BLANK)]]
    canvas.put(5, 0, "学", 2, widths=[2])
    assert canvas.lines() == [[("a学b", 1), ("  ", BLANK)]]


def test_combining_characters_take_no_cell() -> None:
    canvas = Canvas(3, 1)
    canvas.put(0, 0, "e\u0301x", 1, widths=[1, 0, 1])
    assert canvas.lines() == [[("ex", 1), (" ", BLANK)]]


def test_drawn_cells_of_a_rectangle_are_counted() -> None:
    canvas = draw(Canvas(4, 2), ([0, 0] + [NAN] * 6, [3, 3] + [NAN] * 6, 1))
    assert canvas.count_drawn(0, 0, 4, 2) == 1
    assert canvas.count_drawn(1, 0, 3, 2) == 0


@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.tuples(st.integers(-5, 30), st.integers(0, 20))), min_size=8, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_each_cell_shows_the_dots_of_its_topmost_layer(layers: list[list[tuple[int, int] | None]]) -> None:
    """Compare with a reference that draws dot by dot, cell by cell."""
    width, height = 4, 5
    tops = [[NAN if span is None else span[0] for span in layer] for layer in layers]
    bottoms = [[NAN if span is None else span[0] + span[1] for span in layer] for layer in layers]
    canvas = draw(Canvas(width, height), *zip(tops, bottoms, range(1, len(layers) + 1), strict=True))
    bits_of_dots = {(0, 0): 1, (0, 1): 2, (0, 2): 4, (1, 0): 8, (1, 1): 16, (1, 2): 32, (0, 3): 64, (1, 3): 128}
    for row in range(height):
        inks = [ink for part, ink in canvas.lines()[row] for _ in part]
        for column, (character, ink) in enumerate(zip(text(canvas)[row], inks, strict=True)):
            expected = (0, BLANK)
            for number, layer in enumerate(layers, start=1):
                bits = 0
                for (x, y), bit in bits_of_dots.items():
                    span = layer[2 * column + x]
                    if span is not None and span[0] <= 4 * row + y <= span[0] + span[1]:
                        bits |= bit
                expected = (bits, number) if bits else expected
            assert (ord(character) - 0x2800 if expected[0] else 0, ink) == expected


@pytest.mark.parametrize("size", [(1, 1), (200, 50)])
def test_every_line_is_as_wide_as_the_canvas(size: tuple[int, int]) -> None:
    lines = text(Canvas(*size))
    assert [len(line) for line in lines] == [size[0]] * size[1]
