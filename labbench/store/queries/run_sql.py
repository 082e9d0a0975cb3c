"""SQL expressions of the statements on runs, and the conversion of values to what SQLite stores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from labbench.store.liveness import ProcessIdentity

IS_LOCAL = "runs.source IS NULL"
"""False for a run that is mirrored from another database: no process here drives, trains or judges it."""

HAS_LOST_DRIVER = f"""runs.status = 'running' AND {IS_LOCAL} AND is_lost(
    runs.heartbeat, runs.heartbeat_uptime, runs.boot_id, runs.pid_namespace, runs.pid, runs.pid_start)"""
"""True for a run whose driver has ended without recording it; `connection` registers the function `is_lost`."""

IS_HELD_BY_JOB = "runs.executor IS 'slurm'"
"""True for a run whose job continues without a driver; `labbench run` releases it if the scheduler has lost the job."""

IS_WITHOUT_DRIVER = f"{HAS_LOST_DRIVER} AND {IS_HELD_BY_JOB}"

IS_LOST = f"{HAS_LOST_DRIVER} AND NOT {IS_HELD_BY_JOB}"
"""True for a run whose process has ended without recording it."""

ENDS_NOT_FINITE = "(s.last IS NULL OR abs(s.last) > 1.7976931348623157e308)"
"""True if the last value of a series is NaN, stored as NULL, or infinite. `s` is its row of `summary`.

It is the condition of the index `summary_not_finite`, so that queries can use it.
"""

_DIVERGED_LOSSES = f"""
    FROM summary AS s CROSS JOIN metrics AS m ON m.id = s.metric_id WHERE {ENDS_NOT_FINITE} AND is_loss(m.name)
"""

DIVERGENCE = f"""(
    SELECT 'non-finite ' || m.name || ' at step ' || coalesce(s.first_nonfinite_step, s.last_step)
    {_DIVERGED_LOSSES} AND s.run_id = runs.id ORDER BY coalesce(s.first_nonfinite_step, s.last_step) LIMIT 1
)"""
"""Reason why a finished run has diverged: a loss whose last value is not finite; NULL if there is none.

The training loop ends such a run itself; scripts and other programs continue, and may exit with status 0. `connection`
registers the function `is_loss`.
"""

_IS_RECORDED_AS_FINISHED = f"runs.status = 'finished' AND runs.id IN (SELECT s.run_id {_DIVERGED_LOSSES})"
"""True for a diverged run that an earlier version of labbench has recorded."""

HAS_DIVERGED = f"(runs.status = 'diverged' OR {_IS_RECORDED_AS_FINISHED})"

STATUS = f"CASE WHEN {IS_LOST} THEN 'lost' WHEN {_IS_RECORDED_AS_FINISHED} THEN 'diverged' ELSE runs.status END"
"""Status of a run for readers."""

REASON = f"CASE WHEN {_IS_RECORDED_AS_FINISHED} THEN {DIVERGENCE} ELSE runs.reason END"
"""Reason of the end of a run for readers."""

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


def as_json_list(values: Iterable[int | str]) -> str:
    """Return the value of the parameter of `IN_JSON_LIST`."""
    return json.dumps(list(values))


def storable_text(text: str) -> str:
    """Replace lone surrogates, which SQLite cannot store, by `?`; file names that are not UTF-8 have them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


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


def _mark_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mark_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark_non_finite(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else _INFINITY if value > 0 else _MINUS_INFINITY
