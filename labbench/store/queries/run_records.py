"""Rows of the table `runs` as `RunRecord`s, and their configs."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

from labbench.configs import ConfigKeys, compare_configs
from labbench.records import MetricSummary, RunRecord, require_key
from labbench.store.queries.run_sql import (
    FROM_RUNS,
    IN_JSON_LIST,
    IS_WITHOUT_DRIVER,
    REASON,
    STATUS,
    as_json_list,
    config_json,
)
from labbench.store.row_checks import COLUMNS, INTEGER, RowCheck, read_json_object

_FIELDS = tuple(field.name for field in fields(RunRecord) if field.name not in ("tags", "summary"))

_EXPRESSIONS = {
    "experiment": "experiments.name",
    "status": STATUS,
    "reason": REASON,
    "without_driver": IS_WITHOUT_DRIVER,
}

_COLUMNS = ", ".join(_EXPRESSIONS.get(name, f"runs.{name}") for name in _FIELDS)

_SUMMARY_COLUMNS = tuple(COLUMNS["summary"])

_check_runs = RowCheck("runs", _FIELDS, {"without_driver": INTEGER})
_check_tags = RowCheck("tags", ("run_id", "tag"))
_check_metric_names = RowCheck("metrics", ("id", "name"))
_check_summaries = RowCheck("summary", _SUMMARY_COLUMNS)


def read_records(
    connection: sqlite3.Connection, ids: Sequence[int], *, summaries: bool | Iterable[str] = False
) -> list[RunRecord]:
    """Return the runs with these ids, in this order.

    Ids that do not exist are skipped.

    Args:
        summaries: Load the summaries of all metrics (True), of none (False) or of the named ones.

    Raises:
        InputError: If another program wrote an invalid key.
        StoreError: If another program or damage left a value that labbench does not write.
    """
    id_list = as_json_list(ids)
    query = f"SELECT {_COLUMNS} {FROM_RUNS} WHERE runs.id {IN_JSON_LIST}"
    rows = {row[0]: row for row in _check_runs(connection.execute(query, (id_list,)))}
    tags = _read_tags(connection, id_list)
    summary = {} if summaries is False else _read_summaries(connection, id_list, summaries)
    return [
        _record_from_row(rows[run_id], tags.get(run_id, ()), summary.get(run_id, {}))
        for run_id in ids
        if run_id in rows
    ]


def read_records_by_key(connection: sqlite3.Connection, keys: Sequence[str]) -> list[RunRecord]:
    """Return the runs with these keys, in this order and without duplicates, with all summaries.

    Archived runs are included, unknown keys skipped.
    """
    query = f"SELECT key, id FROM runs WHERE key {IN_JSON_LIST}"
    ids = dict(connection.execute(query, (as_json_list(keys),)).fetchall())
    return read_records(connection, [ids[key] for key in dict.fromkeys(keys) if key in ids], summaries=True)


def _record_from_row(row: tuple[Any, ...], tags: tuple[str, ...], summary: Mapping[str, MetricSummary]) -> RunRecord:
    columns = dict(zip(_FIELDS, row, strict=True))
    require_key(columns["key"])
    dirty = columns["git_dirty"]
    columns |= {
        "config": _read_config(columns["config"]),
        "git_dirty": None if dirty is None else bool(dirty),
        "versions": read_json_object(columns["versions"], "runs", "versions"),
        "archived": bool(columns["archived"]),
        "older_code": bool(columns["older_code"]),
        "without_driver": bool(columns["without_driver"]),
    }
    return RunRecord(**columns, tags=tags, summary=summary)


def _read_tags(connection: sqlite3.Connection, ids: str) -> dict[int, tuple[str, ...]]:
    query = f"SELECT run_id, tag FROM tags WHERE run_id {IN_JSON_LIST} ORDER BY run_id, tag"
    tags: dict[int, tuple[str, ...]] = {}
    for run_id, tag in _check_tags(connection.execute(query, (ids,))):
        tags[run_id] = (*tags.get(run_id, ()), tag)
    return tags


def _read_summaries(
    connection: sqlite3.Connection, ids: str, metrics: bool | Iterable[str]
) -> dict[int, dict[str, MetricSummary]]:
    names = dict(_check_metric_names(connection.execute("SELECT id, name FROM metrics ORDER BY id")))
    if not isinstance(metrics, bool):
        chosen = set(metrics)
        names = {metric_id: name for metric_id, name in names.items() if name in chosen}
    query = f"""
        SELECT {", ".join(_SUMMARY_COLUMNS)}
        FROM summary WHERE run_id {IN_JSON_LIST} AND metric_id {IN_JSON_LIST}
    """
    summaries: dict[int, dict[str, MetricSummary]] = {}
    rows = connection.execute(query, (ids, as_json_list(names)))
    for run_id, metric_id, n, n_nonfinite, first, last, *rest in _check_summaries(rows):
        value = math.nan if last is None else last
        summaries.setdefault(run_id, {})[names[metric_id]] = MetricSummary(n, n_nonfinite, first, value, *rest)
    return summaries


def set_config(connection: sqlite3.Connection, run_id: int, config: Mapping[str, Any]) -> None:
    """Set config values of a run.

    Other keys, for instance those that its script added, are kept.
    """
    [text] = connection.execute("SELECT config FROM runs WHERE id = ?", (run_id,)).fetchone()
    new = config_json({**_read_config(text), **config})
    if new != text:
        connection.execute("UPDATE runs SET config = ? WHERE id = ?", (new, run_id))


@lru_cache(maxsize=2)  # the TUI calls it after each commit, mostly with unchanged configs
def compare_config_texts(configs: tuple[str, ...]) -> ConfigKeys:
    """Compare configs given as JSON."""
    return compare_configs(map(_read_config, configs))


def _read_config(text: str) -> dict[str, Any]:
    return read_json_object(text, "runs", "config")
