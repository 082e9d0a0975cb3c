"""Values of a metric at the ends of epochs, for the comparison of runs after equal numbers of epochs."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from labbench.metrics import Goal
from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list


@dataclass(frozen=True, slots=True)
class EpochValue:
    """Value of a metric of one run up to the end of an epoch."""

    epoch: float
    """Last epoch with a point, at most the one asked for."""
    last: float
    """Value at the end of that epoch; NaN if it was not measured."""
    low: float
    """Smallest finite value up to then, NaN if there is none."""
    high: float
    """Largest finite value up to then, NaN if there is none."""

    def best(self, goal: Goal) -> float:
        """Return the best value, NaN if the last one is not finite."""
        return (self.low if goal == "min" else self.high) if math.isfinite(self.last) else math.nan


def read_epoch_values(
    connection: sqlite3.Connection, keys: Sequence[str], metric: str, epoch: int
) -> dict[str, EpochValue]:
    """Return the values of a metric up to the end of an epoch, by key of the runs that have begun."""
    query = f"""
        SELECT runs.key, epochs.value, CASE WHEN typeof(measured.value) = 'real' THEN measured.value END
        FROM runs
        JOIN points AS epochs ON epochs.run_id = runs.id
            AND epochs.metric_id = (SELECT id FROM metrics WHERE name = 'epoch')
        LEFT JOIN points AS measured ON measured.run_id = runs.id AND measured.step = epochs.step
            AND measured.metric_id = (SELECT id FROM metrics WHERE name = ?)
        WHERE runs.key {IN_JSON_LIST} AND typeof(epochs.value) = 'real' AND epochs.value <= ?
        ORDER BY runs.id, epochs.step
    """
    values: dict[str, EpochValue] = {}
    for key, number, value in connection.execute(query, (metric, as_json_list(keys), epoch)):
        last = math.nan if value is None else value
        before = values.get(key)
        finite = [last] if math.isfinite(last) else []
        finite += [edge for edge in (before.low, before.high) if math.isfinite(edge)] if before else []
        low, high = (min(finite), max(finite)) if finite else (math.nan, math.nan)
        values[key] = EpochValue(number, last, low, high)
    return values
