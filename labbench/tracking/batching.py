"""Conversion of log calls to series of points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from labbench.records import Points
from labbench.tracking.messages import warn_once
from labbench.tracking.values import Value, storable_name

Call: TypeAlias = tuple[int, int, dict[str, Value]]
"""A log call: step, `time.monotonic_ns()`, and a dict that no other code refers to."""


class MetricBatcher:
    """Convert log calls to series, and remember the last value of each metric."""

    def __init__(self, run: str, attempt: int, start_ns: int) -> None:
        """`start_ns` is the start of the run on the clock of `time.monotonic_ns()`."""
        self._run, self._attempt, self._start_ns = run, attempt, start_ns
        self._names: dict[str, str] = {}
        self.last: dict[str, float] = {}

    def series(self, calls: Iterable[Call]) -> list[Points]:
        """Return one `Points` per key, in the order of the calls."""
        columns: dict[str, tuple[list[int], list[int], list[float]]] = {}
        for step, now, metrics in calls:
            milliseconds = (now - self._start_ns) // 1_000_000
            for key, value in metrics.items():
                number = value if value.__class__ is float else _fetch_number(key, value)
                if number is None:
                    continue
                column = columns.get(key)
                if column is None:
                    column = columns[key] = ([], [], [])
                column[0].append(step)
                column[1].append(milliseconds)
                column[2].append(number)
        points = [Points(self._run, self._attempt, self._name(key), *column) for key, column in columns.items()]
        self.last.update({series.metric: series.values[-1] for series in points})
        return points

    def _name(self, key: str) -> str:
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = storable_name(key)
            if name != key:
                warn_once(f"a metric is recorded as `{name}`: its name has control characters or is too long")
        return name


def _fetch_number(key: str, value: Value) -> float | None:
    if isinstance(value, float):
        return value
    try:
        return value.number()
    except RuntimeError as error:
        warn_once(f"a value of `{key}` could not be read from its device and was not recorded: {error}")
        return None
