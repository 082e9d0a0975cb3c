"""The help of a screen: its keys, what the glyphs mean, and the filter language in a few lines."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from labbench.tui.looks import STATUS_LOOKS

_FILTERS = (
    ("optimizer=adam lr<=0.01", "terms joined by a space must all hold"),
    ("status=failed,diverged", "a comma lists alternatives"),
    ("name~conv", "part of a text"),
    ("val/loss<0.3", "a metric is its last value"),
    ("best(val/loss)<0.2", "or last, min, max, first, n"),
    ("tag=best or not (lr=0.1)", "or, not, parentheses"),
)


class Help(ModalScreen[None]):
    """Says what the keys of the screen beneath do."""

    DEFAULT_CSS = """
    Help { align: center middle; background: $background 60%; }
    Help > VerticalScroll { width: 76; max-width: 96%; height: auto; max-height: 94%; border: round $primary;
                            background: $surface; border-title-color: $foreground; padding: 0 2;
                            scrollbar-size-vertical: 1; }
    Help Static { width: 100%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "Back", show=False),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
    ]

    def __init__(self, of: Screen[None]) -> None:
        super().__init__()
        self._of = of

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = Content("help")
            yield Static(Content("\n").join([*self._keys(), Content(""), *_glyphs(), Content(""), *_language()]))

    def _keys(self) -> list[Content]:
        """One line for each action that has words, with all of its keys."""
        keys: dict[str, list[str]] = {}
        words: dict[str, str] = {}
        for active in self._of.active_bindings.values():
            binding = active.binding
            if binding.tooltip:
                keys.setdefault(binding.action, []).append(self.app.get_key_display(binding))
                words[binding.action] = binding.tooltip
        return [
            Content.assemble((f"{' '.join(keys[action]):>14}", "bold $primary"), f"  {said}")
            for action, said in words.items()
        ]

    def action_scroll(self, way: str) -> None:
        getattr(self.query_one(VerticalScroll), f"scroll_{way}")(animate=False)


def _glyphs() -> list[Content]:
    parts = [(f"{look.glyph} {status}   ", f"${look.colour}") for status, look in STATUS_LOOKS.items()]
    return [
        Content.assemble(*parts[:4]),
        Content.assemble(*parts[4:], ("★ the best run   ", "$accent"), "a mark is the run's glyph on the chart"),
    ]


def _language() -> list[Content]:
    return [Content.assemble((f"{example:<26}", "$accent"), f"  {said}") for example, said in _FILTERS]
