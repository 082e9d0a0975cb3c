"""Looks that everybody can read: colours for every kind of sight, no colours, no UTF-8."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from helpers.golden import SMALL, press, screen, settle, use
from helpers.tui_samples import grid_of_runs
from labbench.charts.glyphs import SERIES_GLYPHS, STATUS_GLYPHS
from labbench.tui.app import LabbenchApp
from labbench.tui.line_filters import AsciiFilter, needs_ascii, to_ascii
from labbench.tui.theme import CONTRAST, CONTRAST_SERIES_COLOURS, DARK, LIGHT, SERIES_COLOURS, THEMES
from labbench.tui.widgets.run_table import RunsTable

SIGHTS = {  # Machado, Oliveira and Fernandes 2009: what is seen of linear RGB without one kind of cone
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_CONES = [[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]
TO_OKLAB = [[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]
PALETTES = pytest.mark.parametrize(
    ("colours", "theme"),
    [(SERIES_COLOURS[True], DARK), (SERIES_COLOURS[False], LIGHT), (CONTRAST_SERIES_COLOURS, CONTRAST)],
    ids=["dark", "light", "contrast"],
)


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def apart(one: str, other: str, sight: str) -> float:
    """Distance in Oklab; 0.02 is about the least that anybody sees."""
    seen = [np.cbrt(np.array(TO_CONES) @ np.clip(np.array(SIGHTS[sight]) @ linear(c), 0, 1)) for c in (one, other)]
    return float(np.linalg.norm(np.array(TO_OKLAB) @ (seen[0] - seen[1])))


@PALETTES
@pytest.mark.parametrize("sight", SIGHTS)
def test_series_colours_stay_apart_for_every_sight_the_first_ones_most(colours, theme, sight: str) -> None:
    series = colours[1:]
    for count, least in ((2, 0.2), (4, 0.14), (6, 0.1), (8, 0.08)):
        assert min(apart(*pair, sight) for pair in combinations(series[:count], 2)) >= least


@PALETTES
def test_series_stand_out_from_their_background(colours, theme) -> None:
    def light(colour: str) -> float:
        return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour)) + 0.05

    least = 7 if theme is CONTRAST else 4
    for colour in (*colours, theme.foreground):
        pair = sorted([light(colour), light(theme.background)])
        assert pair[1] / pair[0] >= least


def test_every_glyph_of_a_series_has_an_ascii_character() -> None:
    for glyph in SERIES_GLYPHS + "".join(look.glyph for look in STATUS_GLYPHS.values()):
        assert to_ascii(glyph).isascii()
        assert to_ascii(glyph) != "?" or glyph == "?"
    assert to_ascii("⠑⢄⡇⠉⣀⣿ ") == "\\\\|'_# "
    assert to_ascii("学 é") == "?? ?"


@pytest.mark.parametrize(
    ("environ", "ascii"),
    [
        ({}, False),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C.utf8"}, False),
        ({"LANG": "C"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LC_ALL": "de_DE.ISO-8859-1", "LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8", "LABBENCH_ASCII": "1"}, True),
    ],
)
def test_ascii_is_for_locales_that_name_another_encoding(environ: dict[str, str], ascii: bool) -> None:
    assert needs_ascii(environ) is ascii


def test_without_utf8_every_line_is_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABBENCH_ASCII", "1")
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", "y")
        [ascii_filter] = [kept for kept in pilot.app.get_line_filters() if isinstance(kept, AsciiFilter)]
        background = pilot.app.screen.background_colors[1]
        lines = [ascii_filter.apply(list(strip), background) for strip in pilot.app.screen._compositor.render_strips()]
        drawn = "\n".join("".join(segment.text for segment in line) for line in lines)
        assert drawn.isascii()
        assert {len(line) for line in drawn.splitlines()} == {SMALL[0]}
        assert "val/loss" in drawn

    use(tmp_path / "runs.db", look, size=SMALL)


def test_without_colours_lines_carry_their_glyphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid_of_runs(tmp_path / "runs.db")

    def glyphs_on_the_chart(with_colours: bool) -> int:
        counts = []

        async def look(pilot: Pilot[None]) -> None:
            await press(pilot, "space", "j", "j", "j", "space")
            counts.append(screen(pilot).count("●"))

        monkeypatch.setenv("NO_COLOR", "1")
        if with_colours:
            monkeypatch.delenv("NO_COLOR")
        use(tmp_path / "runs.db", look)
        return counts[0]

    assert glyphs_on_the_chart(with_colours=False) >= glyphs_on_the_chart(with_colours=True) + 3


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
def test_a_theme_chosen_while_the_table_is_painted_colours_all_of_it(tmp_path: Path, theme: str) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look() -> None:
        app = LabbenchApp(tmp_path / "runs.db")
        async with app.run_test(size=SMALL) as pilot:
            app.theme = theme
            await settle(pilot)
            table = app.screen.query_one(RunsTable)
            lead = next(iter(table.render_line(0)))
            assert lead.style is not None
            assert lead.style.bgcolor == table.background_colors[1].rich_color

    asyncio.run(look())
