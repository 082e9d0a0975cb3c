"""Colour slots of the best configurations among very many runs; the other runs are drawn in grey."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labbench.charts.glyphs import LEADER_COUNT, OTHER_SLOT
from labbench.metrics import Goal
from labbench.records import RunRecord
from labbench.tui.charts.labels import configuration_of


def leader_slots(runs: Sequence[RunRecord], metric: str, goal: Goal) -> dict[str, int]:
    """Return the slot of each run by key: from 1 on for the ten best configurations, `OTHER_SLOT` for the others.

    Configurations are ranked by the mean of their runs' best values; for the goal `none`, in the order of the runs.
    """
    members: dict[str, list[RunRecord]] = {}
    for run in runs:
        members.setdefault(configuration_of(run), []).append(run)
    ranked = sorted(members, key=lambda configuration: _rank(members[configuration], metric, goal))
    slots = dict.fromkeys((run.key for run in runs), OTHER_SLOT)
    for slot, configuration in enumerate(ranked[:LEADER_COUNT], start=1):
        slots.update(dict.fromkeys((run.key for run in members[configuration]), slot))
    return slots


def _rank(runs: Sequence[RunRecord], metric: str, goal: Goal) -> float:
    """Return the mean best value of the runs, the smallest for the best; infinity without values."""
    if goal == "none":
        return 0.0
    summaries = [run.summary[metric] for run in runs if metric in run.summary]
    bests = [summary.max if goal == "max" else summary.min for summary in summaries]
    values = [-best if goal == "max" else best for best in bests if best is not None]
    return math.fsum(value / len(values) for value in values) if values else math.inf
