"""What the screens share while the application runs: the question that is asked, marks, the baseline, the last edit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labbench.tui.columns import Layout
from labbench.tui.edits import Edit
from labbench.tui.marks import Marks
from labbench.tui.source import Query


@dataclass
class Session:
    """One person's look at one database."""

    path: Path
    query: Query = field(default_factory=Query)
    marks: Marks = field(default_factory=Marks)
    highlighted: str | None = None
    """The key of the run that was highlighted last."""
    baseline: str | None = None
    """The key of the run that others are told from."""
    layout: Layout = field(default_factory=Layout)
    chart: dict[str, Any] = field(default_factory=dict)
    """What the charts want to be kept, as plain JSON."""
    heat: tuple[str, ...] = ()
    """Config keys of the heat map: rows, columns, and of the small multiples where there are."""
    done: list[Edit] = field(default_factory=list)
    """Edits that can be undone, the last one last."""
    has_looked: bool = False
    """Whether the database was looked at: before, a screen has nothing to read."""

    def question(self) -> object:
        """Another one when a screen that somebody comes back to has to read again."""
        return self.query, tuple(self.marks), self.baseline, self.heat
