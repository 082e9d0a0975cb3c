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

_SIGN = "⟨group⟩"
"""Begins the id of a group: no key of a run does."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Of the values that are numbers."""

    n: int
    mean: float
    spread: float | None
    """Standard deviation; None for a single value."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some runs and what they have in common."""

    id: str
    settings: Mapping[str, Any]
    """The config keys that they are grouped by."""
    keys: tuple[str, ...]
    """Of its runs, in the order of the table."""
    statuses: Mapping[Status, int] = field(default_factory=dict)
    means: Mapping[str, Mean] = field(default_factory=dict)
    """By what the store sorts by: `best(val/loss)`."""
    is_open: bool = False
    """Whether its runs are rows beneath it."""

    def label(self) -> str:
        """Its settings in words."""
        parts = [f"{text.clean(key)} {_said(value)}" for key, value in self.settings.items()]
        return f"{'▾' if self.is_open else '▸'} {' · '.join(parts)}"


def _said(value: Any) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else text.setting(value)


def group(
    rows: Sequence[tuple[Any, ...]], by: Sequence[str], headings: Sequence[str], *, opened: Collection[str]
) -> list[Group]:
    """Groups of rows (key, settings as JSON, status, one value a heading), in the order of their first rows."""
    members: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        members.setdefault(row[1], []).append(row)
    return [_group(settings, by, headings, runs, opened) for settings, runs in members.items()]


def _group(
    settings: str, by: Sequence[str], headings: Sequence[str], rows: Sequence[tuple[Any, ...]], opened: Collection[str]
) -> Group:
    counts = Counter(row[2] for row in rows)
    means = {heading: mean_of([row[3 + index] for row in rows]) for index, heading in enumerate(headings)}
    return Group(
        id=_SIGN + settings,
        settings=dict(zip(by, json.loads(settings), strict=False)),
        keys=tuple(row[0] for row in rows),
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        means={heading: mean for heading, mean in means.items() if mean is not None},
        is_open=_SIGN + settings in opened,
    )


def mean_of(values: Sequence[object]) -> Mean | None:
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
        return Mean(n, mean * unit, None)
    return Mean(n, mean * unit, unit * math.sqrt(math.fsum((share - mean) ** 2 for share in shares) / (n - 1)))


def sort_groups(groups: Sequence[Group], heading: str | None, *, descending: bool) -> list[Group]:
    """By their means under a metric's heading; by anything else they stay in the order of their first runs."""
    if not any(heading in group.means for group in groups):
        return list(groups)
    sign = -1.0 if descending else 1.0

    def rank(group: Group) -> tuple[bool, float]:
        mean = group.means.get(heading or "")
        return (True, 0.0) if mean is None else (False, sign * mean.mean)

    return sorted(groups, key=rank)
