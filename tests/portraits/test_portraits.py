"""Drawn portraits: golden text without colour, colour on request, no control characters."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from helpers.golden import compare
from helpers.tui_samples import grid_of_runs, portrait, write_portraits
from labbench.errors import InputError
from labbench.files import files_folder
from labbench.portraits.draw import draw_portrait
from labbench.portraits.file import HISTOGRAM_BINS, NO_PORTRAIT_MESSAGE, Histogram, Mistakes, Portrait, read_portrait
from labbench.portraits.pixels import PaintMode, choose_paint_mode, line_width, rasterize_image, to_ansi, to_plain_text
from labbench.text import cell_width


@pytest.mark.parametrize("mode", ["shades", "ascii"])
def test_a_portrait_without_colour_matches_its_golden_file(mode: PaintMode) -> None:
    compare(f"portrait-{mode}", "\n".join(to_plain_text(draw_portrait(portrait(), 80, mode))))


def test_ascii_is_ascii() -> None:
    assert all(line.isascii() for line in to_plain_text(draw_portrait(portrait(), 120, "ascii")))


@pytest.mark.parametrize("mode", ["colour", "shades", "ascii"])
@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(columns: int, mode: PaintMode) -> None:
    lines = draw_portrait(portrait(), columns, mode)
    assert max(map(line_width, lines)) <= columns
    assert len(lines) > 20


def test_each_side_of_the_boundary_has_the_colour_of_its_class() -> None:
    plane = replace(portrait(), confusion=None, mistakes=None, weights=None, histograms=())
    rows = draw_portrait(plane, 80, "colour")[2:]
    corner, middle = rows[0][0], rows[10][40]
    assert corner.ink is not None
    assert middle.ink is not None
    assert corner.ink[2] > corner.ink[0]  # blue: class 0
    assert middle.ink[0] > middle.ink[2]  # orange: class 1
    assert sum(piece.text == "●" for row in rows for piece in row) == 14


def test_a_cell_holds_two_pixels_one_above_the_other() -> None:
    image = np.array([[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]]], dtype=np.uint8)
    [first], [second] = rasterize_image(image, "colour")
    assert (first.ink, first.ground) == ((255, 0, 0), (0, 255, 0))
    assert second.ink == (0, 0, 255)


def test_colour_codes_match_the_terminal_and_are_reset_at_the_end_of_each_line() -> None:
    lines = draw_portrait(portrait(), 80, "colour")
    rich, plain = to_ansi(lines, {"COLORTERM": "truecolor"}), to_ansi(lines, {})
    assert any("38;2;" in line for line in rich)
    assert not any("38;2;" in line for line in plain)
    numbers = [int(number) for line in plain for number in re.findall(r"[34]8;5;(\d+)", line)]
    assert numbers
    assert all(16 <= number <= 255 for number in numbers)
    assert all(line.endswith("\x1b[0m") or "\x1b" not in line for line in rich + plain)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_the_paint_mode_follows_the_terminal_and_no_color() -> None:
    assert choose_paint_mode(Terminal(), {}) == "colour"
    assert choose_paint_mode(Terminal(), {"NO_COLOR": "1"}) == "shades"
    assert choose_paint_mode(Terminal(), {"TERM": "dumb"}) == "shades"
    assert choose_paint_mode(Terminal(), {"LABBENCH_ASCII": "1"}) == "ascii"
    assert choose_paint_mode(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), {}) == "shades"
    assert choose_paint_mode(io.TextIOWrapper(io.BytesIO(), encoding="latin-1"), {}) == "ascii"


def test_control_characters_in_layer_names_are_replaced() -> None:
    histograms = [replace(histogram, layer="1.\x1b]0;evil\x07\x1b[2J宽") for histogram in portrait().histograms]
    lines = to_plain_text(draw_portrait(replace(portrait(), histograms=histograms), 60, "shades"))
    assert not any("\x1b" in line or "\x07" in line for line in lines)
    assert any("1.␛]0;evil" in line for line in lines)
    assert max(map(cell_width, lines)) <= 60


def test_colour_images_and_kernels_keep_their_colours() -> None:
    red = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    red[..., 0] = 200
    mistakes = Mistakes(red, np.array([1]), np.array([[0.9, 0.1]], dtype=np.float32))
    kernels = np.zeros((1, 5, 5, 3), dtype=np.float32)
    kernels[..., 2] = 1.0
    lines = draw_portrait(Portrait(1, mistakes=mistakes, weights=kernels), 80, "colour")
    assert lines[1][0].ink == (200, 0, 0)
    assert (len(lines[1]), len(lines)) == (32, 1 + 16 + 1 + 1 + 1 + 5)
    assert lines[-1][0].ink == (127, 127, 255)


def test_many_classes_are_summarized_in_words() -> None:
    confusion = np.diag(np.full(100, 5))
    confusion[41, 7] = 3
    lines = to_plain_text(draw_portrait(Portrait(1, confusion), 80, "shades"))
    assert lines[1:] == [
        "no table: 100 classes, and it is drawn for up to 20",
        "most confused: 41 as 7 (3)",
    ]


@pytest.mark.parametrize("columns", [45, 40, 33])
def test_the_confusion_matrix_of_ten_classes_fits_a_narrow_terminal(columns: int) -> None:
    confusion = np.diag(np.full(10, 27))
    confusion[8, 1] = 3
    lines = to_plain_text(draw_portrait(Portrait(1, confusion), columns, "shades"))
    top = next(index for index, line in enumerate(lines) if line.startswith("   "))
    assert lines[top].split() == [str(index) for index in range(10)]
    assert lines[top + 9].split() == ["8", "·", "3", *"······", "27", "·"]
    assert max(map(cell_width, lines)) <= columns


def test_a_confusion_matrix_that_is_too_wide_states_the_width_it_needs() -> None:
    confusion = np.diag(np.full(10, 27))
    lines = to_plain_text(draw_portrait(Portrait(1, confusion), 32, "shades"))
    assert lines[-2:] == ["no table: it needs 33 columns", "no class was mistaken"]


def test_explanations_of_pictures_are_wrapped_in_a_narrow_terminal() -> None:
    texts = [
        " ".join(" ".join(to_plain_text(draw_portrait(portrait(), columns, "shades"))).split())
        for columns in (20, 30, 80)
    ]
    for words in ("confusion matrix 26 of 30 validation samples correct; rows are true classes", "2 as 0 (3), 0 as 1"):
        assert all(words in text for text in texts)


def test_all_zero_weights_and_counts_are_drawn() -> None:
    zeros = Histogram(1, "activations", "a", 0.0, 0.0, np.zeros(HISTOGRAM_BINS, dtype=np.int64))
    empty_portrait = Portrait(
        1, np.zeros((2, 2), dtype=np.int64), None, None, np.zeros((1, 3, 3, 1), np.float32), [zeros]
    )
    for mode in ("colour", "shades", "ascii"):
        assert draw_portrait(empty_portrait, 80, mode)


def test_show_draws_the_portrait_below_its_text_and_leaves_json_unchanged(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    run = grid_of_runs(tmp_path / "runs.db")[0]
    before, document = labbench("show", run.key).stdout, labbench("show", run.key, "--json").stdout
    write_portraits(tmp_path / "runs.db", [run])
    output = labbench("show", run.key).stdout
    assert "decision boundary" in output
    assert "\x1b" not in output  # a pipe
    assert output.startswith(before.removesuffix(f"\n{NO_PORTRAIT_MESSAGE}\n"))
    assert labbench("show", run.key, "--json").stdout == document


def test_show_explains_how_to_get_a_portrait(labbench: Callable[..., Result], tmp_path: Path) -> None:
    runs = grid_of_runs(tmp_path / "runs.db")
    assert labbench("show", runs[4].key).stdout.endswith(f"\n{NO_PORTRAIT_MESSAGE}\n")
    assert "[runtime] watch = true" in NO_PORTRAIT_MESSAGE
    assert NO_PORTRAIT_MESSAGE not in labbench("show", runs[-1].key).stdout  # the run is queued


def test_a_corrupt_portrait_is_one_line_and_not_a_failure(labbench: Callable[..., Result], tmp_path: Path) -> None:
    run = grid_of_runs(tmp_path / "runs.db")[0]
    folder = files_folder(tmp_path / "runs.db") / run.key
    folder.mkdir(parents=True)
    (folder / "portrait.npz").write_bytes(b"torn")
    result = labbench("show", run.key)
    assert result.exit_code == 0
    assert "is not a valid portrait" in result.stdout


def test_a_portrait_file_that_expands_to_more_than_any_portrait_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "portrait.npz"
    np.savez_compressed(bomb, epoch=1, confusion=np.zeros((4000, 4000)))
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="expands to 128 MB"):
        read_portrait(bomb)
