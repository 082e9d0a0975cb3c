"""Dialogs with a searchable list of choices, such as metrics: Enter accepts the highlighted one, Esc cancels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from labbench import text
from labbench.tui.widgets.prompt import LineInput

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Choice(Generic[Value]):
    """Entry of a list dialog."""

    value: Value
    label: str


class ListDialog(ModalScreen[Value | None], Generic[Value]):
    """Dialog that returns the chosen value, or None if cancelled."""

    DEFAULT_CSS = """
    ListDialog { align: center middle; background: $background 60%; }
    ListDialog > Vertical { width: 64; max-width: 96%; height: auto; max-height: 80%; border: round $primary;
                            background: $surface; border-title-color: $foreground; padding: 0 1; }
    ListDialog Input { border: none; height: 1; padding: 0 1; background: $surface; margin-bottom: 1; }
    ListDialog OptionList { height: auto; max-height: 24; border: none; background: $surface; padding: 0;
                            scrollbar-size-vertical: 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False, priority=True),
        Binding("up", "move('cursor_up')", "Up", show=False, priority=True),
    ]

    def __init__(self, title: str, choices: Sequence[Choice[Value]], *, chosen: Value | None = None) -> None:
        """Open a list with the value `chosen` highlighted."""
        super().__init__()
        self.choices = choices
        self._title, self._chosen = title, chosen
        self._shown: Sequence[Choice[Value]] = choices

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield LineInput(placeholder="type to search", compact=True)
            yield OptionList(compact=True)

    def on_mount(self) -> None:
        self._narrow("")
        values = [choice.value for choice in self._shown]
        if self._chosen in values:
            self._list.highlighted = values.index(self._chosen)

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    def matching(self, words: str) -> list[Choice[Value]]:
        """Return the choices to show for the typed words."""
        return [
            choice for choice in self.choices if all(word in choice.label.lower() for word in words.lower().split())
        ]

    def _narrow(self, words: str) -> None:
        self._shown = self.matching(words)
        self._list.set_options(Option(Content(choice.label), id=str(index)) for index, choice in enumerate(self._shown))
        self._list.highlighted = 0 if self._shown else None

    @on(Input.Changed)
    def _filter_choices(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    @on(Input.Submitted)
    def _accept(self) -> None:
        self._list.action_select()

    @on(OptionList.OptionSelected)
    def _dismiss_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown[int(event.option_id or 0)].value)

    def action_move(self, direction: str) -> None:
        getattr(self._list, f"action_{direction}")()


class Picker(ListDialog[str]):
    """List dialog of texts."""

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], *, chosen: str | None = None) -> None:
        """Open a list of (value, label) choices with the value `chosen` highlighted."""
        super().__init__(title, [Choice(value, label) for value, label in choices], chosen=chosen)


def experiment_picker(title: str, experiments: Sequence[str], chosen: str | None) -> Picker:
    """Return a list dialog of experiments, the newest first; `experiments` has the oldest first."""
    return Picker(title, [(name, text.clean(name)) for name in reversed(experiments)], chosen=chosen)


class KeysPicker(Picker):
    """List dialog of config keys; accepts several typed keys, such as `lr,dropout`."""

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], *, keys: Sequence[str]) -> None:
        """Open a list of (value, label) choices; `keys` are those that can be typed together."""
        super().__init__(title, choices)
        self._keys = keys

    def matching(self, words: str) -> list[Choice[str]]:
        names = [word for word in re.split(r"[\s,]+", words.strip()) if word]
        keys = [self._find_key(name) for name in names]
        if len(names) > 1 and None not in keys:
            joined = ",".join(filter(None, dict.fromkeys(keys)))
            return [Choice(joined, f"by {text.clean(joined)}")]
        return super().matching(words)

    def _find_key(self, name: str) -> str | None:
        """Return the key that a word names in full or begins alone."""
        beginning = [key for key in self._keys if key.lower().startswith(name.lower())]
        return name if name in self._keys else beginning[0] if len(beginning) == 1 else None


@dataclass(frozen=True, slots=True)
class PickedMetrics:
    """One metric, or a page of charts."""

    metric: str | None = None
    pattern: str = ""
    """Regular expression of the metrics on the page, without a single `metric`; "" for all metrics."""


class MetricPicker(ListDialog[PickedMetrics]):
    """List dialog of metrics, and of all metrics that match a regular expression."""

    def __init__(self, metrics: Sequence[str], *, chosen: str | None, pattern: str) -> None:
        """Open the dialog on all metrics; `pattern` limits the charts so far."""
        choices = [Choice(PickedMetrics(metric), text.clean(metric)) for metric in metrics]
        present = next((choice.value for choice in choices if choice.value.metric == chosen), None)
        super().__init__("metric", choices, chosen=present)
        self._pattern = pattern

    def matching(self, words: str) -> list[Choice[PickedMetrics]]:
        try:
            pattern = re.compile(words, re.IGNORECASE)
        except re.error:
            return super().matching(words)
        metrics = [choice for choice in self.choices if pattern.search(choice.label)]
        if words and len(metrics) > 1:
            label = f"charts of the {len(metrics)} metrics that match “{words}”"
            metrics.append(Choice(PickedMetrics(pattern=words), label))
        elif not words and self._pattern:
            metrics.append(Choice(PickedMetrics(), "charts of all metrics"))
        return metrics
