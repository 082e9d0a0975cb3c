"""Top bar: database, tabs of the screens, run counts and progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from textual import events
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from labbench import text
from labbench.charts.glyphs import STATUS_GLYPHS
from labbench.records import STATUSES
from labbench.tui.queries import DatabaseProgress, Query

SCREEN_KEYS = {"runs": "1", "compare": "2", "grid": "3", "why": "4"}
"""Screens and their keys."""


_Counts: TypeAlias = Literal["words", "glyphs", "tight"]
"""Form of the run counts by status: with the status in words, with its glyph, or with its glyph and fewer spaces."""
_LAYOUTS: Sequence[tuple[Literal["name", "file"], bool, _Counts, bool]] = (
    ("name", True, "words", True),
    ("name", True, "glyphs", True),
    ("name", True, "glyphs", False),
    ("file", True, "glyphs", False),
    ("file", True, "tight", False),
    ("name", False, "glyphs", True),
    ("name", False, "glyphs", False),
)
"""Title, tabs, run counts and progress bar, for terminals from wide to narrow; the title is labbench and the file."""


class TopBar(Widget):
    """Line with the database, the screens, runs by status and the progress of running runs."""

    DEFAULT_CSS = """
    TopBar { height: 1; padding: 0 1; background: $panel; }
    """

    progress: reactive[DatabaseProgress] = reactive(DatabaseProgress())

    def __init__(self, path: Path, screen_name: str) -> None:
        super().__init__()
        self._path, self._screen_name = path, screen_name
        self._tabs: list[tuple[range, str]] = []

    def render(self) -> Content:
        width = self.size.width
        file = Content.styled(text.clean(self._path.name), "$secondary")
        name = Content.assemble(("labbench", "bold $primary"), (f"  {file.plain}", "$secondary"))
        for title, tabs, counts, has_bar in _LAYOUTS:
            self._tabs = []
            left = name if title == "name" else file
            left, middle = self._with_tabs(left) if tabs else left, self._status_counts(counts)
            right = self._progress_content(has_bar=has_bar)
            free = width - left.cell_length - middle.cell_length - right.cell_length
            if free >= 4:
                before = min(free - 2, max(2, (width - middle.cell_length) // 2 - left.cell_length))
                return left + " " * before + middle + " " * (free - before) + right
        self._tabs = []
        return name.truncate(width, ellipsis=True)

    def _with_tabs(self, name: Content) -> Content:
        """Return the name and the tabs, the current one highlighted; store the tabs' positions for clicks."""
        line, self._tabs = name + "   ", []
        for screen, key in SCREEN_KEYS.items():
            is_current = screen == self._screen_name
            tab = Content.assemble((f" {key}", "$primary" if is_current else "$secondary"), " ")
            tab += Content.styled(f"{screen} ", "bold $foreground" if is_current else "$secondary")
            tab = tab.stylize("on $primary 25%") if is_current else tab
            self._tabs.append((range(line.cell_length, line.cell_length + tab.cell_length), screen))
            line += tab
        return line

    async def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        for cells, screen in self._tabs:
            if offset is not None and offset.x in cells:
                await self.run_action(f"app.go('{screen}')")

    def _status_counts(self, form: _Counts) -> Content:
        progress = self.progress
        if not progress.total:
            return Content("")
        names = progress.experiments
        parts: list[tuple[str, str]] = []
        if form == "words":
            parts.append((f"{text.clean(names[0]) if len(names) == 1 else f'{len(names)} experiments'} · ", ""))
        parts.append((f"{progress.total} run{'s' * (progress.total != 1)}", ""))
        for status in STATUSES:
            count = progress.counts.get(status, 0)
            if count:
                style = STATUS_GLYPHS[status]
                parts.append((" " if form == "tight" else "  ", ""))
                gap, word = "" if form == "tight" else " ", f" {status}" if form == "words" else ""
                parts.append((f"{style.glyph}{gap}{count}{word}", f"${style.colour}"))
        return Content.assemble(*parts)

    def _progress_content(self, *, has_bar: bool) -> Content:
        progress = self.progress
        if not progress.is_live:
            return Content("")
        left = f"  {text.format_duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
        return Content.assemble(
            (text.progress_bar(progress.share, 12) if has_bar else "", "$primary on $border"),
            f" {int(100 * progress.share)} %",
            (left, "$secondary"),
        )


def describe_sort(sort: str) -> str:
    """Return a sort expression as text: `best val/loss`."""
    if sort == "created":
        return "queue time"
    return text.clean(sort.replace("(", " ", 1).removesuffix(")") if sort.endswith(")") else sort)


def describe_query(query: Query, shown: int, total: int) -> str:
    """Return the number of matching runs (with a filter) and their order as text; `total` leaves out archived runs."""
    order = f"sorted by {describe_sort(query.sort)} {'▼' if query.descending else '▲'}" if query.sort else ""
    count = f"{shown} of {total}" if shown <= total else text.format_count(shown, "run")
    return f"{count}   {order}" if query.expression.strip() else order
