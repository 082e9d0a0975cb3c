"""The help of a screen: its keys, what the glyphs mean, and the filter language in a few lines."""

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
    ("optimizer=adam lr<=0.01", "terms joined by a space must all hold"),
    ("status=failed,diverged", "a comma lists alternatives"),
    ("name~conv", "part of a text"),
    ("val/loss<0.3", "a metric is its last value"),
    ("best(val/loss)<0.2", "or last, smooth, min, max, first, n"),
    ("tag=best or not (lr=0.1)", "or, not, parentheses"),
)


_SECTION_TITLES = {"QueryScreen": "which runs, in which order", "EditScreen": "edit runs", "DataScreen": "everywhere"}
"""What the keys are about that a class of screens brings along; the rest is the screen's own."""
_MIN_TWO_COLUMN_WIDTH = 150
"""Columns of a terminal from which there is room for two columns of help."""


class HelpScreen(ModalScreen[None]):
    """Says what the keys of the screen beneath do."""

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

    def __init__(self, of: Screen[None]) -> None:
        super().__init__()
        self._described_screen = of

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
        """The screen's own keys first; one line for each action that has words, with all of its keys."""
        keys: dict[str, list[str]] = {}
        words: dict[str, str] = {}
        titles: dict[str, str] = {}
        for active in self._described_screen.active_bindings.values():
            binding = active.binding
            if binding.tooltip:
                keys.setdefault(binding.action, []).append(self.app.get_key_display(binding))
                words[binding.action] = binding.tooltip
                titles[binding.action] = self._title(active.node, binding.action)
        order = ["", *_SECTION_TITLES.values(), "charts", "moving"]
        order.append(order.pop(order.index("everywhere")))
        found = []
        for title in order:
            actions = [action for action in words if titles[action] == title]
            lines = [
                Content.assemble((f"{' '.join(keys[action]):>14}", "bold $primary"), f"  {words[action]}")
                for action in actions
            ]
            if lines:
                found.append([Content.styled(title, "bold $secondary"), *lines] if title else lines)
        return found

    def _title(self, node: DOMNode, action: str) -> str:
        """What a key is about: by the class that brings it along."""
        if action.startswith("chart("):
            return "charts"
        if node is not self._described_screen:
            return "moving"
        for owner in type(self._described_screen).__mro__:
            bindings = owner.__dict__.get("BINDINGS", ())
            if any(isinstance(one, Binding) and one.action == action for one in bindings):
                return _SECTION_TITLES.get(owner.__name__, "")
        return "everywhere"

    def action_scroll(self, direction: str) -> None:
        getattr(self.query_one(VerticalScroll), f"scroll_{direction}")(animate=False)


def _join_sections(sections: Sequence[Sequence[Content]]) -> Content:
    """Sections with an empty line between them."""
    lines = [line for section in sections for line in (*section, Content(""))]
    return Content("\n").join(lines[:-1])


def _balanced_split(heights: Sequence[int]) -> int:
    """Where to part sections so that both columns are about as high."""
    above = [sum(heights[:index]) for index in range(len(heights) + 1)]
    return min(range(len(above)), key=lambda index: abs(2 * above[index] - above[-1]))


def _glyph_lines() -> list[Content]:
    parts = [(f"{look.glyph} {status}   ", f"${look.colour}") for status, look in STATUS_GLYPHS.items()]
    return [
        Content.assemble(*parts[:4]),
        Content.assemble(*parts[4:], ("★ the best run   ", "$accent"), "a mark is the run's glyph on the chart"),
    ]


def _filter_lines() -> list[Content]:
    return [Content.assemble((f"{example:<26}", "$accent"), f"  {said}") for example, said in _FILTER_EXAMPLES]
