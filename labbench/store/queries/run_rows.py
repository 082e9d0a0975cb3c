"""Conversion of rows of the table `runs` to `RunRecord`s, and of configs to JSON."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

from labbench.configs import ConfigKeys, compare_configs
from labbench.records import MetricSummary, RunRecord, require_key
from labbench.store.liveness import ProcessIdentity
from labbench.store.row_checks import COLUMNS, RowCheck, read_json_object

IS_LOST = """runs.status = 'running' AND is_lost(
    runs.heartbeat, runs.heartbeat_uptime, runs.boot_id, runs.pid_namespace, runs.pid, runs.pid_start)"""
"""True for a run whose process has ended without recording it; `connection` registers the function `is_lost`."""

STATUS = f"CASE WHEN {IS_LOST} THEN 'lost' ELSE runs.status END"
"""Status of a run for readers."""

_PROCESS = [field.name for field in fields(ProcessIdentity)]

IS_OF_PROCESS = " AND ".join(f"{column} IS ?" for column in _PROCESS)
"""True for a run that a process drives; the parameters are the fields of its `ProcessIdentity`."""

SET_PROCESS = ", ".join(f"{column} = ?" for column in _PROCESS)
"""Assignment of the process that drives a run; the parameters are the fields of its `ProcessIdentity`."""

NEXT_ATTEMPT_IDS = """
    CASE WHEN heartbeat IS NULL THEN '' ELSE coalesce(attempt_ids, '-') || ' ' END || lower(hex(randomblob(4)))
"""
"""Value of `attempt_ids` for the next attempt of a run; a run without a heartbeat has had none."""

IN_JSON_LIST = "IN (SELECT value FROM json_each(?))"
"""Membership in a list passed as one parameter, see `as_json_list`: SQLite limits the number of parameters."""

FROM_RUNS = "FROM runs JOIN experiments ON experiments.id = runs.experiment_id"

_FIELDS = tuple(field.name for field in fields(RunRecord) if field.name not in ("tags", "summary"))

_EXPRESSIONS = {"experiment": "experiments.name", "status": STATUS}

_COLUMNS = ", ".join(_EXPRESSIONS.get(name, f"runs.{name}") for name in _FIELDS)

_SUMMARY_COLUMNS = tuple(COLUMNS["summary"])

_check_runs = RowCheck("runs", _FIELDS)
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


def as_json_list(values: Iterable[int | str]) -> str:
    """Return the value of the parameter of `IN_JSON_LIST`."""
    return json.dumps(list(values))


def storable_text(text: str) -> str:
    """Replace lone surrogates, which SQLite cannot store, by `?`; file names that are not UTF-8 have them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


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


# placeholders for infinities while a config is serialized; no user's text contains a zero byte
_INFINITY, _MINUS_INFINITY = "\0+inf", "\0-inf"


def config_json(config: Mapping[str, Any]) -> str:
    """Serialize a config to JSON that SQLite can read.

    Infinities become numbers that overflow, NaN becomes the string "nan", because JSON has neither.
    """
    try:
        text = json.dumps(dict(config), ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_mark_non_finite(dict(config)), ensure_ascii=False)
        text = text.replace(json.dumps(_INFINITY), "9e999").replace(json.dumps(_MINUS_INFINITY), "-9e999")
    return storable_text(text)


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


def _mark_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mark_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark_non_finite(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else _INFINITY if value > 0 else _MINUS_INFINITY
