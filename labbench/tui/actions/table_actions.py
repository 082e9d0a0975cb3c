"""Actions of the runs screen on its table: find a run, go to a row, move its border, show a value at a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual.binding import Binding
from textual.screen import Screen

from labbench.tui.session import Session
from labbench.tui.widgets.prompt import Prompt
from labbench.tui.widgets.run_table import RunsTable

TABLE_BINDINGS = [
    Binding(
        "slash", "table('find')", "find", show=False, key_display="/", tooltip="Find a run by name, key, tag or note"
    ),
    Binding("colon", "table('go')", "go to row", show=False, key_display=":", tooltip="Go to a row by its number"),
    Binding("at", "table('value_at')", "at step", show=False, key_display="@", tooltip="Column of the value at a step"),
    Binding("ctrl+right", "table('widen', 0.05)", "wider", show=False, tooltip="Wider table (or drag its border)"),
    Binding("ctrl+left", "table('widen', -0.05)", "narrower", show=False, tooltip="Narrower table"),
]
"""Bindings of a screen whose `action_table(name, *arguments)` calls `TableActions.perform`."""

DEFAULT_SHARE = 11 / 21
"""Share of the screen that the table takes beside the charts."""
_MIN_SHARE = 0.15


class TableActions:
    """Actions that move the cursor or resize the table."""

    def __init__(
        self,
        session: Session,
        table: RunsTable,
        *,
        find: Callable[[str], None],
        read: Callable[[], None],
        place: Callable[[float], None],
    ) -> None:
        """Create the actions.

        Args:
            session: The session.
            table: The table.
            find: Moves the cursor to the next run with some words.
            read: Reads the table after a change of its columns.
            place: Sets the table's share of the screen, 0 to 1.
        """
        self._session, self._table = session, table
        self._find, self._read, self._place = find, read, place
        self._words = ""

    def perform(self, name: str, *arguments: Any) -> None:
        """Perform an action by name, for a key of the screen."""
        getattr(self, f"action_{name}")(*arguments)

    @property
    def _screen(self) -> Screen[Any]:
        return self._table.screen

    def action_find(self) -> None:
        def find(words: str | None) -> None:
            if words:
                self._words = words
                self._find(words)

        hint = "words of the name, key, tags or note; / and ⏎ again: the next one"
        self._screen.app.push_screen(Prompt("find a run", value=self._words, hint=hint), find)

    def action_go(self) -> None:
        rows = len(self._table.keys)

        def go(words: str | None) -> None:
            if words:
                self._table.action_edge(_parse_row(words, rows) - 1)

        prompt = Prompt("go to row", hint=f"1 to {rows}", check=lambda words: _parse_row(words, rows))
        self._screen.app.push_screen(prompt, go)

    def action_value_at(self) -> None:
        metric = self._session.shown_metric
        if metric is None:
            return
        hint = "a step; where a run has no value there, its last one before; empty removes the column"
        self._screen.app.push_screen(
            Prompt(f"column: {metric} at step", hint=hint, check=_parse_step), self._add_column
        )

    def _add_column(self, words: str | None) -> None:
        metric = self._session.shown_metric
        if words is None or metric is None:
            return
        others = tuple(pair for pair in self._session.query.values_at if pair[0] != metric)
        step = _parse_step(words)
        pairs = others if step is None else (*others, (metric, step))
        self._session.query = replace(self._session.query, values_at=pairs)
        self._read()

    def action_widen(self, share: float) -> None:
        self.set_share((self._session.table_share or DEFAULT_SHARE) + share)

    def set_share(self, share: float) -> None:
        """Set the table's share of the screen, 0 to 1."""
        self._session.table_share = min(max(share, _MIN_SHARE), 1 - _MIN_SHARE)
        self._place(self._session.table_share)


def _parse_row(words: str, rows: int) -> int:
    """Return the number of a row. Raises ValueError, with a message for the user."""
    if not words.strip().isdecimal() or not 1 <= int(words) <= rows:
        raise ValueError(f"write a number from 1 to {rows}")
    return int(words)


def _parse_step(words: str) -> int | None:
    """Return a step, None if empty. Raises ValueError, with a message for the user."""
    if not words.strip():
        return None
    if not words.strip().isdecimal() or len(words.strip()) > 18:
        raise ValueError("write a step, a whole number from 0 on")
    return int(words)
