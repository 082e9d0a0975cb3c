"""Themes: series colours for every sight, contrast, and a change of theme."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from rich.color import ColorSystem
from rich.style import Style
from textual.color import Color
from textual.theme import Theme

from helpers.golden import SMALL, press, settle, type_in
from helpers.tui_samples import grid_of_runs
from labbench.tui.app import LabbenchApp
from labbench.tui.saved_state import SavedState, read_theme
from labbench.tui.terminal.questions import parse_answer
from labbench.tui.theme import CONTRAST, CONTRAST_SERIES_COLOURS, DARK, LIGHT, SERIES_COLOURS, THEMES, heat_ground
from labbench.tui.widgets.run_table import RunsTable
from labbench.tui.widgets.text_grid import TextGrid

SIGHTS = {  # Machado, Oliveira and Fernandes 2009: linear RGB as seen without one kind of cone
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
    channels = np.array([int(colour[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def oklab_distance(first: str, second: str, sight: str) -> float:
    """Return the distance of two colours in Oklab; about 0.02 is just noticeable."""
    cones = [np.cbrt(np.array(TO_CONES) @ np.clip(np.array(SIGHTS[sight]) @ linear(c), 0, 1)) for c in (first, second)]
    return float(np.linalg.norm(np.array(TO_OKLAB) @ (cones[0] - cones[1])))


@PALETTES
@pytest.mark.parametrize("sight", SIGHTS)
def test_series_colours_differ_for_every_sight_the_first_ones_most(colours, theme, sight: str) -> None:
    series = colours[1:]
    for count, minimum in ((2, 0.2), (4, 0.14), (6, 0.1), (8, 0.08)):
        assert min(oklab_distance(*pair, sight) for pair in combinations(series[:count], 2)) >= minimum


def lab(colour: str) -> np.ndarray:
    """Return a colour in CIELAB under D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    xyz = np.array(to_xyz) @ linear(colour) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(first: str, second: str) -> float:
    """Return the colour difference CIEDE2000 (Sharma, Wu and Dalal 2005); 1 is just noticeable."""
    (l1, a1, b1), (l2, a2, b2) = lab(first), lab(second)
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    level, chroma, angle = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + turn / 2) % 360
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    t = 1 + sum(size * np.cos(np.radians(times * angle + shift)) for size, times, shift in waves)
    s_l = 1 + 0.015 * (level - 50) ** 2 / np.sqrt(20 + (level - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    rotation *= np.sin(np.radians(60 * np.exp(-(((angle - 275) / 25) ** 2))))
    parts = ((l2 - l1) / s_l, (c2 - c1) / s_c, hue / s_h)
    return float(np.sqrt(sum(part**2 for part in parts) + rotation * parts[1] * parts[2]))


def test_the_colour_difference_is_that_of_the_published_pairs() -> None:
    assert ciede2000("#ffffff", "#000000") == pytest.approx(100.0, abs=0.01)
    assert ciede2000("#ff0000", "#00ff00") == pytest.approx(86.6, abs=0.1)


@PALETTES
def test_any_two_series_differ_by_20(colours, theme) -> None:
    assert min(ciede2000(*pair) for pair in combinations(colours[1:], 2)) >= 20


@pytest.mark.parametrize("theme", [DARK, LIGHT, CONTRAST], ids=lambda theme: theme.name)
@pytest.mark.parametrize("system", ["truecolor", "256"])
def test_the_grounds_of_a_heat_map_are_ordered(theme, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = LabbenchApp(Path("none.db"))
    app.theme = theme.name
    monkeypatch.setattr(type(app.console), "color_system", system)
    grounds = [heat_ground(app, Color.parse(theme.background), heat / 10) for heat in range(11)]
    if system == "256":
        shown = [ground.rich_color.downgrade(ColorSystem.EIGHT_BIT).get_truecolor() for ground in grounds]
        grounds = [Color(*channels) for channels in shown]
    light = [float(np.array([0.2126, 0.7152, 0.0722]) @ linear(ground.hex)) for ground in grounds]
    assert light == sorted(light, reverse=not theme.dark)
    assert len(set(light)) >= 4


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_cursor_is_readable_with_sixteen_colours_on_every_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theme: Theme
) -> None:
    """A terminal that does not tell its background may be light under a dark theme: no colour is left to it."""
    for module in ("run_row", "text_grid"):
        monkeypatch.setattr(f"labbench.tui.widgets.{module}.has_few_colours", lambda app: True)
    grid_of_runs(tmp_path / "runs.db")

    def shown_colours(style: Style) -> list[Color]:
        assert style.color is not None
        assert style.bgcolor is not None
        inks = [color.downgrade(ColorSystem.STANDARD) for color in (style.color, style.bgcolor)]
        return [Color(*ink.get_truecolor()) for ink in (reversed(inks) if style.reverse else inks)]

    async def look() -> None:
        app = LabbenchApp(tmp_path / "runs.db", theme=theme.name)
        async with app.run_test(size=SMALL) as pilot:
            for screen, table in (("1", RunsTable), ("3", TextGrid)):
                await press(pilot, screen)
                rows = [list(row) for row in app.screen._compositor.render_strips()]
                region = app.screen.query(table).first().content_region
                segments = [segment for row in rows[region.y : region.bottom] for segment in row]
                words = [part for part in segments if part.style and part.text.strip(" ▁▂▃▄▅▆▇█")]  # no scroll bar
                cursor = [part for part in words if part.style.reverse]
                other = next(part for part in words if not part.style.reverse and "adam" in part.text)
                for part in cursor:
                    ink, ground = shown_colours(part.style)
                    assert abs(ink.brightness - ground.brightness) > 0.3
                    assert ground != shown_colours(other.style)[1]
                assert cursor

    asyncio.run(look())


def test_a_chosen_theme_is_kept_in_every_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    grid_of_runs(tmp_path / "runs.db")

    async def look() -> None:
        app = LabbenchApp(tmp_path / "runs.db", saved_state=SavedState(tmp_path / "runs.db"))
        async with app.run_test(size=SMALL) as pilot:
            await settle(pilot)
            app.action_change_theme()
            await settle(pilot)
            await type_in(pilot, "contrast")
            await press(pilot, "enter")
            assert app.theme == CONTRAST.name

    assert read_theme({}) is None
    asyncio.run(look())
    assert read_theme({}) == CONTRAST.name
    assert read_theme({"TEXTUAL_THEME": "nord"}) == "nord"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"\x1b]11;rgb:ffff/ffff/ffff\x07\x1b[?62;c", (True, b"")),
        (b"j\x1b]11;rgb:1010/1414/1b1b\x1b\\k\x1b[?1;2cq", (False, b"jkq")),
        (b"\x1b]11;rgba:ff/ff/f0/ff\x07", (True, b"")),
        (b"jj\x1b[?6c", (None, b"jj")),
        (b"", (None, b"")),
    ],
)
def test_the_background_is_read_from_among_typed_keys(answer: bytes, expected: tuple[bool | None, bytes]) -> None:
    assert parse_answer(answer) == expected


@PALETTES
def test_series_contrast_with_their_background(colours, theme) -> None:
    def light(colour: str) -> float:
        return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour)) + 0.05

    minimum = 7 if theme is CONTRAST else 4
    for colour in (*colours, theme.foreground):
        pair = sorted([light(colour), light(theme.background)])
        assert pair[1] / pair[0] >= minimum


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
def test_a_change_of_theme_recolours_the_whole_table(tmp_path: Path, theme: str) -> None:
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
