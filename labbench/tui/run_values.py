"""Queries of runs by key, called in thread workers: exact points, values at a step, words, recorded commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from labbench.records import RunRecord
from labbench.store.reader import Reader

ValuesAt: TypeAlias = dict[tuple[str, int, str], float]
"""Value of a metric at a step of a run, by (metric, step, run key)."""


def read_run_with_command(path: Path, key: str) -> tuple[RunRecord, str]:
    """Return a run and the command recorded with it, "" if none was. Raises RunNotFound if it was deleted."""
    with Reader(path) as reader:
        return reader.find(key), reader.sources(key).get("command", "")


def read_curves(path: Path, keys: Sequence[str], metrics: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return all points of these runs and metrics as rows, titles first."""
    rows: list[tuple[Any, ...]] = [("key", "run", "metric", "step", "value")]
    with Reader(path) as reader:
        for run in reader.by_keys(keys):
            for metric in metrics:
                steps, values = reader.series(run.key, metric)
                rows += [
                    (run.key, run.name, metric, step, value)
                    for step, value in zip(steps.tolist(), values.tolist(), strict=True)
                ]
    return rows


def read_all_values_at(path: Path, keys: Sequence[str], pairs: Sequence[tuple[str, int]]) -> ValuesAt:
    """Return values of metrics at steps, given as (metric, step); without a point there, the last earlier value."""
    if not pairs:
        return {}
    with Reader(path) as reader:
        return values_at(reader, reader.by_keys(keys), pairs)


def values_at(reader: Reader, runs: Sequence[RunRecord], pairs: Sequence[tuple[str, int]]) -> ValuesAt:
    """Return values of metrics at steps, given as (metric, step); without a point there, the last earlier value."""
    values: ValuesAt = {}
    for metric, step in pairs:
        for run in runs:
            if metric not in run.summary:
                continue
            points = reader.series(run.key, metric, first_step=step, last_step=step)[1]
            if not len(points):
                points = reader.series(run.key, metric, last_step=step)[1]
            if len(points):
                values[metric, step, run.key] = float(points[-1])
    return values


def find_runs(path: Path, keys: Sequence[str], words: str) -> list[str]:
    """Return the keys of the runs with all the words in their name, key, tags or note; the order is kept."""
    sought = words.lower().split()
    with Reader(path) as reader:
        texts = {
            run.key: " ".join([run.name, run.key, *run.tags, run.note or ""]).lower() for run in reader.by_keys(keys)
        }
    return [key for key in keys if all(word in texts.get(key, "") for word in sought)]
