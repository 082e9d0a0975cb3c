"""The lines around the work: what is going on at the top, the filter under it, what the keys do at the bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.highlighter import Highlighter
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static

from labbench import text
from labbench.charts.glyphs import STATUS_LOOKS
from labbench.errors import FilterError
from labbench.filters import parser
from labbench.filters.completion import Vocabulary, complete
from labbench.records import STATUSES
from labbench.text import show_setting
from labbench.tui.source import Progress, Query

SCREENS = {"runs": "1", "compare": "2", "grid": "3", "why": "4"}
"""The screens, and the key of each."""


class TopLine(Widget):
    """The database, the screens, its runs by status, and the progress of what is training."""

    DEFAULT_CSS = """
    TopLine { height: 1; padding: 0 1; background: $panel; }
    """

    progress: reactive[Progress] = reactive(Progress())

    def __init__(self, path: Path, screen_name: str) -> None:
        super().__init__()
        self._path, self._screen_name = path, screen_name
        self._tabs: list[tuple[range, str]] = []

    def render(self) -> Content:
        width = self.size.width
        right = self._bar()
        name = Content.assemble(("labbench", "bold $primary"), ("  " + text.clean(self._path.name), "$secondary"))
        self._tabs = []
        for tabs, long in ((True, True), (True, False), (False, False)):
            left, middle = self._with_tabs(name) if tabs else name, self._counts(long=long)
            room = width - left.cell_length - middle.cell_length - right.cell_length
            if room >= 4:
                before = min(room - 2, max(2, (width - middle.cell_length) // 2 - left.cell_length))
                return left + " " * before + middle + " " * (room - before) + right
        self._tabs = []
        return name.truncate(width, ellipsis=True)

    def _with_tabs(self, name: Content) -> Content:
        """The name and the screens, the present one lit; where each stands is kept for clicks."""
        line, self._tabs = name + "   ", []
        for screen, key in SCREENS.items():
            is_here = screen == self._screen_name
            tab = Content.assemble((f" {key}", "$primary" if is_here else "$secondary"), " ")
            tab += Content.styled(f"{screen} ", "bold $foreground" if is_here else "$secondary")
            tab = tab.stylize("on $primary 25%") if is_here else tab
            self._tabs.append((range(line.cell_length, line.cell_length + tab.cell_length), screen))
            line += tab
        return line

    async def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        for cells, screen in self._tabs:
            if offset is not None and offset.x in cells:
                await self.run_action(f"app.go('{screen}')")

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
            (left, "$secondary"),
        )


class FilterBar(Horizontal):
    """The filter, its error under the place where it is, and the order of the runs."""

    DEFAULT_CSS = """
    FilterBar { height: 1; padding: 0 1; background: $surface; }
    FilterBar #filter-label { width: auto; color: $secondary; }
    FilterBar Input { width: 1fr; border: none; padding: 0; height: 1; background: $surface; }
    FilterBar Input:focus { background: $panel; }
    FilterBar Input > .input--placeholder { color: $secondary; }
    FilterBar #filter-found { width: auto; padding-left: 2; color: $secondary; }
    FilterBar #filter-hint { display: none; position: absolute; overlay: screen; width: auto; height: 1; padding: 0 1;
                             background: $panel; color: $secondary; }
    FilterBar.-offering #filter-hint { display: block; }
    FilterBar #filter-error { display: none; position: absolute; overlay: screen; width: auto; height: 1; padding: 0 1;
                              background: $panel; color: $error; }
    FilterBar.-wrong #filter-error { display: block; }
    FilterBar.-offering #filter-error { display: none; }
    """

    class Changed(Message):
        """The expression is another one, and it parses."""

        def __init__(self, expression: str) -> None:
            self.expression = expression
            super().__init__()

    class Left(Message):
        """The person is done with the filter."""

    class Begun(Message):
        """The person has begun to write a filter: the words it may be made of are wanted."""

    def __init__(self, expression: str = "") -> None:
        super().__init__()
        self._marker = _ErrorMarker()
        self._before = self._expression = expression
        self._offers: tuple[int, list[str]] = (0, [])
        self._offered = -1
        self.words = Vocabulary()
        """What a filter may be made of."""

    def compose(self) -> ComposeResult:
        yield Static("filter  ", id="filter-label", markup=False)
        yield Input(
            self._expression,
            placeholder="all runs    such as  optimizer=adam lr<=0.01 val/loss<0.3",
            highlighter=self._marker,
            select_on_focus=False,
            compact=True,
        )
        yield Static(id="filter-found", markup=False)
        yield Static(id="filter-hint", markup=False)
        yield Static(id="filter-error", markup=False)

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "leave", "to the runs", key_display="⏎", priority=True),
        Binding("tab", "complete(1)", "complete", key_display="⇥", priority=True),
        Binding("shift+tab", "complete(-1)", show=False, priority=True),
        Binding("escape", "cancel", "as it was", key_display="esc"),
    ]

    def begin(self) -> None:
        """Give the keyboard to the filter."""
        self._before = self.input.value
        self.input.focus()
        self.post_message(self.Begun())

    def action_leave(self) -> None:
        """Go back to the runs, unless there is an error to mend."""
        self.remove_class("-offering")
        if not self.has_class("-wrong"):
            self._leave()

    def action_cancel(self) -> None:
        """Go back to the expression that was there."""
        self.input.value = self._before
        self._leave()

    def _leave(self) -> None:
        self.remove_class("-offering")
        self.post_message(self.Left())

    def action_complete(self, way: int) -> None:
        """Put the next of the words that are offered into the filter."""
        start, offers = self._offers
        if offers:
            self._offered = (self._offered + way) % len(offers)
            with self.prevent(Input.Changed):
                self.input.value = self.input.value[:start] + offers[self._offered]
                self.input.cursor_position = len(self.input.value)
            self._read_expression()
            self._show_offers()

    def offer(self, words: Vocabulary | None = None) -> None:
        """Show what may come next, of these words."""
        if words is not None:
            self.words = words
        at_end = self.input.cursor_position == len(self.input.value)
        self._offers, self._offered = complete(self.input.value, self.words) if at_end else (0, []), -1
        self._show_offers()

    def _show_offers(self) -> None:
        start, offers = self._offers
        wrong = self._marker.position  # a word that is not finished is no error yet
        can_go_on = wrong is None or wrong >= start
        self.set_class(bool(offers) and can_go_on and self.input.has_focus, "-offering")
        place = max(0, self.query_one("#filter-label").outer_size.width + start - round(self.input.scroll_x))
        line, room = Content(""), self.size.width - place - 4
        for index in range(max(0, self._offered), len(offers)):
            word = text.clean(offers[index])
            if line.cell_length + text.width(word) > room:
                line += Content.styled("…", "$secondary")
                break
            line += Content.styled(word, "bold $primary" if index == self._offered else "$foreground") + "   "
        hint = self.query_one("#filter-hint", Static)
        hint.update(line)
        hint.styles.offset = (place, 1)

    def say(self, found: str) -> None:
        """Say what the filter lets through, and in which order."""
        self.query_one("#filter-found", Static).update(Content(found))

    @property
    def input(self) -> Input:
        return self.query_one(Input)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._read_expression()
        if self.input.has_focus:
            self.offer()

    def _read_expression(self) -> None:
        expression = self.input.value
        try:
            parser.parse(expression)
        except FilterError as error:
            self._point_at(error)
        else:
            self._marker.position = None
            self.remove_class("-wrong")
            self.post_message(self.Changed(expression))
        self.input.refresh()

    def _point_at(self, error: FilterError) -> None:
        """Say the error on the line below, beginning under the place that cannot be read where there is room."""
        self._marker.position = error.position
        said = text.fit(text.clean(error.message), min(text.width(error.message), self.size.width - 2))
        place = self.query_one("#filter-label").outer_size.width + error.position - round(self.input.scroll_x)
        box = self.query_one("#filter-error", Static)
        box.update(Content(said))
        box.styles.offset = (max(0, min(place, self.size.width - text.width(said) - 2)), 1)
        self.add_class("-wrong")


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

    def __init__(self) -> None:
        super().__init__()
        self._actions: list[tuple[range, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        entries = {
            active.binding.action: self._entry(active.binding)
            for active in reversed(self.screen.active_bindings.values())
            if active.enabled and (active.binding.show or active.binding.action == "command_palette")
        }
        last = entries.pop("help", Content(""))
        first: Sequence[str] = getattr(self.screen, "foremost", ())
        entries = {action: entries[action] for action in (*first, *reversed(entries)) if action in entries}
        if "app.quit" in entries:
            entries["app.quit"] = entries.pop("app.quit")
        line = Content("")
        self._actions = []
        for action, entry in [*entries.items(), ("help", last)]:
            if action == "help" or line.cell_length + entry.cell_length + last.cell_length <= self.size.width:
                self._actions.append((range(line.cell_length, line.cell_length + entry.cell_length), action))
                line += entry
        return line

    def _entry(self, binding: Binding) -> Content:
        key = self.app.get_key_display(binding)
        return Content.assemble((key, "bold $primary"), (f" {binding.description}   ", "$secondary"))

    async def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        for cells, action in self._actions:
            if offset is not None and offset.x in cells:
                await self.screen.run_action(action)


def reads(sort: str) -> str:
    """What is sorted by, in words: `best val/loss`."""
    if sort == "created":
        return "when they were queued"
    return text.clean(sort.replace("(", " ", 1).removesuffix(")") if sort.endswith(")") else sort)


def describe(query: Query, shown: int, total: int) -> str:
    """How much a query lets through and in which order, in words."""
    order = f"sorted by {reads(query.sort)} {'▼' if query.descending else '▲'}" if query.sort else ""
    return f"{shown} of {total}   {order}" if query.expression.strip() else order
