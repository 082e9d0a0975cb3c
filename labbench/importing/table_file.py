"""Import of tables with one row per step and one column per metric: CSV files of any origin and JSON lines.

Keras's CSVLogger, Lightning's CSVLogger and `labbench export --wide` write such tables.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from labbench.configs import flatten
from labbench.errors import InputError, did_you_mean
from labbench.export.table_files import unescape_formula
from labbench.importing.file_types.csv_rows import MISSING, open_csv
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun

STEP_COLUMNS = ("step", "global_step", "_step", "iteration", "iter", "epoch")
"""Columns that number the rows, best first; compared in lower case."""
RUN_COLUMNS = ("run", "run_id", "run_name")
"""Columns that tell the runs of a table apart, best first."""
TIME_COLUMNS = ("_timestamp", "timestamp", "wall_time", "walltime")
"""Columns with the Unix time in seconds."""
_LABBENCH_COLUMNS = frozenset({"run", "name", "experiment", "step", "time"})
"""Columns of `labbench export --wide`, where `time` is in seconds since the start of the run."""
_CHART_COLUMN = re.compile(r"(?P<run>.+) - (?P<metric>.+)")
"""Heading of a column in the CSV file of a chart of W&B."""
_INDEX = re.compile(r"(unnamed: \d+)?")
"""Heading of the column of row numbers that pandas writes."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Roles of the columns of a table."""

    step: str | None = None
    """Column of the step; None: the first of `STEP_COLUMNS`, else the number of the row."""
    run: str | None = None
    """Column that names the run; None: the first of `RUN_COLUMNS`, else the file is one run."""


@dataclass
class _Run:
    points: RunCollector = field(default_factory=RunCollector)
    config: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    n_rows: int = 0
    first: str = ""
    """First row, which tells the run from others of the same name."""


def find_runs_in_csv(path: Path, options: TableOptions, label: str | None = None) -> Iterator[FoundRun]:
    """Yield the runs of a wide CSV file.

    Raises:
        InputError: If the file cannot be read or a named column is missing.
    """
    return _find_runs(path, _read_csv_rows(path), options, label)


def find_runs_in_jsonl(path: Path, options: TableOptions) -> Iterator[FoundRun]:
    """Yield the runs of a file with one JSON object per line.

    Objects in an object are joined with `/`: `{"train": {"loss": 0.1}}` is `train/loss`.

    Raises:
        InputError: If the file cannot be read or a line is no JSON object.
    """
    return _find_runs(path, _read_json_rows(path), options, None)


def _read_csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with open_csv(path) as table:
        headings = [unescape_formula(heading) for heading in table.headings]
        chart = _find_chart_columns(headings)
        for line, row in table.rows:
            if len(row) > len(headings):
                raise InputError(f"{path}:{line}: {len(row)} cells under {len(headings)} headings")
            cells = zip(headings, row, strict=False)
            values = {heading: _parse_cell(cell, table.decimal_comma) for heading, cell in cells if cell.strip()}
            if chart:
                yield from _split_chart_row(values, headings[0], chart)
            else:
                yield values


