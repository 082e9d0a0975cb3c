"""Glyphs of series and of run statuses."""

from __future__ import annotations

from dataclasses import dataclass

from labbench.records import Status

SERIES_GLYPHS = "▸●◆■▲▼◉◈▣◇△"
"""Glyphs of series by slot; slot 0 is the highlighted run if it is not marked."""

SLOT_COUNT = 8
"""Number of distinct slots for marked runs, from 1 on; further runs reuse the slots in order."""

LEADER_COUNT = len(SERIES_GLYPHS) - 1
"""Number of slots for the best of very many configurations; the last ones share the first ones' colours."""

OTHER_SLOT = -1
"""Slot of the runs that are drawn in grey among very many."""

OTHER_GLYPH = "·"
"""Glyph of the runs in `OTHER_SLOT`."""


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
    "pruned": GlyphStyle("⊘", "secondary"),
    "lost": GlyphStyle("?", "error"),
}


SPINNER_GLYPHS = "◐◓◑◒"
"""Animation frames of the glyph of a running run."""
