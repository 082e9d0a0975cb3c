"""Values of two metrics of one run at one step, which belong to the same network."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from labbench.metrics import Goal
from labbench.records import PairedPoint
from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list
from labbench.store.row_checks import NUMBER, TEXT, RowCheck

_check_pairs = RowCheck("points", ("key", "step", "value", "chosen"), {"key": TEXT, "chosen": NUMBER})


def read_paired_points(
    connection: sqlite3.Connection, keys: Sequence[str], metric: str, tuning: str, goal: Goal
) -> dict[str, PairedPoint]:
    """Return the point at the best step of `tuning` among the steps with both metrics, by key of the run.

    `goal` is the goal of `tuning`; of equal values, the earliest one is the best. Runs without such a step are missing.
    """
    query = f"""
        SELECT key, step, judged, chosen FROM (
            SELECT runs.key AS key, judged.step AS step, judged.value AS judged, chosen.value AS chosen,
                row_number() OVER (
                    PARTITION BY runs.id ORDER BY chosen.value {"DESC" if goal == "max" else "ASC"}, judged.step
                ) AS place
            FROM runs
            JOIN points AS judged ON judged.run_id = runs.id
                AND judged.metric_id = (SELECT id FROM metrics WHERE name = ?)
            JOIN points AS chosen ON chosen.run_id = runs.id AND chosen.step = judged.step
                AND chosen.metric_id = (SELECT id FROM metrics WHERE name = ?)
            WHERE runs.key {IN_JSON_LIST} AND abs(chosen.value) <= 1.7976931348623157e308
        ) WHERE place = 1
    """
    rows = _check_pairs(connection.execute(query, (metric, tuning, as_json_list(keys))))
    return {
        key: PairedPoint(step, math.nan if judged is None else judged, chosen) for key, step, judged, chosen in rows
    }
