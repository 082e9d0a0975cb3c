"""Session state shared by all screens: query, marks, highlight, columns, charts and edits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labbench.charts.glyphs import SLOT_COUNT
from labbench.tui.columns.run_column import ColumnLayout
from labbench.tui.edits import Edit
from labbench.tui.queries import Query


class Marks(dict[str, int]):
    """Colour slot (from 1) of each marked run by key, in marking order."""

    def toggle(self, key: str) -> None:
        """Mark a run with the first free slot, or unmark it."""
        if key in self:
            del self[key]
        else:
            self.add([key])

    def add(self, keys: Iterable[str]) -> None:
        """Mark more runs; when all slots are in use, slots are reused in order."""
        free = [slot for slot in range(SLOT_COUNT, 0, -1) if slot not in self.values()]
        for key in keys:
            if key not in self:
                self[key] = free.pop() if free else len(self) % SLOT_COUNT + 1

    def invert(self, keys: Collection[str]) -> None:
        """Invert the marks of these runs; other marks are unchanged."""
        unmarked = [key for key in keys if key not in self]
        self.unmark(set(keys))
        self.add(unmarked)

    def unmark(self, keys: Iterable[str]) -> None:
        """Unmark runs."""
        for key in keys:
            self.pop(key, None)

    def selected_keys(self, highlighted: Collection[str]) -> list[str]:
        """Return the runs an edit applies to: all marked ones if a highlighted run is marked, else the highlighted."""
        return list(self) if self.keys() & set(highlighted) else list(highlighted)


@dataclass(frozen=True, slots=True)
class MarkChange:
    """A change of the marks that can be undone."""

    description: str
    before: Mapping[str, int]

    def revert(self, marks: Marks) -> None:
        """Restore the marks."""
        marks.clear()
        marks.update(self.before)


@dataclass
class Session:
    """State of one user's session on one database."""

    path: Path
    is_read_only: bool = False
    """True if runs cannot be edited: the database is a temporary copy."""
    query: Query = field(default_factory=Query)
    marks: Marks = field(default_factory=Marks)
    highlighted: str | None = None
    """Key of the run highlighted last."""
    baseline: str | None = None
    """Key of the run that others are compared with."""
    layout: ColumnLayout = field(default_factory=ColumnLayout)
    chart: dict[str, Any] = field(default_factory=dict)
    """Saved state of the charts, as plain JSON."""
    heat_keys: tuple[str, ...] = ()
    """Config keys of the heat map: rows, columns and optionally small multiples."""
    experiment: str | None = None
    """Experiment on the screens `grid` and `why`; None for the newest."""
    edits: list[Edit | MarkChange] = field(default_factory=list)
    """Undo stack, newest last; not every edit can be undone."""
    table_share: float | None = None
    """Share of the runs screen that the table takes beside the charts, 0 to 1; None: the default."""
    shown_metric: str | None = None
    """Metric on the charts of the runs screen, by default or by choice."""
    compared: tuple[str, ...] = ()
    """Keys of runs compared instead of the marked ones: the runs of a cell of the heat map."""
    compared_title: str = ""
    """Description of these runs: the settings of the cell."""
    has_read: bool = False
    """True once the watcher has looked at the database; screens do not read before that."""

    def remember_marks(self, description: str) -> None:
        """Put the marks on the undo stack, before a change with this description."""
        self.edits.append(MarkChange(description, dict(self.marks)))

    def query_key(self) -> object:
        """Return a value that changes whenever a resumed screen must reread."""
        return self.query, tuple(self.marks), self.compared, self.baseline, self.heat_keys, self.experiment

    def as_json(self) -> dict[str, Any]:
        """Return the state to save, as plain JSON."""
        query, layout = self.query, self.layout
        return {
            "filter": query.expression,
            "metric": query.metric,
            "sort": query.sort,
            "descending": query.descending,
            "group": list(query.group),
            "opened": sorted(query.opened),
            "values_at": [list(pair) for pair in query.values_at],
            "table_share": self.table_share,
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

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the session from `as_json`; missing or invalid fields get their defaults."""
        columns = state.get("columns")
        columns = columns if isinstance(columns, Mapping) else {}
        self.query = Query(
            expression=_as_string(state.get("filter")) or "",
            metric=_as_string(state.get("metric")),
            sort=_as_string(state.get("sort")),
            descending=state.get("descending") is True,
            group=_as_strings(state.get("group")),
            opened=frozenset(_as_strings(state.get("opened"))),
            values_at=_as_pairs(state.get("values_at")),
        )
        share = state.get("table_share")
        self.table_share = share if isinstance(share, float) and 0 < share < 1 else None
        self.marks.clear()
        self.marks.update(
            {key: min(max(1, slot), SLOT_COUNT) for key, slot in _as_integers(state.get("marks")).items()}
        )
        self.highlighted, self.baseline = _as_string(state.get("highlighted")), _as_string(state.get("baseline"))
        self.layout = ColumnLayout(
            order=_as_strings(columns.get("order")),
            hidden=frozenset(_as_strings(columns.get("hidden"))),
            shown=frozenset(_as_strings(columns.get("shown"))),
            widths=_as_integers(columns.get("widths")),
        )
        chart = state.get("chart")
        self.chart = dict(chart) if isinstance(chart, Mapping) else {}
        self.heat_keys = _as_strings(state.get("heat"))[:3]


def _as_string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _as_strings(value: object) -> tuple[str, ...]:
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list | tuple) else ()


def _as_integers(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    return {key: number for key, number in value.items() if isinstance(key, str) and type(number) is int}


def _as_pairs(value: object) -> tuple[tuple[str, int], ...]:
    """Return pairs of a text and a number of 0 or more."""
    pairs = [tuple(pair) for pair in value if isinstance(pair, list)] if isinstance(value, list) else []
    return tuple(
        (pair[0], pair[1])
        for pair in pairs
        if len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int and 0 <= pair[1] < 2**60
    )
