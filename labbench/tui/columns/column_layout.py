"""The user's choice of columns: their order, widths, and which are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labbench.tui.columns.run_column import RunColumn


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """User's choice of columns, by column id."""

    order: tuple[str, ...] = ()
    """Order of all columns at the time of the last change; empty for the default order."""
    hidden: frozenset[str] = frozenset()
    """Hidden columns that are shown by default."""
    shown: frozenset[str] = frozenset()
    """Shown columns that are optional."""
    widths: Mapping[str, int] = field(default_factory=dict)

    def arrange(self, columns: Sequence[RunColumn]) -> list[RunColumn]:
        """Return all columns in order and set their widths; a new column follows its neighbour, the name is first."""
        for column in columns:
            column.fixed_width = self.widths.get(column.id)
        if not self.order:
            return list(columns)
        by_id = {column.id: column for column in columns}
        arranged = [by_id[name] for name in self.order if name in by_id]
        for before, column in zip([None, *columns], columns, strict=False):
            if column.id not in self.order:
                arranged.insert(arranged.index(before) + 1 if before else 0, column)
        return sorted(arranged, key=lambda column: column.id != "name")

    def is_shown(self, column: RunColumn) -> bool:
        """Return True if the layout shows a column."""
        if column.optional:
            return column.id in self.shown
        return column.id not in self.hidden or column.id == "name"
