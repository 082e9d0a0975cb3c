"""Runs on the charts of the runs screen: their colour slots, and the groups of the table that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from labbench.charts.glyphs import LEADER_COUNT, OTHER_SLOT
from labbench.tui.groups import RunGroup

MAX_DRAWN_RUNS = 1000
"""Maximum number of marked runs drawn on the chart; more can be marked for edits."""
_MAX_GROUPED_RUNS = 500
"""Maximum number of runs drawn without marks while the table has groups."""


@dataclass(frozen=True, slots=True)
class DrawnRuns:
    """Runs to draw, with their colours."""

    slots: Mapping[str, int] = field(default_factory=dict)
    """Colour slot by run key, in drawing order."""
    group_slots: Mapping[str, int] = field(default_factory=dict)
    """Colour slot of the drawn groups of the table, by group id."""
    group_names: Mapping[str, str] = field(default_factory=dict)
    """Name of the group of each run of the table, by run key; empty without groups."""


def choose_drawn_runs(groups: Mapping[str, RunGroup], leaders: Sequence[str], marks: Mapping[str, int]) -> DrawnRuns:
    """Return the marked runs, or by default `leaders`; in the groups of the table, if it has any.

    The first ten groups have colours of their own.
    """
    keys = [*islice(marks, MAX_DRAWN_RUNS)] if marks else leaders
    if not groups:
        return DrawnRuns(dict(marks) if marks else {key: slot for slot, key in enumerate(keys, start=1)})
    group_of_run = {key: group for group in groups.values() for key in group.keys}
    drawn = {group_of_run[key].id for key in keys if key in group_of_run}
    in_order = [group_id for group_id in groups if group_id in drawn]
    group_slots = {id: slot if slot <= LEADER_COUNT else OTHER_SLOT for slot, id in enumerate(in_order, start=1)}
    slots = {key: group_slots[group_of_run[key].id] for key in keys if key in group_of_run}
    return DrawnRuns(slots, group_slots, {key: group.name for key, group in group_of_run.items()})


def runs_of_first_groups(groups: Sequence[RunGroup]) -> list[str]:
    """Return the keys of the runs drawn without marks: all runs of the first groups, in table order."""
    return list(islice(_runs_of_whole_groups(groups), _MAX_GROUPED_RUNS))


def _runs_of_whole_groups(groups: Sequence[RunGroup]) -> Iterator[str]:
    n_runs = 0
    for group in groups:
        n_runs += len(group.keys)
        if n_runs > max(_MAX_GROUPED_RUNS, len(groups[0].keys)):
            return
        yield from group.keys
