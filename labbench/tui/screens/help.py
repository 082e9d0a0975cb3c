"""Help of a screen: its keys, the glyphs, and examples of filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from labbench.charts.glyphs import STATUS_GLYPHS

_FILTER_EXAMPLES = (
    ("optimizer=adam lr<=0.01", "both terms must match"),
    ("status=failed,diverged", "one of several values"),
    ("name~conv", "contains a text"),
    ("val/loss<0.3", "the last value of a metric"),
    ("best(val/loss)<0.2", "also last, smooth, min, max, first, n"),
    ("tag=best or not (lr=0.1)", "or, not and parentheses"),
)


_SECTION_TITLES = {
    "ChartScreen": "charts",
    "EditScreen": "edit runs",
    "DataScreen": "all screens",
}
"""Section titles of keys by the class that binds them; other keys are listed first, without a title."""
_ACTION_TITLES = {"query(": "filter, sort, group, columns", "table(": "find, move", "chart(": "charts"}
"""Section titles of keys by the start of their actions, for actions that a screen forwards to an object."""
_MIN_TWO_COLUMN_WIDTH = 150
"""Minimum width of the terminal, in cells, for two columns of help."""


class HelpScreen(ModalScreen[None]):
    """Modal help on the keys of another screen."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background 60%; }
    HelpScreen > VerticalScroll { width: 76; max-width: 96%; height: auto; max-height: 94%; border: round $primary;
                            background: $surface; border-title-color: $foreground; padding: 0 2;
                            scrollbar-size-vertical: 1; }
    HelpScreen > VerticalScroll.-wide { width: 146; }
    HelpScreen Horizontal { height: auto; }
    HelpScreen Static { width: 1fr; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "Back", show=False),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
    ]

    def __init__(self, described: Screen[None]) -> None:
        super().__init__()
        self._described_screen = described

    def compose(self) -> ComposeResult:
        sections = [*self._sections(), _glyph_lines(), _filter_lines()]
        is_wide = self._described_screen.size.width >= _MIN_TWO_COLUMN_WIDTH
        with VerticalScroll(classes="-wide" if is_wide else "") as box:
            box.border_title = Content("help")
            if is_wide:
                half = _balanced_split([len(section) + 1 for section in sections])
                with Horizontal():
                    yield Static(_join_sections(sections[:half]))
                    yield Static(_join_sections(sections[half:]))
            else:
                yield Static(_join_sections(sections))

    def _sections(self) -> list[list[Content]]:
        """Return sections of one line per explained action with all of its keys; the screen's own keys first."""
        keys: dict[str, list[str]] = {}
        words: dict[str, str] = {}
        titles: dict[str, str] = {}
        for active in self._described_screen.active_bindings.values():
            binding = active.binding
            if binding.tooltip:
                keys.setdefault(binding.action, []).append(self.app.get_key_display(binding))
                words[binding.action] = binding.tooltip
                titles[binding.action] = self._title(active.node, binding.action)
        order = [*dict.fromkeys(["", *_ACTION_TITLES.values(), *_SECTION_TITLES.values(), "navigation"])]
        order.append(order.pop(order.index("all screens")))
        sections = []
        for title in order:
            actions = [action for action in words if titles[action] == title]
            lines = [
                Content.assemble((f"{' '.join(keys[action]):>14}", "bold $primary"), f"  {words[action]}")
                for action in actions
            ]
            if lines:
                sections.append([Content.styled(title, "bold $secondary"), *lines] if title else lines)
        return sections

    def _title(self, node: DOMNode, action: str) -> str:
        """Return the section title of an action, by the class that binds it."""
        for start, title in _ACTION_TITLES.items():
            if action.startswith(start):
                return title
        if node is not self._described_screen:
            return "navigation"
        for owner in type(self._described_screen).__mro__:
            bindings = owner.__dict__.get("BINDINGS", ())
            if any(isinstance(binding, Binding) and binding.action == action for binding in bindings):
                return _SECTION_TITLES.get(owner.__name__, "")
        return "all screens"

    def action_scroll(self, direction: str) -> None:
        getattr(self.query_one(VerticalScroll), f"scroll_{direction}")(animate=False)


def _join_sections(sections: Sequence[Sequence[Content]]) -> Content:
    """Join sections with an empty line between them."""
    lines = [line for section in sections for line in (*section, Content(""))]
    return Content("\n").join(lines[:-1])


def _balanced_split(heights: Sequence[int]) -> int:
    """Return the index that splits sections into two columns of about equal height."""
    above = [sum(heights[:index]) for index in range(len(heights) + 1)]
    return min(range(len(above)), key=lambda index: abs(2 * above[index] - above[-1]))


def _glyph_lines() -> list[Content]:
    parts = [(f"{style.glyph} {status}   ", f"${style.colour}") for status, style in STATUS_GLYPHS.items()]
    return [
        Content.assemble(*parts[:4]),
        Content.assemble(*parts[4:]),
        Content.assemble("[●] marked   ● drawn without a mark   ", ("★ best value   » baseline", "$accent")),
    ]


def _filter_lines() -> list[Content]:
    return [
        Content.assemble((f"{example:<26}", "$accent"), f"  {explanation}") for example, explanation in _FILTER_EXAMPLES
    ]
