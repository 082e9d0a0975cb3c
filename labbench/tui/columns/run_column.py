"""Column of the runs table: title, width and cells; and the user's choice of columns: order, widths, visibility."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labbench import text
from labbench.metrics import Goal
from labbench.records import RunRecord
from labbench.tui.groups import RunGroup

_MAX_WIDTH = 28


@dataclass(slots=True)
class RunColumn:
    """Column of the runs table: title, sort expression, and the text of its cells.

    A column is as wide as its widest cell so far: it grows but never shrinks during scrolling.
    """

    id: str
    """`name`, `config:lr`, `best:val/loss`, or `metric:best` for the metric on the chart."""
    title: str
    sort: str | None
    """Sort expression: `name`, a config key, `best(val/loss)`; None if the column cannot be sorted."""
    text_of: Callable[[RunRecord], str] = lambda run: ""
    """Text of a run's cell, unless the column has measured values."""
    text_of_group: Callable[[RunGroup], str] = lambda group: ""
    value: Callable[[RunRecord], Any] | None = None
    """Exact value of a run, for files and for measured values; None to write the text of the cell."""
    group_value: Callable[[RunGroup], Any] | None = None
    numbers: text.NumberFormat | None = None
    """Format of measured values, which `value` and `group_value` return; None for text."""
    metric: str = ""
    """Metric of the column, which is the heading above the title."""
    numeric: bool = True
    """True if cells are aligned at the decimal point and the title to the right; otherwise both are left-aligned."""
    words: bool = False
    """The first cell that is not a number turns the column into a column of text."""
    descending_first: bool = False
    """True if the first sort by this column is descending."""
    goal: Goal = "none"
    """Goal of the metric that the column holds."""
    best_of: str | None = None
    """Metric whose best values the column holds."""
    is_quiet: bool = False
    """True if drawn in a faint colour."""
    optional: bool = False
    """True if hidden unless chosen in the columns dialog."""
    max_width: int = _MAX_WIDTH
    before_point: int = 0
    after_point: int = 0
    longest: int = 0
    min_width: int = 0
    """Width that the heading needs."""
    fixed_width: int | None = None
    """Width set by the user."""

    def cell(self, run: RunRecord) -> str:
        """Return the text of a run's cell."""
        if self.numbers is None or self.value is None:
            return self.text_of(run)
        return self.numbers.format(self.value(run))

    def group_cell(self, group: RunGroup) -> str:
        """Return the text of a group's cell."""
        if self.numbers is None or self.group_value is None:
            return self.text_of_group(group)
        return self.numbers.format(self.group_value(group))

    def widen_for(self, runs: Sequence[RunRecord], groups: Collection[RunGroup] = ()) -> None:
        """Widen the column to fit the cells of these runs and groups, after including them in its number format."""
        if self.numbers is not None:
            values = [self.value(run) for run in runs] if self.value is not None else []
            means = [self.group_value(group) for group in groups] if self.group_value is not None else []
            self.numbers = self.numbers.including([*values, *means])
        for cell in (*map(self.cell, runs), *map(self.group_cell, groups)):
            if self.words and cell and cell[0] not in "-0123456789":
                self.numeric = False
            if self.numeric:
                whole, rest = text.split_at_decimal_point(cell)
                self.before_point = max(self.before_point, len(whole))
                self.after_point = max(self.after_point, len(rest))
            self.longest = max(self.longest, text.cell_width(cell))

    def widen_to(self, other: RunColumn) -> None:
        """Widen the column to at least the width of another."""
        self.before_point = max(self.before_point, other.before_point)
        self.after_point = max(self.after_point, other.after_point)
        self.longest = max(self.longest, other.longest)

    @property
    def width(self) -> int:
        """Width in cells, without the gap to the next column."""
        if self.fixed_width is not None:
            return self.fixed_width
        content = max(self.longest, self.before_point + self.after_point, text.cell_width(self.title), self.min_width)
        return min(content, self.max_width)

    @property
    def full_title(self) -> str:
        """Title with its metric, such as `best val/loss`."""
        return f"{self.title} {text.clean(self.metric)}" if self.metric else self.title

    def fit_cell(self, cell: str) -> str:
        """Return a cell's text in the column's width: padded, or cut if it is not a number."""
        if not self.numeric:
            return text.fit_to_width(cell, self.width)
        whole, rest = text.split_at_decimal_point(cell)
        aligned = whole + rest.ljust(self.after_point)
        return text.fit_number(aligned if text.cell_width(aligned) <= self.width else cell, self.width, right=True)

    def exported(self, run: RunRecord) -> Any:
        """Return the value of a run with all digits."""
        return self.cell(run) if self.value is None else self.value(run)

    def exported_group(self, group: RunGroup) -> Any:
        """Return the value of a group with all digits."""
        return self.group_cell(group) if self.group_value is None else self.group_value(group)

    def fit_title(self) -> str:
        """Return the title padded or truncated to the column's width."""
        return text.fit_to_width(self.title, self.width, right=self.numeric)


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
