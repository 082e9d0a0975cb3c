"""Legend above several charts: glyph and name of each line, so that the charts show values only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from labbench import text
from labbench.charts.glyphs import OTHER_GLYPH, OTHER_SLOT, SERIES_GLYPHS
from labbench.tui.theme import series_colours
from labbench.tui.widgets.partial_drawing import StaticText

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.lines import Line

_MAX_ROWS = 3
_MAX_NAME_WIDTH = 30
_GAP = "   "


class PageLegend(StaticText):
    """Names of the lines on a page of charts, in rows of the same columns."""

    DEFAULT_CSS = """
    PageLegend { height: auto; padding: 0 1; display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[Line] = ()
        self._highlighted: str | None = None
        self._is_grouped = False

    def show(self, lines: Sequence[Line], highlighted: str | None, *, is_grouped: bool) -> None:
        """Show these lines, or their groups if `is_grouped`; hide the legend without any."""
        if (list(lines), highlighted, is_grouped) != (list(self._lines), self._highlighted, self._is_grouped):
            self._lines, self._highlighted, self._is_grouped = lines, highlighted, is_grouped
            self.display = bool(lines)
            self._update()

    def on_resize(self) -> None:
        self._update()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._update()

    def _update(self) -> None:
        if not self._lines or not self.size.width:
            return
        entries = self._entries()
        half = (self.size.width - len(_GAP)) // 2 - 2
        width = min(max(_MAX_NAME_WIDTH, half), max(text.cell_width(name) for _, _, name, _ in entries))
        columns = max(1, (self.size.width + len(_GAP)) // (2 + width + len(_GAP)))
        hidden = max(0, len(entries) - columns * _MAX_ROWS + 1) if len(entries) > columns * _MAX_ROWS else 0
        parts: list[tuple[str, str]] = []
        for index, (glyph, colour, name, is_bright) in enumerate(entries[: len(entries) - hidden]):
            parts.append(("" if index == 0 else "\n" if index % columns == 0 else _GAP, ""))
            parts += [(f"{glyph} ", colour), (text.fit_to_width(name, width), "bold" if is_bright else "$secondary")]
        if hidden:
            parts.append((f"{_GAP}and {hidden} more", "$secondary"))
        self.update(Content.assemble(*parts))

    def _entries(self) -> list[tuple[str, str, str, bool]]:
        """Return glyph, colour, name and brightness of each line, or of each group and one entry for all others."""
        colours = series_colours(self.app)
        if not self._is_grouped:
            return [(line.glyph, colours[line.slot], line.label, line.key == self._highlighted) for line in self._lines]
        from labbench.charts.lines import group_lines  # imports numpy, which the lines have loaded by now

        groups = sorted((slot, label) for label, (slot, _) in group_lines(self._lines).items())
        entries = [
            (SERIES_GLYPHS[slot], colours[slot], label, slot == 0) for slot, label in groups if slot != OTHER_SLOT
        ]
        n_others = len(groups) - len(entries)
        return [*entries, (OTHER_GLYPH, "$secondary", f"{n_others} others", False)] if n_others else entries
