"""Import of JSON lines that labbench has exported: a line per point, per step or per run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from labbench.errors import InputError
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun, parse_time, status_of_export

_LABELS = frozenset({"run", "name", "experiment", "step", "time"})
"""Keys of a line per point and of a line per step."""
_RUN_KEYS = frozenset({"key", "name", "experiment", "status", "config", "summary"})
"""Keys of a line per run, among others."""
_POINTS: tuple[tuple[Literal["last", "min", "max"], str], ...] = (
    ("last", "last_step"),
    ("min", "min_step"),
    ("max", "max_step"),
)
"""Values in the summary of a metric, with their steps."""


@dataclass
class _Run:
    name: str
    experiment: str
    points: RunCollector = field(default_factory=RunCollector)
    config: dict[str, Any] = field(default_factory=dict)


def is_exported(document: Mapping[str, Any]) -> bool:
    """Return True for the first line of a file that `labbench export` has written."""
    keys = document.keys()
    return keys >= _RUN_KEYS or (keys >= _LABELS and ("values" in keys or keys >= {"metric", "value"}))


def find_runs(documents: Iterable[Mapping[str, Any]], path: Path) -> Iterator[FoundRun]:
    """Yield the runs of exported lines, in the order of their first lines.

    Raises:
        InputError: If a line has other keys or values than `labbench export` writes.
    """
    runs: dict[str, _Run] = {}
    summaries: list[SourceRun] = []
    for number, document in enumerate(documents, 1):
        try:
            if "summary" in document:
                summaries.append(_read_run(document))
            else:
                labels = str(document["name"]), str(document["experiment"])
                _add_values(runs.setdefault(str(document["run"]), _Run(*labels)), document)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            problem = f"object {number} is not as `export` writes it ({type(error).__name__}: {error!s:.80})"
            raise InputError(f"{path}: {problem}; nothing was imported") from error
    for run in summaries:
        yield FoundRun(run.name, partial(_return, run), [path])
    for key, collected in runs.items():
        yield FoundRun(collected.name, partial(_to_source_run, key, collected), [path])


def _add_values(run: _Run, document: Mapping[str, Any]) -> None:
    values = document["values"] if "values" in document else {document["metric"]: document["value"]}
    numbers = {metric: _number(value) for metric, value in values.items()}
    run.points.add_values(numbers, int(document["step"]), float(document["time"]))
    run.config.update(without_missing(document.get("config", {})))


def without_missing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys that a run does not have, which an export writes as None."""
    return {key: value for key, value in config.items() if value is not None}


def _number(value: object) -> object:
    """Return a number; JSON has "nan", "inf" and "-inf" as texts."""
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value


def _to_source_run(key: str, run: _Run) -> SourceRun:
    series, skipped = run.points.series(0.0), run.points.skipped
    return SourceRun(key, run.name, run.experiment, series, config=run.config, skipped=skipped, is_partial=True)


def _return(run: SourceRun) -> SourceRun:
    return run


def _read_run(document: Mapping[str, Any]) -> SourceRun:
    """Return a run with the last, least and largest value of each metric at their steps."""
    points = RunCollector()
    for metric, summary in document["summary"].items():
        for value, step in _POINTS:
            if summary.get(step) is not None:
                points.add_values({metric: _number(summary[value])}, int(summary[step]))
    status, reason = status_of_export(str(document["status"]))
    started, finished = (parse_time(str(document.get(key) or "")) for key in ("started", "finished"))
    return SourceRun(
        id=str(document["key"]),
        name=str(document["name"]),
        experiment=str(document["experiment"]),
        series=points.series(0.0),
        config=document["config"],
        status=status,
        reason=reason,
        started=started,
        finished=finished,
        tags=document.get("tags", ()),
        note=document.get("note"),
        skipped=points.skipped,
        has_last_values=True,
        is_partial=True,
    )
