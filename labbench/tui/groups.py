"""Runs that share the values of some config keys, as one row of the table: how many they are, their mean and spread."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labbench import text
from labbench.records import STATUSES, Status

_GROUP_ID_PREFIX = "⟨group⟩"
"""Begins the id of a group: no key of a run does."""


@dataclass(frozen=True, slots=True)
class SampleStats:
    """Of the values that are numbers."""

    n: int
    mean: float
    spread: float | None
    """Standard deviation; None for a single value."""


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Some runs and what they have in common."""

    id: str
    settings: Mapping[str, Any]
    """The config keys that they are grouped by."""
    keys: tuple[str, ...]
    """Of its runs, in the order of the table."""
    statuses: Mapping[Status, int] = field(default_factory=dict)
    means: Mapping[str, SampleStats] = field(default_factory=dict)
    """By what the store sorts by: `best(val/loss)`."""
    is_open: bool = False
    """Whether its runs are rows beneath it."""

    def label(self) -> str:
        """Its settings in words."""
        parts = [f"{text.clean(key)} {_format_setting(value)}" for key, value in self.settings.items()]
        return f"{'▾' if self.is_open else '▸'} {' · '.join(parts)}"


def _format_setting(value: Any) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else text.format_setting(value)


def group_rows(
    rows: Sequence[tuple[Any, ...]], by: Sequence[str], headings: Sequence[str], *, opened: Collection[str]
) -> list[RunGroup]:
    """Groups of rows (key, settings as JSON, status, one value a heading), in the order of their first rows."""
    members: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        members.setdefault(row[1], []).append(row)
    return [_make_group(settings, by, headings, runs, opened) for settings, runs in members.items()]


def _make_group(
    settings: str, by: Sequence[str], headings: Sequence[str], rows: Sequence[tuple[Any, ...]], opened: Collection[str]
) -> RunGroup:
    counts = Counter(row[2] for row in rows)
    means = {heading: sample_stats([row[3 + index] for row in rows]) for index, heading in enumerate(headings)}
    return RunGroup(
        id=_GROUP_ID_PREFIX + settings,
        settings=dict(zip(by, json.loads(settings), strict=False)),
        keys=tuple(row[0] for row in rows),
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        means={heading: mean for heading, mean in means.items() if mean is not None},
        is_open=_GROUP_ID_PREFIX + settings in opened,
    )


def sample_stats(values: Sequence[object]) -> SampleStats | None:
    """Mean and standard deviation of what is a finite number; None where nothing is."""
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not numbers:
        return None
    n = len(numbers)
    # the largest is made 1, by a power of two: no sum or square of runs that blew up is infinite
    unit = math.ldexp(1.0, min(1000, max(-1000, math.frexp(max(map(abs, numbers)))[1])))
    shares = [number / unit for number in numbers]
    mean = math.fsum(shares) / n
    if n < 2:
        return SampleStats(n, mean * unit, None)
    return SampleStats(n, mean * unit, unit * math.sqrt(math.fsum((share - mean) ** 2 for share in shares) / (n - 1)))


def sort_groups(groups: Sequence[RunGroup], heading: str | None, *, descending: bool) -> list[RunGroup]:
    """By their means under a metric's heading; by anything else they stay in the order of their first runs."""
    if not any(heading in group.means for group in groups):
        return list(groups)
    sign = -1.0 if descending else 1.0

    def rank(group: RunGroup) -> tuple[bool, float]:
        mean = group.means.get(heading or "")
        return (True, 0.0) if mean is None else (False, sign * mean.mean)

    return sorted(groups, key=rank)
