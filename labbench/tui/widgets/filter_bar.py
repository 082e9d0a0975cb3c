"""Filter input with completion, error marker and a summary of the query."""

from __future__ import annotations

from typing import ClassVar

from rich.highlighter import Highlighter
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from labbench import text
from labbench.errors import FilterError
from labbench.filters import parser
from labbench.filters.completion import Vocabulary, complete
from labbench.tui.widgets.partial_drawing import StaticText
from labbench.tui.widgets.prompt import LineInput


class FilterBar(Horizontal):
    """The filter, its error below the position of the error, and the order of the runs."""

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
    FilterBar.-noted #filter-error { display: block; color: $warning; }
    FilterBar.-offering #filter-error { display: none; }
    """

    class Changed(Message):
        """The filter changed to another valid expression."""

        def __init__(self, expression: str) -> None:
            self.expression = expression
            super().__init__()

    class EditingFinished(Message):
        """Editing of the filter was finished."""

    class EditingStarted(Message):
        """Editing of the filter was started; a vocabulary is needed."""

    def __init__(self, expression: str = "") -> None:
        super().__init__()
        self._marker = _ErrorMarker()
        self._before = self._expression = expression
        self._completions: tuple[int, list[str]] = (0, [])
        self._completion_index = -1
        self.words = Vocabulary()
        """Vocabulary of the completion."""

    def compose(self) -> ComposeResult:
        yield StaticText("filter  ", id="filter-label")
        yield _FilterInput(self._expression, highlighter=self._marker, select_on_focus=False, compact=True)
        yield StaticText(id="filter-found")
        yield StaticText(id="filter-hint")
        yield StaticText(id="filter-error")

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "leave", "done", key_display="⏎", priority=True),
        Binding("tab", "complete(1)", "complete", key_display="⇥", priority=True),
        Binding("shift+tab", "complete(-1)", show=False, priority=True),
        Binding("escape", "cancel", "cancel", key_display="esc"),
    ]

    def begin(self) -> None:
        """Focus the filter."""
        self._before = self.input.value
        self.input.focus()
        self.post_message(self.EditingStarted())

    def action_leave(self) -> None:
        """Return to the runs, unless the expression is invalid."""
        self.remove_class("-offering")
        if not self.has_class("-wrong"):
            self._leave()

    def action_cancel(self) -> None:
        """Restore the expression as it was before editing."""
        self.input.value = self._before
        self._leave()

    def _leave(self) -> None:
        self.remove_class("-offering")
        self.post_message(self.EditingFinished())

    def action_complete(self, direction: int) -> None:
        """Insert the next or previous completion."""
        start, completions = self._completions
        if completions:
            self._completion_index = (self._completion_index + direction) % len(completions)
            with self.prevent(Input.Changed):
                self.input.value = self.input.value[:start] + completions[self._completion_index]
                self.input.cursor_position = len(self.input.value)
            self._read_expression()
            self._show_completion_line()

    def show_completions(self, words: Vocabulary | None = None) -> None:
        """Show completions at the end of the input, from a new vocabulary if given."""
        if words is not None:
            self.words = words
        at_end = self.input.cursor_position == len(self.input.value)
        self._completions, self._completion_index = complete(self.input.value, self.words) if at_end else (0, []), -1
        self._show_completion_line()

    def _show_completion_line(self) -> None:
        start, completions = self._completions
        error = self._marker.position  # an unfinished word is not an error yet
        can_complete = error is None or error >= start
        self.set_class(bool(completions) and can_complete and self.input.has_focus, "-offering")
        column = max(0, self.query_one("#filter-label").outer_size.width + start - round(self.input.scroll_x))
        line, width = Content(""), self.size.width - column - 4
        for index in range(max(0, self._completion_index), len(completions)):
            word = text.clean(completions[index])
            if line.cell_length + text.cell_width(word) > width:
                line += Content.styled("…", "$secondary")
                break
            line += Content.styled(word, "bold $primary" if index == self._completion_index else "$foreground") + "   "
        hint = self.query_one("#filter-hint", StaticText)
        hint.update(line)
        hint.styles.offset = (column, 1)

    def show_summary(self, summary: str) -> None:
        """Show the number of matching runs and their order."""
        self.query_one("#filter-found", StaticText).update(Content(summary))

    @property
    def input(self) -> Input:
        return self.query_one(Input)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._read_expression()
        if self.input.has_focus:
            self.show_completions()

    def _read_expression(self) -> None:
        expression = self.input.value
        try:
            parser.parse(expression)
        except FilterError as error:
            self._show_parse_error(error)
        else:
            self._marker.position = None
            self.remove_class("-wrong", "-noted")
            self.post_message(self.Changed(expression))
        self.input.refresh()

    def _show_parse_error(self, error: FilterError) -> None:
        """Show the error on the next line, below its position if the message fits there."""
        self._marker.position = error.position
        self._show_error(error.message, error.position)

    def show_unknown_name(self, problem: str) -> None:
        """Show on the next line, until the filter changes, that a name in it exists nowhere."""
        self._show_error(problem, 0)

    def show_note(self, note: str) -> None:
        """Show a note on the filter on the next line until the filter changes; "" shows none."""
        self.set_class(bool(note) and not self.has_class("-wrong"), "-noted")
        if self.has_class("-noted"):
            self._show_below(note, 0)

    def _show_error(self, problem: str, position: int) -> None:
        self._show_below(problem, position)
        self.remove_class("-noted")
        self.add_class("-wrong")

    def _show_below(self, problem: str, position: int) -> None:
        message = text.clean(problem)
        if text.cell_width(message) > self.size.width - 2:
            message = _suggestion_first(message)
        message = text.fit_to_width(message, min(text.cell_width(message), self.size.width - 2))
        column = self.query_one("#filter-label").outer_size.width + position - round(self.input.scroll_x)
        box = self.query_one("#filter-error", StaticText)
        box.update(Content(message))
        box.styles.offset = (max(0, min(column, self.size.width - text.cell_width(message) - 2)), 1)


def _suggestion_first(message: str) -> str:
    """Return a message with its suggestion at the start, which stays when the message is cut."""
    problem, separator, rest = message.partition("; did you mean ")
    suggestion, _, rest = rest.partition("?")
    return f"did you mean {suggestion}?  {problem}{rest}" if separator else message


class _FilterInput(LineInput):
    """Input with the longest example that fits as its placeholder."""

    def on_resize(self) -> None:
        width = self.scrollable_content_region.width
        self.placeholder = next((words for words in _PLACEHOLDERS if len(words) < width), "")


_PLACEHOLDERS = (
    "all runs    example: optimizer=adam lr<=0.01 val/loss<0.3",
    "all runs    example: val/loss<0.3",
    "all runs",
)


class _ErrorMarker(Highlighter):
    """Highlighter of the position that cannot be parsed."""

    position: int | None = None

    def highlight(self, text: Text) -> None:
        if self.position is not None and len(text):
            start = min(self.position, len(text) - 1)
            text.stylize("bold reverse", start, start + 1)