def _find_chart_columns(headings: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return run and metric by heading for a chart that W&B exported: `Step`, then `RUN - METRIC` with its bounds.

    Empty for any other table.
    """
    columns = [heading for heading in headings[1:] if not heading.endswith(("__MIN", "__MAX"))]
    matches = {column: _CHART_COLUMN.fullmatch(column) for column in columns}
    bounds = {f"{column}{bound}" for column in columns for bound in ("__MIN", "__MAX")}
    if not columns or {*columns, *bounds} != {*headings[1:]}:
        return {}
    return {column: (match["run"], match["metric"]) for column, match in matches.items() if match is not None}


def _split_chart_row(
    row: Mapping[str, Any], axis: str, columns: Mapping[str, tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each run that has values in a row of a chart."""
    values: dict[str, dict[str, Any]] = {}
    for column, (run, metric) in columns.items():
        if column in row and axis in row and metric != "_step":
            values.setdefault(run, {axis: row[axis], "run": run})[metric] = row[column]
    yield from values.values()


def _parse_cell(cell: str, decimal_comma: bool) -> object:
    """Return a cell as a number, truth value, list or text; a missing value is NaN."""
    text = cell.strip()
    number = text.replace(",", ".") if decimal_comma else text
    if text.lower() in MISSING:
        return math.nan
    try:
        return int(number)
    except ValueError:
        pass
    try:
        return float(number)
    except ValueError:
        pass
    if text in ("true", "false", "True", "False"):
        return text.lower() == "true"
    if text.startswith("[") and text.endswith("]"):
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return unescape_formula(cell)


def _read_json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield dict(flatten(_parse_line(line, f"{path}:{number}"), "/"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8: {error}") from error


def _parse_line(line: str, where: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON object: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{where}: a JSON object with one value per metric was expected")
    return document


def _find_runs(
    path: Path, rows: Iterable[dict[str, Any]], options: TableOptions, label: str | None
) -> Iterator[FoundRun]:
    """Read the table, and yield its runs in the order of their first rows."""
    runs: dict[str, _Run] = {}
    for row in rows:
        lower = {key.lower(): key for key in row}
        run_column = _find_column(options.run, RUN_COLUMNS, row, lower, path)
        step_column = _find_column(options.step, STEP_COLUMNS, row, lower, path)
        name = str(row[run_column]) if run_column in row else label or path.stem
        _add_row(runs.setdefault(name, _Run()), row, run_column, step_column, path)
    if not runs:
        raise InputError(f"{path}: no rows; nothing was imported")
    for name, run in runs.items():
        yield FoundRun(name, partial(_to_source_run, run, name, path), [path])


def _find_column(
    named: str | None, candidates: Iterable[str], row: Mapping[str, Any], lower: Mapping[str, str], path: Path
) -> str | None:
    """Return the column that the user named, else the first of the candidates, else None. Raises InputError."""
    if named is not None:
        if named not in row and named.lower() not in lower:
            raise InputError(f"{path}: no column `{named}`{did_you_mean(named, row)}")
        return named if named in row else lower[named.lower()]
    return next((lower[candidate] for candidate in candidates if candidate in lower), None)


def _add_row(run: _Run, row: dict[str, Any], run_column: str | None, step_column: str | None, path: Path) -> None:
    run.first = run.first or json.dumps(row, sort_keys=True, default=str)
    if row.keys() >= _LABBENCH_COLUMNS:
        _add_labbench_row(run, row)
        return
    step, wall = run.n_rows, math.nan
    if step_column is not None:
        number = row[step_column]
        if not isinstance(number, int | float) or not float(number).is_integer():
            raise InputError(f"{path}: the step {number!r} in the column `{step_column}` is not an integer")
        step = int(number)
    run.n_rows += 1
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key.lower() in TIME_COLUMNS and isinstance(value, int | float):
            wall = value
        elif isinstance(value, str | list | bool):
            run.config.setdefault(key, value)
        elif key not in (run_column, step_column) and not _INDEX.fullmatch(key.lower()):
            values[key] = value
    if step_column is not None and step_column.lower() == "epoch":
        values.setdefault("epoch", step)
    run.config.pop(run_column or "", None)
    run.points.add_values(values, step, wall)


def _add_labbench_row(run: _Run, row: dict[str, Any]) -> None:
    """Add a row of a table that labbench has exported."""
    run.labels = {"name": str(row["name"]), "experiment": str(row["experiment"])}
    values = {_metric_of_heading(key): value for key, value in row.items() if key not in _LABBENCH_COLUMNS}
    run.points.add_values(values, int(row["step"]), float(row["time"]))


def _metric_of_heading(heading: str) -> str:
    """Return the metric of a column; the prefix sets a metric apart from the first columns."""
    metric = heading.removeprefix("metric.")
    return metric if metric in _LABBENCH_COLUMNS else heading


def _to_source_run(run: _Run, name: str, path: Path) -> SourceRun:
    if run.labels:  # known by its key, as in every other export
        return SourceRun(name, run.labels["name"], run.labels["experiment"], run.points.series(0.0))
    digest = hashlib.sha256(run.first.encode("utf-8", "replace")).hexdigest()[:16]
    started = run.points.started
    return SourceRun(
        id=f"{path.stem} {name} {digest}",
        name=name,
        experiment=path.resolve().parent.name if name == path.stem else path.stem,
        series=run.points.series(started),
        config=run.config,
        started=started,
        finished=run.points.finished,
        skipped=run.points.skipped,
    )
