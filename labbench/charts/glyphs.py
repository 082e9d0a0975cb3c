"""Glyphs of series and of run statuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labbench.records import Status

if TYPE_CHECKING:
    pass


SERIES_GLYPHS = "▸●◆■▲▼◉◈▣"
"""Of a series, by its slot; slot 0 is the highlighted run that is not marked."""


SLOT_COUNT = len(SERIES_GLYPHS) - 1
"""How many marked runs look different; more share looks, in turn."""


@dataclass(frozen=True, slots=True)
class GlyphStyle:
    """A glyph, and the name of the theme's colour it has."""

    glyph: str
    colour: str


STATUS_GLYPHS: dict[Status, GlyphStyle] = {
    "queued": GlyphStyle("○", "secondary"),
    "running": GlyphStyle("◐", "primary"),
    "finished": GlyphStyle("✓", "success"),
    "diverged": GlyphStyle("✗", "warning"),
    "failed": GlyphStyle("!", "error"),
    "stopped": GlyphStyle("□", "secondary"),
    "lost": GlyphStyle("?", "error"),
}


SPINNER_GLYPHS = "◐◓◑◒"
"""The glyph of a run that is training turns through these."""
