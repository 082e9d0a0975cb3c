"""Glyphs of series and of run statuses."""

from __future__ import annotations

from dataclasses import dataclass

from labbench.records import Status

SERIES_GLYPHS = "▸●◆■▲▼◉◈▣"
"""Glyphs of series by slot; slot 0 is the highlighted run if it is not marked."""

SLOT_COUNT = len(SERIES_GLYPHS) - 1
"""Number of distinct slots for marked runs; further runs reuse the slots in order."""


@dataclass(frozen=True, slots=True)
class GlyphStyle:
    """A glyph and the name of its theme colour."""

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
"""Animation frames of the glyph of a running run."""
