"""Import of the folders that W&B writes offline or beside its uploads: `wandb/run-*`, `wandb/offline-run-*`.

`wandb_internal.proto` defines the records. Source:
https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from labbench.configs import flatten
from labbench.errors import InputError
from labbench.importing.file_types.protobuf import ProtobufError, read_message, to_bytes, to_text
from labbench.importing.file_types.wandb_file import read_records
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun, no_runs_error
from labbench.importing.wandb_history import LogCalls, Summary, read_items

_HISTORY, _SUMMARY, _OUTPUT, _CONFIG, _STATS, _METRIC, _OUTPUT_RAW, _RUN, _EXIT = 2, 3, 4, 5, 7, 12, 13, 17, 18
"""Fields of the message `Record`."""

_GROUPS = {6: "group", 7: "job_type"}
"""Fields of the message `RunRecord` that become keys of the configuration."""

_TIME = re.compile(r"\d{8}_\d{6}")
"""Start of a process in the name of its folder: `run-20260102_030405-ID`."""

_STATISTICS = ("min", "max", "mean", "last", "first", "best")
"""Words of `define_metric(summary=)`."""

_MAX_TEXT = 1000
"""Longest text of the summary that is imported, in characters."""

_GOALS: dict[int | bytes, Literal["min", "max"]] = {1: "min", 2: "max"}


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs beneath a folder: each `.wandb` file, or several of a run that was resumed.

    Raises:
        InputError: If there is none.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.wandb"))
    if not files:
        raise no_runs_error(path, ".wandb file")
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.stem, []).append(file)
    for name, files_of_name in by_name.items():
        for files_of_run in _group_by_project(files_of_name):
            yield FoundRun(name.removeprefix("run-"), partial(_read_run, files_of_run), files_of_run)


def _group_by_project(files: Sequence[Path]) -> Iterable[list[Path]]:
    """Return files of one id by the project of the run, since ids are unique in a project; each in order of time."""
    if len(files) == 1:
        return [[*files]]
    by_project: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: (_TIME.findall(file.parent.name), file)):
        by_project.setdefault(_read_project(file), []).append(file)
    return by_project.values()


def _read_project(file: Path) -> str:
    """Return the project of a run; "" if it cannot be read."""
    try:
        for message in read_records(file):
            record = read_message(message)
            if _RUN in record:
                return _text(read_message(to_bytes(record[_RUN][0])), 3)
    except (InputError, ProtobufError):  # reported when the run is read
        pass
    return ""


@dataclass
class _Records:
    """Content of a `.wandb` file."""

    calls: LogCalls = field(default_factory=LogCalls)
    points: RunCollector = field(default_factory=RunCollector)
    run: dict[int, list[int | bytes]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary)
    output: list[str] = field(default_factory=list)
    goals: dict[str, Literal["min", "max"]] = field(default_factory=dict)
    exit_code: int | None = None
    started: float = math.nan


def _read_run(files: Sequence[Path]) -> SourceRun:
    """Read the `.wandb` files of a run. Raises InputError if one is damaged."""
    records = _Records()
    add_known_call, add_known_summary = records.calls.add_known, records.summary.add_known
    for file in files:
        records.exit_code = None
        try:
            for message in read_records(file):
                if not (add_known_call(message) or add_known_summary(message)):
                    _add_record(message, records)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}: not a .wandb file: {error}") from error
    _add_summary(records, last_step=records.calls.add_to(records.points))
    run = records.run
    run_id = _text(run, 1) or files[0].stem.removeprefix("run-")
    started = records.points.started if math.isnan(records.started) else records.started
    config = {key: value for key, value in records.config.items() if not key.startswith("_wandb")}  # W&B's own
    config = {key: _text(run, number) for number, key in _GROUPS.items() if number in run} | config
    config |= _summary_texts(records)
    return SourceRun(
        id=run_id,
        name=_text(run, 8) or run_id,
        experiment=_text(run, 3) or "wandb",
        series=records.points.series(started),
        config=config,
        status="stopped" if records.exit_code is None else "failed" if records.exit_code else "finished",
        reason="the file has no end of the run" if records.exit_code is None else None,
        started=started,
        finished=records.points.finished,
        tags=[to_text(tag) for tag in run.get(10, [])],
        note=_text(run, 9) or None,
        output=[line + "\n" for line in "".join(records.output).splitlines()],
        goals=records.goals,
        has_last_values=True,
        skipped=records.points.skipped,
        other_ids=[(None, run_id)],
        has_unique_id=True,
        unread_metrics=_summary_statistics(records),
    )


def _text(message: Mapping[int, list[int | bytes]], number: int) -> str:
    return to_text(message[number][0]) if number in message else ""


def _add_record(message: bytes, records: _Records) -> None:
    record = read_message(message)
    if _HISTORY in record:
        records.calls.add(to_bytes(record[_HISTORY][0]))
    elif _OUTPUT_RAW in record or _OUTPUT in record:
        output = read_message(to_bytes(record.get(_OUTPUT_RAW, record.get(_OUTPUT, [b""]))[0]))
        records.output.append(_text(output, 3))
    elif _STATS in record:
        _add_stats(to_bytes(record[_STATS][0]), records)
    elif _SUMMARY in record:
        records.summary.add(to_bytes(record[_SUMMARY][0]))
    elif _CONFIG in record:
        _add_config(to_bytes(record[_CONFIG][0]), records)
    elif _METRIC in record:
        metric = read_message(to_bytes(record[_METRIC][0]))
        if 1 in metric and (goal := _GOALS.get(metric.get(8, [0])[0])):
            records.goals[_text(metric, 1)] = goal
    elif _RUN in record:
        records.run = read_message(to_bytes(record[_RUN][0]))
        for config in records.run.get(4, []):
            _add_config(to_bytes(config), records)
        for timestamp in records.run.get(17, []) if math.isnan(records.started) else ():
            records.started = _read_timestamp(to_bytes(timestamp))
    elif _EXIT in record:
        code = read_message(to_bytes(record[_EXIT][0])).get(1, [0])[0]
        records.exit_code = code if isinstance(code, int) else 1


def _add_stats(message: bytes, records: _Records) -> None:
    """Add system metrics, at the seconds since the start of the run."""
    stats = read_message(message)
    wall = _read_timestamp(to_bytes(stats[2][0])) if 2 in stats else math.nan
    if math.isnan(wall) or math.isnan(records.started):
        return
    values = {f"system/{key}": value for key, value in read_items(stats.get(3, [])).items()}
    records.points.add_values(values, max(0, round(wall - records.started)), wall)


def _add_config(message: bytes, records: _Records) -> None:
    config = read_message(message)
    records.config |= read_items(config.get(1, []))
    for key in read_items(config.get(2, [])):
        records.config.pop(key, None)


def _unlogged_summary(records: _Records) -> dict[str, Any]:
    """Return the values of the summary without the last values of the logged metrics."""
    metrics = records.points.metrics
    summary = flatten(records.summary.values)
    return {key: value for key, value in summary if not key.startswith("_") and key not in metrics}


def _add_summary(records: _Records, last_step: int) -> None:
    """Add the numbers of the summary that were not logged, at the last step, without W&B's statistics."""
    numbers = {key: value for key, value in _unlogged_summary(records).items() if isinstance(value, int | float)}
    statistics = _summary_statistics(records)
    records.points.add_values({key: numbers[key] for key in numbers if key not in statistics}, last_step)


def _summary_statistics(records: _Records) -> set[str]:
    """Return the keys that `define_metric(METRIC, summary="max")` makes, such as `METRIC.max`."""
    metrics = records.points.metrics
    keys = [(key, *key.rpartition(".")[::2]) for key in _unlogged_summary(records)]
    return {key for key, metric, statistic in keys if metric in metrics and statistic in _STATISTICS}


def _summary_texts(records: _Records) -> dict[str, str]:
    """Return the texts of the summary as keys of the configuration, `summary/KEY`."""
    texts = {key: value for key, value in _unlogged_summary(records).items() if isinstance(value, str)}
    return {f"summary/{key}": text for key, text in texts.items() if len(text) <= _MAX_TEXT}


def _read_timestamp(message: bytes) -> float:
    """Return a `google.protobuf.Timestamp` as Unix time in seconds."""
    timestamp = read_message(message)
    seconds, nanoseconds = timestamp.get(1, [0])[0], timestamp.get(2, [0])[0]
    return seconds + nanoseconds / 1e9 if isinstance(seconds, int) and isinstance(nanoseconds, int) else math.nan
