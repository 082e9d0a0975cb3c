"""Groups of runs with equal values of some config keys, shown as one table row with count, mean and spread."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from labbench import text
from labbench.configs import canonical_json
from labbench.records import STATUSES, Status
from labbench.records.continuations import longest_runs

_GROUP_ID_PREFIX = "⟨group⟩"
"""Prefix of group ids; run keys never start with it."""


@dataclass(frozen=True, slots=True)
class SampleStats:
    """Count, mean and spread of finite values."""

    n: int
    mean: float
    spread: float | None
    """Sample standard deviation; None for a single value."""

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % interval of the mean (Student's t), as charts draw it; None for a single value."""
        if self.spread is None:
            return None
        from labbench.analysis.distributions import t_quantile  # takes 50 ms, which would delay the first paint

        return t_quantile(0.975, self.n - 1) * self.spread / math.sqrt(self.n)


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Runs with the same values of the group keys."""

    id: str
    settings: Mapping[str, Any]
    """Values of the config keys that runs are grouped by."""
    name: str
    """Settings in which it differs from the other groups, as short as in the names of runs."""
    keys: tuple[str, ...]
    """Keys of its runs, in table order."""
    statuses: Mapping[Status, int] = field(default_factory=dict)
    means: Mapping[str, SampleStats] = field(default_factory=dict)
    """Statistics by sort expression: `best(val/loss)`.

    Pruned runs do not count in statistics of metrics, and a run and its continuation count once.
    """
    is_open: bool = False
    """True if its runs are shown as rows below it."""

    def label(self) -> str:
        """Return its name with a marker for open or closed."""
        return f"{'▾' if self.is_open else '▸'} {self.name}"


def group_rows(
    rows: Sequence[tuple[Any, ...]],
    by: Sequence[str],
    headings: Sequence[str],
    *,
    opened: Collection[str],
    sources: Mapping[str, str],
) -> list[RunGroup]:
    """Group rows of (key, settings as JSON, status, one value per heading), in the order of their first rows.

    by: the config keys of the settings. headings: sort expressions of the values. opened: ids of open groups. sources:
    `Reader.continuations()`.
    """
    members: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        members.setdefault(canonical_json(json.loads(row[1])), []).append(row)
    groups = [_make_group(settings, by, headings, runs, opened, sources) for settings, runs in members.items()]
    names = _group_names([group.settings for group in groups], by)
    return [replace(group, name=name) for group, name in zip(groups, names, strict=True)]


def _group_names(settings: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[str]:
    """Return a name for each group: its value of the only key, or else what differs, as in the names of runs."""
    if len(by) == 1 or len(settings) == 1:
        return [" · ".join(_spell_setting(key, value) for key, value in each.items()) for each in settings]
    from labbench.grid.names import make_names  # imported when runs are grouped, not before the first paint

    configs = [{key: value for key, value in each.items() if value is not None} for each in settings]
    return list(map(text.clean, make_names(configs, {}, axes=by, same="all")))


def _spell_setting(key: str, value: Any) -> str:
    return f"{text.clean(key)} {'–' if value is None else text.format_setting(value)}"


def _make_group(
    settings: str,
    by: Sequence[str],
    headings: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    opened: Collection[str],
    sources: Mapping[str, str],
) -> RunGroup:
    counts = Counter(row[2] for row in rows)
    unpruned = [row for row in rows if row[2] != "pruned"]  # pruned runs trained for fewer epochs than the others
    means = {
        heading: metric_stats({row[0]: row[3 + index] for row in unpruned}, sources)
        if heading.endswith(")")
        else sample_stats([row[3 + index] for row in rows])
        for index, heading in enumerate(headings)
    }
    return RunGroup(
        id=_GROUP_ID_PREFIX + settings,
        settings=dict(zip(by, json.loads(settings), strict=False)),
        name="",
        keys=tuple(row[0] for row in rows),
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        means={heading: mean for heading, mean in means.items() if mean is not None},
        is_open=_GROUP_ID_PREFIX + settings in opened,
    )


def metric_stats(values: Mapping[str, object], sources: Mapping[str, str]) -> SampleStats | None:
    """Return count, mean and standard deviation of the values of runs, by key; a run and its continuation count once.

    sources: `Reader.continuations()`.
    """
    counted = longest_runs([key for key, value in values.items() if value is not None], sources)
    return sample_stats([value for key, value in values.items() if key in counted])


def sample_stats(values: Sequence[object]) -> SampleStats | None:
    """Return count, mean and standard deviation of the finite numbers among values; None without any."""
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not numbers:
        return None
    n = len(numbers)
    # scale the largest to about 1 by a power of two: no sum or square of diverging runs overflows
    unit = math.ldexp(1.0, min(1000, max(-1000, math.frexp(max(map(abs, numbers)))[1])))
    scaled = [number / unit for number in numbers]
    mean = math.fsum(scaled) / n
    if n < 2:
        return SampleStats(n, mean * unit, None)
    return SampleStats(n, mean * unit, unit * math.sqrt(math.fsum((value - mean) ** 2 for value in scaled) / (n - 1)))


def sort_groups(groups: Sequence[RunGroup], heading: str | None, *, descending: bool) -> list[RunGroup]:
    """Sort groups by their means of `heading`; without such means, keep the order of their first runs."""
    if not any(heading in group.means for group in groups):
        return list(groups)
    sign = -1.0 if descending else 1.0

    def rank(group: RunGroup) -> tuple[bool, float]:
        stats = group.means.get(heading or "")
        return (True, 0.0) if stats is None else (False, sign * stats.mean)

    return sorted(groups, key=rank)
