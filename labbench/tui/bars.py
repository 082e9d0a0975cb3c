"""The lines around the work: what is going on at the top, the filter under it, what the keys do at the bottom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.highlighter import Highlighter
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Input, Static

from labbench import filters, text
from labbench.errors import FilterError
from labbench.records import STATUSES
from labbench.tui.columns import show_setting
from labbench.tui.looks import STATUS_LOOKS
from labbench.tui.source import Progress, Query


class TopLine(Widget):
    """The database, its runs by status, and the progress of what is training."""

    DEFAULT_CSS = """
    TopLine { height: 1; padding: 0 1; background: $panel; }
    """

    progress: reactive[Progress] = reactive(Progress())

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def render(self) -> Content:
        width = self.size.width
        right = self._bar()
        left = Content.assemble(("labbench", "bold $primary"), ("  " + text.clean(self._path.name), "$text-muted"))
        for middle in (self._counts(long=True), self._counts(long=False), Content("")):
            room = width - left.cell_length - middle.cell_length - right.cell_length
            if room >= 4:
                before = min(room - 2, max(2, (width - middle.cell_length) // 2 - left.cell_length))
                return left + " " * before + middle + " " * (room - before) + right
        return left.truncate(width, ellipsis=True)

    def _counts(self, *, long: bool) -> Content:
        progress = self.progress
        if not progress.total:
            return Content("")
        names = progress.experiments
        parts: list[tuple[str, str]] = []
        if long:
            parts.append((f"{text.clean(names[0]) if len(names) == 1 else f'{len(names)} experiments'} · ", ""))
        parts.append((f"{progress.total} run{'s' * (progress.total != 1)}", ""))
        for status in STATUSES:
            count = progress.counts.get(status, 0)
            if count:
                look = STATUS_LOOKS[status]
                parts.append(("  " if parts else "", ""))
                parts.append((f"{look.glyph} {count}{f' {status}' if long else ''}", f"${look.colour}"))
        return Content.assemble(*parts)

    def _bar(self) -> Content:
        progress = self.progress
        if not progress.is_live:
            return Content("")
        left = f"  {text.duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
        return Content.assemble(
            (text.bar(progress.share, 12), "$primary on $border"),
            f" {int(100 * progress.share)} %",
            (left, "$text-muted"),
        )


class FilterBar(Horizontal):
    """The filter, its error with the place, and how much of everything it lets through."""

    DEFAULT_CSS = """
    FilterBar { height: 1; padding: 0 1; background: $surface; }
    FilterBar #filter-label { width: auto; color: $secondary; }
    FilterBar Input { width: 1fr; border: none; padding: 0; height: 1; background: $surface; }
    FilterBar Input:focus { background: $panel; }
    FilterBar #filter-said { width: auto; padding-left: 2; color: $secondary; }
    FilterBar.-wrong #filter-said { color: $error; }
    """

    class Changed(Message):
        """The expression is another one, and it parses."""

        def __init__(self, expression: str) -> None:
            self.expression = expression
            super().__init__()

    class Left(Message):
        """The person is done with the filter."""

    def __init__(self) -> None:
        super().__init__()
        self._marker = _ErrorMarker()
        self._kept = ""
        self._found = ""

    def compose(self) -> ComposeResult:
        yield Static("filter  ", id="filter-label", markup=False)
        yield Input(
            placeholder="all runs    such as  optimizer=adam lr<=0.01 val/loss<0.3",
            highlighter=self._marker,
            select_on_focus=False,
            compact=True,
        )
        yield Static(id="filter-said", markup=False)

    def begin(self) -> None:
        """Give the keyboard to the filter."""
        self._kept = self.input.value
        self.input.focus()

    def cancel(self) -> None:
        """Go back to the expression that was there."""
        self.input.value = self._kept
        self.post_message(self.Left())

    def say(self, found: str) -> None:
        """Say what the filter lets through, unless there is an error to say."""
        self._found = found
        if not self.has_class("-wrong"):
            self.query_one("#filter-said", Static).update(Content(found))

    @property
    def input(self) -> Input:
        return self.query_one(Input)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        said = self.query_one("#filter-said", Static)
        try:
            filters.parse(event.value)
        except FilterError as error:
            self._marker.position = error.position
            self.add_class("-wrong")
            said.update(Content(f"column {error.position + 1}: {text.clean(error.message)}"))
        else:
            self._marker.position = None
            self.remove_class("-wrong")
            said.update(Content(self._found))
            self.post_message(self.Changed(event.value))
        self.input.refresh()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if not self.has_class("-wrong"):
            self.post_message(self.Left())


class _ErrorMarker(Highlighter):
    """Underlines the place in the filter that cannot be read."""

    position: int | None = None

    def highlight(self, text: Text) -> None:
        if self.position is not None and len(text):
            start = min(self.position, len(text) - 1)
            text.stylize("bold reverse", start, start + 1)


class ConstantLine(Static):
    """The settings that all shown runs share, in one line in place of a column each."""

    DEFAULT_CSS = """
    ConstantLine { height: 1; padding: 0 1; color: $secondary; text-overflow: ellipsis; text-wrap: nowrap; }
    """

    def show(self, constant: Mapping[str, Any]) -> None:
        """Show keys with one value each."""
        pairs = (f"{text.clean(key)} {show_setting(value)}" for key, value in constant.items())
        self.update(Content("same in all   " + " · ".join(pairs) if constant else ""))


class KeyLine(Widget):
    """What the keys do here: as many as fit, the most useful first; a click presses the key."""

    DEFAULT_CSS = """
    KeyLine { height: 1; padding: 0 1; background: $panel; }
    """

    def render(self) -> Content:
        shown, width = Content(""), self.size.width
        last = self._entry("?", "help", "help")
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not binding.show or not active.enabled or binding.action == "help":
                continue
            entry = self._entry(self.app.get_key_display(binding), binding.description, binding.action)
            if shown.cell_length + entry.cell_length + last.cell_length > width:
                break
            shown += entry
        return shown + last

    def _entry(self, key: str, description: str, action: str) -> Content:
        entry = Content.assemble((key, "bold $primary"), (f" {description}", "$text-muted"))
        return entry.stylize(Style.from_meta({"@click": f"screen.{action}"})) + "  "


def describe(query: Query, shown: int, total: int) -> str:
    """How much a query lets through and in which order, in words."""
    order = f"sorted by {text.clean(query.sort)} {'▼' if query.descending else '▲'}" if query.sort else "as queued"
    return f"{shown} of {total}   {order}" if query.expression.strip() else f"{total} run{'s' * (total != 1)}   {order}"
