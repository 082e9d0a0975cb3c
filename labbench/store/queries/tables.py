"""Runs as tables of plain values, and as data frames: one shape for CSV, Parquet, pandas and polars.

`long` has a row for each point, `wide` one for each step of a run, `summary` one for each run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from labbench.errors import InputError
from labbench.json_documents import iso_time, to_json_value
from labbench.records import Goal, RunRecord
from labbench.store.queries.stream import PointRow, StepRow

if TYPE_CHECKING:
    from labbench.filters.parser import RunFilter

TableShape: TypeAlias = Literal["long", "wide", "summary"]

LONG_COLUMNS = PointRow._fields
_WIDE_COLUMNS = StepRow._fields[:-1]
_RUN_COLUMNS = ("run", "name", "experiment", "status", "started", "seconds")
_SUMMARY_FIELDS = ("last", "last_step", "min", "min_step", "max", "max_step", "n")


class TableSource(Protocol):
    """Methods of a `Reader` that tables are made with."""

    def metrics(self, wanted: RunFilter) -> dict[str, Goal]: ...
    def config_keys(self, wanted: RunFilter) -> list[str]: ...
    def each_run(self, wanted: RunFilter, metrics: Collection[str] | None) -> Iterator[RunRecord]: ...
    def points(self, wanted: RunFilter, metrics: Collection[str] | None) -> Iterator[PointRow]: ...
    def steps(self, wanted: RunFilter, metrics: Collection[str] | None) -> Iterator[StepRow]: ...


def make_table(
    reader: TableSource, wanted: RunFilter, shape: TableShape, metrics: Collection[str] | None
) -> tuple[list[str], Iterator[Sequence[Any]]]:
    """Headings and rows of plain values, None for what is not there; the rows stream."""
    if shape == "long":
        return [*LONG_COLUMNS], reader.points(wanted, metrics)
    names = [name for name in reader.metrics(wanted) if metrics is None or name in metrics]
    if shape == "wide":
        headings = _unique_headings([*_WIDE_COLUMNS], names, prefix="metric.")
        steps = reader.steps(wanted, metrics)
        return headings, ((*step[:-1], *(step.values.get(name) for name in names)) for step in steps)
    keys = reader.config_keys(wanted)
    headings = _unique_headings([*_RUN_COLUMNS], keys, prefix="config.")
    headings += [f"{name}:{field}" for name in names for field in _SUMMARY_FIELDS]
    runs = reader.each_run(wanted, metrics)
    return headings, (_summary_row(run, keys, names) for run in runs)


def data_frame(
    package: Literal["pandas", "polars"],
    reader: TableSource,
    wanted: RunFilter,
    shape: TableShape,
    metrics: Collection[str] | None,
) -> Any:
    """The table as a DataFrame of that package. Raises InputError where it is not installed."""
    try:
        library = import_module(package)  # a large one, which labbench neither needs nor brings
    except ImportError:
        raise InputError(f"to_{package}() needs {package}: pip install {package}") from None
    headings, rows = make_table(reader, wanted, shape, metrics)
    columns = list(zip(*rows, strict=True)) or [()] * len(headings)
    return library.DataFrame({name: _unify_column(column) for name, column in zip(headings, columns, strict=True)})


def _unify_column(column: Sequence[Any]) -> list[Any]:
    """A column as it is, or as JSON texts where runs disagree about the type of a config key."""
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
    return row


def _unique_headings(headings: list[str], names: Sequence[str], *, prefix: str) -> list[str]:
    """The headings and the names, those with a prefix that would stand there twice."""
    for name in names:
        while name in headings:
            name = prefix + name
        headings.append(name)
    return headings
