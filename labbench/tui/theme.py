"""Themes and the colours of series.

Series colours begin with blue and orange of Okabe and Ito; each further colour is far from the earlier ones, for normal
vision (20 and more in CIEDE2000) and for each kind of colour blindness, so that the first few differ most; a test
measures the distances. Every series and every status also has its own glyph: colour is never the only cue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.color import Color as RichColor
from rich.style import Style
from textual.color import Color
from textual.theme import Theme

from labbench.charts.glyphs import LEADER_COUNT, SLOT_COUNT

if TYPE_CHECKING:
    from textual.app import App


DARK = Theme(
    name="labbench-dark",
    primary="#6cb6ff",
    secondary="#8a9bb4",
    accent="#ffc857",
    warning="#f0a030",
    error="#ff7b72",
    success="#4cc38a",
    foreground="#d5dce6",
    background="#10141b",
    surface="#151a23",
    panel="#1e2530",
    dark=True,
    variables={
        "border": "#2c3644",
        "scrollbar": "#2c3644",
        "scrollbar-hover": "#3d4a5c",
        "scrollbar-active": "#6cb6ff",
        "scrollbar-background": "#10141b",
        "scrollbar-background-hover": "#10141b",
        "scrollbar-background-active": "#10141b",
    },
)


LIGHT = Theme(
    name="labbench-light",
    primary="#0b62b8",
    secondary="#5b6b80",
    accent="#9a6400",
    warning="#b25f00",
    error="#c0282d",
    success="#117a4b",
    foreground="#20262e",
    background="#fcfcfa",
    surface="#f4f4f1",
    panel="#e6e7e4",
    dark=False,
    variables={
        "border": "#c6cad0",
        "scrollbar": "#c6cad0",
        "scrollbar-hover": "#a9b0b9",
        "scrollbar-active": "#0b62b8",
        "scrollbar-background": "#fcfcfa",
        "scrollbar-background-hover": "#fcfcfa",
        "scrollbar-background-active": "#fcfcfa",
    },
)


CONTRAST = Theme(
    name="labbench-contrast",
    primary="#6cc5ff",
    secondary="#c8d0da",
    accent="#ffd84d",
    warning="#ffb000",
    error="#ff8f87",
    success="#7cf0a8",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c2430",
    dark=True,
    variables={
        "border": "#8d99a8",
        "scrollbar": "#8d99a8",
        "scrollbar-hover": "#c8d0da",
        "scrollbar-active": "#6cc5ff",
        "scrollbar-background": "#000000",
        "scrollbar-background-hover": "#000000",
        "scrollbar-background-active": "#000000",
    },
)


THEMES = (DARK, LIGHT, CONTRAST)


SERIES_COLOURS = {
    True: ("#f3f6fa", "#56b4e9", "#f0a030", "#f5fe70", "#e61f37", "#ba43c3", "#24fad1", "#2d9281", "#b8b5ab"),
    False: ("#111418", "#0072b2", "#c55a00", "#780f0b", "#0d0da7", "#ae3dfe", "#6c5364", "#380126", "#7a7462"),
}
"""Colours by slot, for dark (True) and light (False) backgrounds."""


CONTRAST_SERIES_COLOURS = (
    "#ffffff",
    "#6cc5ff",
    "#ffb000",
    "#e3fcf0",
    "#959888",
    "#fb681f",
    "#0bfe9b",
    "#da63f6",
    "#edea05",
)


_HEAT_256 = {True: (234, 236, 22, 28), False: (231, 194, 157, 114)}
"""Backgrounds of heat maps on terminals with 256 colours, from weakest to strongest, by dark (True) or light theme."""


def has_few_colours(app: App[None]) -> bool:
    """Return True if the terminal has 8 or 16 colours, too few for a tinted background."""
    return app.console.color_system in ("standard", "windows") and not app.is_headless


def reversed_style(app: App[None], *, bold: bool) -> Style:
    """Return the style of the cursor's row with few colours: text and background of the theme change places.

    The terminal's own two colours would not do: with a dark theme on a light terminal, other rows have them.
    """
    ink, ground = (Color.parse(app.theme_variables[name]).rich_color for name in ("foreground", "background"))
    return Style(color=ink, bgcolor=ground, bold=bold, reverse=True)


def heat_ground(app: App[None], ground: Color, heat: float) -> Color:
    """Return the background of a heat map's cell; `heat` is 0 to 1."""
    if app.console.color_system == "256" and not app.is_headless:
        grounds = _HEAT_256[app.current_theme.dark]
        return Color.from_rich_color(RichColor.from_ansi(grounds[min(len(grounds) - 1, int(heat * len(grounds)))]))
    return ground.blend(Color.parse(app.theme_variables["success"]), 0.08 + 0.5 * heat)


def series_colours(app: App[None]) -> tuple[str, ...]:
    """Return the colour of each slot in the current theme, slot 0 first; the last share colours with the first."""
    colours = CONTRAST_SERIES_COLOURS if app.theme == CONTRAST.name else SERIES_COLOURS[app.current_theme.dark]
    return colours + colours[1 : 1 + LEADER_COUNT - SLOT_COUNT]
