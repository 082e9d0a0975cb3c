"""Colours and glyphs: the two themes, the colours of series, and how each status looks.

Series colours stay apart for the common kinds of colour blindness (after Okabe and Ito, shifted for each background),
and every series has a glyph of its own, as every status has: nothing is told by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.theme import Theme

from labbench.records import Status

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
THEMES = (DARK, LIGHT)

_ON_DARK = ("#f3f6fa", "#56b4e9", "#f0a030", "#3ccf94", "#f08cc0", "#f0e442", "#ef6f45", "#9aa7ff", "#b9c46a")
_ON_LIGHT = ("#111418", "#0072b2", "#c55a00", "#00805f", "#b0307c", "#7d6a00", "#9c2f10", "#4b46c4", "#55651a")

GLYPHS = "▸●◆■▲▼◉◈▣"
"""Of a series, by its slot; slot 0 is the highlighted run that is not marked."""

SLOTS = len(GLYPHS) - 1
"""How many marked runs look different; more share looks, in turn."""


def series_colours(app: App[None]) -> tuple[str, ...]:
    """The colour of each slot on the present theme's background, slot 0 first."""
    return _ON_DARK if app.current_theme.dark else _ON_LIGHT


@dataclass(frozen=True, slots=True)
class Look:
    """A glyph, and the name of the theme's colour it has."""

    glyph: str
    colour: str


STATUS_LOOKS: dict[Status, Look] = {
    "queued": Look("○", "secondary"),
    "running": Look("◐", "primary"),
    "finished": Look("✓", "success"),
    "diverged": Look("✗", "warning"),
    "failed": Look("!", "error"),
    "stopped": Look("□", "secondary"),
    "lost": Look("?", "error"),
}

MOVING = "◐◓◑◒"
"""The glyph of a run that is training turns through these."""
