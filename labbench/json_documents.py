"""JSON documents of runs, in one shape for every command with `--json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from labbench.records import MetricSummary, RunRecord


def run_document(record: RunRecord) -> dict[str, Any]:
    """Return a run as a JSON document: times in ISO 8601 UTC, non-finite numbers as "nan", "inf" and "-inf"."""
    return {
        "key": record.key,
        "name": record.name,
        "experiment": record.experiment,
        "status": record.status,
        "config": to_json_value(record.config),
        "tags": list(record.tags),
        "started": iso_time(record.started),
        "finished": iso_time(record.finished),
        "seconds": record.seconds,
        "reason": record.reason,
        "error": record.error,
        "attempt": record.attempt,
        "device": record.device,
        "node": record.node,
        "executor": record.executor,
        "cluster": record.cluster,
        "job_id": record.job_id,
        "without_driver": record.without_driver,
        "note": record.note,
        "archived": record.archived,
        "versions": to_json_value(record.library_versions),
        "hardware": to_json_value(record.hardware),
        "git_commit": record.git_commit,
        "git_dirty": record.git_dirty,
        "code_version": record.code_version,
        "older_code": record.older_code,
        "source": record.source,
        "continued_from": record.continued_from,
        "continued_step": record.continued_step,
        "summary": {metric: _summary(summary) for metric, summary in record.summary.items()},
    }


def to_json_value(value: Any) -> Any:
    """Return a value that JSON can represent: non-finite floats become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    return [to_json_value(item) for item in value] if isinstance(value, list | tuple) else value


def iso_time(seconds: float | None) -> str | None:
    """Format Unix seconds as ISO 8601 in UTC, with milliseconds."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _summary(summary: MetricSummary) -> dict[str, Any]:
    return {
        "n": summary.n,
        "n_nonfinite": summary.n_nonfinite,
        "first_nonfinite_step": summary.first_nonfinite_step,
        "last": to_json_value(summary.last),
        "last_step": summary.last_step,
        "min": summary.min,
        "min_step": summary.min_step,
        "max": summary.max,
        "max_step": summary.max_step,
    }
