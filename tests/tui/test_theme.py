"""Themes: series colours for every sight, contrast, and a change of theme."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from helpers.golden import SMALL, settle
from helpers.tui_samples import grid_of_runs
from labbench.tui.app import LabbenchApp
from labbench.tui.theme import CONTRAST, CONTRAST_SERIES_COLOURS, DARK, LIGHT, SERIES_COLOURS, THEMES
from labbench.tui.widgets.run_table import RunsTable

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
