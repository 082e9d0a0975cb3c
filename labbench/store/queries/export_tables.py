"""Tables of runs for CSV, Parquet, pandas and polars.

The shape `long` has a row per point, `wide` a row per step of a run, `summary` a row per run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from labbench.errors import InputError
from labbench.json_documents import iso_time, to_json_value
from labbench.metrics import Goal
from labbench.records import RunRecord
from labbench.store.queries.stream import PointRow, StepRow

if TYPE_CHECKING:
    from labbench.filters.parser import RunFilter

TableShape: TypeAlias = Literal["long", "wide", "summary"]
Table: TypeAlias = tuple[list[str], Iterator[Sequence[Any]]]
"""Headings and rows of a table."""
RunSettings: TypeAlias = tuple[list[str], dict[str, list[Any]]]
"""Configuration keys, and their values by key of a run."""

LONG_COLUMNS = PointRow._fields
CONFIG_COLUMN = "config"
"""Last column of `wide` with settings: the settings as JSON, which tells them from metrics."""
_WIDE_COLUMNS = StepRow._fields[:-1]
_RUN_COLUMNS = ("run", "name", "experiment", "status", "started", "seconds")
ORIGIN_COLUMNS = (
    "code_version", "older_code", "commit", "device", "host", "versions", "hardware", "tags", "note",
)  # fmt: skip
"""Last columns of `summary`: the code, device, libraries and hardware of each run, its tags and its note."""
_SUMMARY_FIELDS = ("last", "last_step", "min", "min_step", "max", "max_step", "n")


class TableSource(Protocol):
    """Methods of `Reader` that `make_table` uses."""

    def metrics(self, filter: RunFilter) -> dict[str, Goal]: ...
    def config_keys(self, filter: RunFilter) -> list[str]: ...
    def differing(self, filter: RunFilter) -> list[str]: ...
    def each_run(self, filter: RunFilter, metrics: Collection[str] | None) -> Iterator[RunRecord]: ...
    def points(self, filter: RunFilter, metrics: Collection[str] | None) -> Iterator[PointRow]: ...
    def steps(self, filter: RunFilter, metrics: Collection[str] | None) -> Iterator[StepRow]: ...


def make_table(reader: TableSource, filter: RunFilter, shape: TableShape, metrics: Collection[str] | None) -> Table:
    """Return headings and rows of a table.

    Rows are streamed, and a missing value is None.

    Raises:
        InputError: If the filter or a metric is unknown.
    """
    if shape == "long":
        return [*LONG_COLUMNS], reader.points(filter, metrics)
    names = [name for name in reader.metrics(filter) if metrics is None or name in metrics]
    if shape == "wide":
        headings = _unique_headings([*_WIDE_COLUMNS], names, prefix="metric.")
        steps = reader.steps(filter, metrics)
        return headings, ((*step[:-1], *(step.values.get(name) for name in names)) for step in steps)
    keys = reader.config_keys(filter)
    headings = _unique_headings([*_RUN_COLUMNS], keys, prefix="config.")
    headings += [f"{name}:{field}" for name in names for field in _SUMMARY_FIELDS]
    headings = _unique_headings(headings, ORIGIN_COLUMNS, prefix="run.")
    runs = reader.each_run(filter, metrics)
    return headings, (_summary_row(run, keys, names) for run in runs)


def differing_settings(reader: TableSource, filter: RunFilter) -> RunSettings:
    """Return the configuration keys that differ between the runs, and their values by key of a run.

    A key that a run does not have is None.
    """
    keys = reader.differing(filter)
    return keys, {run.key: [run.config.get(key) for key in keys] for run in reader.each_run(filter, ())}


def with_json_settings(settings: RunSettings) -> RunSettings:
    """Append the settings of each run as JSON, under `CONFIG_COLUMN`; keys that a run does not have are left out."""
    keys, values = settings
    texts = {
        run: json.dumps({key: to_json_value(value) for key, value in zip(keys, row, strict=True) if value is not None})
        for run, row in values.items()
    }
    return [*keys, CONFIG_COLUMN], {run: [*row, texts[run]] for run, row in values.items()}


def with_settings(table: Table, settings: RunSettings) -> Table:
    """Append the result of `differing_settings` to the headings and rows of a table whose first column is the run."""
    headings, rows = table
    keys, values = settings
    unknown = [None] * len(keys)  # a run that was queued in the meantime
    return _unique_headings([*headings], keys, prefix="config."), ((*row, *values.get(row[0], unknown)) for row in rows)


def data_frame(
    package: Literal["pandas", "polars"],
    reader: TableSource,
    filter: RunFilter,
    shape: TableShape,
    metrics: Collection[str] | None,
) -> Any:
    """Return a table as a DataFrame of `package`.

    Raises:
        InputError: If the package is not installed, or the filter or a metric is unknown.
    """
    try:
        library = import_module(package)  # not a dependency of labbench
    except ImportError:
        raise InputError(f"to_{package}() needs {package}: pip install {package}") from None
    headings, rows = make_table(reader, filter, shape, metrics)
    columns = list(zip(*rows, strict=True)) or [()] * len(headings)
    return library.DataFrame({name: _unify_column(column) for name, column in zip(headings, columns, strict=True)})


def _unify_column(column: Sequence[Any]) -> list[Any]:
    """Return a column with values of one type: JSON texts if runs have config values of different types."""
    types = {type(value) for value in column if value is not None}
    if types == {int, float}:
        return [None if value is None else float(value) for value in column]
    if len(types) <= 1 and not types & {list, dict}:
        return list(column)
    return [None if value is None else json.dumps(to_json_value(value)) for value in column]


def _summary_row(run: RunRecord, keys: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    row = [run.key, run.name, run.experiment, run.status, iso_time(run.started), run.seconds]
    row += [run.config.get(key) for key in keys]
    for metric in metrics:
        summary = run.summary.get(metric)
        row += [getattr(summary, field, None) for field in _SUMMARY_FIELDS]
    commit = None if run.git_commit is None else run.git_commit + "-dirty" * bool(run.git_dirty)
    versions = ", ".join(f"{name} {version}" for name, version in run.library_versions.items())
    host = run.node if run.executor is not None else run.host
    row += [run.code_version, run.older_code, commit, run.device, host, versions or None, run.hardware_text or None]
    return [*row, list(run.tags), run.note or None]


def _unique_headings(headings: list[str], names: Sequence[str], *, prefix: str) -> list[str]:
    """Append names to the headings, with the prefix if a name is a heading already."""
    for name in names:
        while name in headings:
            name = prefix + name
        headings.append(name)
    return headings
