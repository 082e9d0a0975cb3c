"""What is selected, marked, filtered and sorted, shared by all screens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labbench.charts.glyphs import SLOT_COUNT
from labbench.tui.edits import Edit
from labbench.tui.queries import Query
from labbench.tui.widgets.columns import ColumnLayout


class Marks(dict[str, int]):
    """The slot, from 1, of each marked run by its key, in the order they were marked."""

    def toggle(self, key: str) -> None:
        """Mark a run with the first slot that is free, or take its mark away."""
        if key in self:
            del self[key]
        else:
            self.add([key])

    def add(self, keys: Iterable[str]) -> None:
        """Mark these runs too; when all slots are taken they are shared, in turn."""
        free = [slot for slot in range(SLOT_COUNT, 0, -1) if slot not in self.values()]
        for key in keys:
            if key not in self:
                self[key] = free.pop() if free else len(self) % SLOT_COUNT + 1

    def invert(self, keys: Collection[str]) -> None:
        """Of these runs, mark those that are not, and no others."""
        unmarked = [key for key in keys if key not in self]
        self.unmark(set(keys))
        self.add(unmarked)

    def unmark(self, keys: Iterable[str]) -> None:
        """Take the marks of these runs away."""
        for key in keys:
            self.pop(key, None)

    def selected_keys(self, highlighted: Collection[str]) -> list[str]:
        """What an edit is about: the highlighted runs, and all marked ones where one of those is highlighted."""
        return list(self) if self.keys() & set(highlighted) else list(highlighted)


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
    layout: ColumnLayout = field(default_factory=ColumnLayout)
    chart: dict[str, Any] = field(default_factory=dict)
    """What the charts want to be kept, as plain JSON."""
    heat_keys: tuple[str, ...] = ()
    """Config keys of the heat map: rows, columns, and of the small multiples where there are."""
    edits: list[Edit] = field(default_factory=list)
    """What was edited, the last one last; some of it can be undone."""
    has_read: bool = False
    """Whether the database was looked at: before, a screen has nothing to read."""

    def query_key(self) -> object:
        """Another one when a screen that somebody comes back to has to read again."""
        return self.query, tuple(self.marks), self.baseline, self.heat_keys

    def as_json(self) -> dict[str, Any]:
        """What is worth keeping, as plain JSON."""
        query, layout = self.query, self.layout
        return {
            "filter": query.expression,
            "metric": query.metric,
            "sort": query.sort,
            "descending": query.descending,
            "group": list(query.group),
            "opened": sorted(query.opened),
            "marks": dict(self.marks),
            "highlighted": self.highlighted,
            "baseline": self.baseline,
            "columns": {
                "order": list(layout.order),
                "hidden": sorted(layout.hidden),
                "shown": sorted(layout.shown),
                "widths": dict(layout.widths),
            },
            "chart": self.chart,
            "heat": list(self.heat_keys),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Be as `as_json` once said; what it does not say, or says wrongly, is as at first."""
        columns = kept.get("columns")
        columns = columns if isinstance(columns, Mapping) else {}
        self.query = Query(
            expression=_as_string(kept.get("filter")) or "",
            metric=_as_string(kept.get("metric")),
            sort=_as_string(kept.get("sort")),
            descending=kept.get("descending") is True,
            group=_as_strings(kept.get("group")),
            opened=frozenset(_as_strings(kept.get("opened"))),
        )
        self.marks.clear()
        self.marks.update({key: min(max(1, slot), SLOT_COUNT) for key, slot in _as_integers(kept.get("marks")).items()})
        self.highlighted, self.baseline = _as_string(kept.get("highlighted")), _as_string(kept.get("baseline"))
        self.layout = ColumnLayout(
            order=_as_strings(columns.get("order")),
            hidden=frozenset(_as_strings(columns.get("hidden"))),
            shown=frozenset(_as_strings(columns.get("shown"))),
            widths=_as_integers(columns.get("widths")),
        )
        chart = kept.get("chart")
        self.chart = dict(chart) if isinstance(chart, Mapping) else {}
        self.heat_keys = _as_strings(kept.get("heat"))[:3]


def _as_string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _as_strings(value: object) -> tuple[str, ...]:
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list | tuple) else ()


def _as_integers(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    return {key: number for key, number in value.items() if isinstance(key, str) and type(number) is int}
