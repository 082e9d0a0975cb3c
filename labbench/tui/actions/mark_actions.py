"""Actions of the runs screen on the marks, which choose the runs that are drawn and edited together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.binding import Binding

from labbench.tui.queries import Snapshot
from labbench.tui.session import Session
from labbench.tui.widgets.run_table import RunsTable

MARK_BINDINGS = [
    Binding(
        "space", "marks('toggle')", "mark", key_display="␣", tooltip="Mark or unmark: marked runs are drawn together"
    ),
    Binding("asterisk", "marks('add_all')", "mark all", show=False, key_display="*", tooltip="Mark all matching runs"),
    Binding("I", "marks('invert')", "invert", show=False, tooltip="Invert the marks of the matching runs"),
    Binding("U", "marks('clear')", "unmark all", show=False, tooltip="Unmark all runs"),
]
"""Bindings of a screen whose `action_marks(name)` calls `MarkActions.perform`."""


class MarkActions:
    """Actions on the marks of a session; each can be undone."""

    def __init__(self, session: Session, table: RunsTable, *, show_marks: Callable[[Sequence[str]], None]) -> None:
        """Create the actions; `show_marks` draws the runs whose marks have changed."""
        self._session, self._table, self._show_marks = session, table, show_marks
        self.snapshot: Snapshot | None = None
        """Result of the last read."""

    def perform(self, name: str) -> None:
        """Perform an action by name, for a key of the screen."""
        getattr(self, f"action_{name}")()

    def action_toggle(self) -> None:
        keys, marks = self._table.runs_of_cursor(), self._session.marks
        if not keys:
            return
        self._session.remember_marks("mark" if len(keys) == 1 else f"marks of {len(keys)} runs")
        if len(keys) == 1:
            marks.toggle(keys[0])
        elif all(key in marks for key in keys):
            marks.unmark(keys)
        else:
            marks.add(keys)
        self._show_marks(keys)

    def action_add_all(self) -> None:
        if self.snapshot is not None:
            self._session.remember_marks("marks of all matching runs")
            self._session.marks.add(self.snapshot.keys)
            self._show_marks(self.snapshot.keys)

    def action_invert(self) -> None:
        if self.snapshot is not None:
            self._session.remember_marks("inverted marks")
            self._session.marks.invert(self.snapshot.keys)
            self._show_marks(self.snapshot.keys)

    def action_clear(self) -> None:
        marked = list(self._session.marks)
        if not marked:
            self._table.notify("nothing is marked: the curves are those of the best runs", markup=False)
            return
        self._session.remember_marks(f"removal of {len(marked)} marks")
        self._session.marks.clear()
        self._show_marks(marked)
