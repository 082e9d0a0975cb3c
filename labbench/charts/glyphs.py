"""Glyphs of series and of run statuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labbench.records import Status

if TYPE_CHECKING:
    pass


GLYPHS = "▸●◆■▲▼◉◈▣"
"""Of a series, by its slot; slot 0 is the highlighted run that is not marked."""


SLOTS = len(GLYPHS) - 1
"""How many marked runs look different; more share looks, in turn."""


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
