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
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from labbench.configs import flatten
from labbench.errors import InputError, did_you_mean
from labbench.export.table_files import unescape_formula
from labbench.importing import exported_lines
from labbench.importing.file_types.csv_rows import MISSING, open_csv
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun
from labbench.store.queries.export_tables import CONFIG_COLUMN

STEP_COLUMNS = ("step", "global_step", "_step", "iteration", "iter", "epoch")
"""Columns that number the rows, best first; compared in lower case."""
RUN_COLUMNS = ("run", "run_id", "run_name")
"""Columns that tell the runs of a table apart, best first."""
TIME_COLUMNS = ("_timestamp", "timestamp", "wall_time", "walltime")
"""Columns with the Unix time in seconds."""
_LABBENCH_COLUMNS = frozenset({"run", "name", "experiment", "step", "time"})
"""Columns of `labbench export --wide`, where `time` is in seconds since the start of the run."""
_INDEX = re.compile(r"(unnamed: \d+)?")
"""Heading of the column of row numbers that pandas writes."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Roles of the columns of a table."""

    step: str | None = None
    """Column of the step; None: the first of `STEP_COLUMNS`, else the number of the row."""
    run: str | None = None
    """Column that names the run; None: the first of `RUN_COLUMNS`, else the file is one run."""
    config: Sequence[str] = ()
    """Columns of the configuration, in addition to those with texts."""
    is_live: bool = False
    """True for a program that ends every line: a last line without a line end is not complete."""


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
    return _find_runs(path, _read_csv_rows(path, options), options, label)


def find_runs_in_jsonl(path: Path, options: TableOptions) -> Iterator[FoundRun]:
    """Yield the runs of a file with one JSON object per line.

    Objects in an object are joined with `/`: `{"train": {"loss": 0.1}}` is `train/loss`.

    Raises:
        InputError: If the file cannot be read or a line is no JSON object.
    """
    documents = _read_json_lines(path)
    first = next(documents, None)
    if first is None:
        raise InputError(f"{path}: no rows; nothing was imported")
    documents = chain([first], documents)
    if exported_lines.is_exported(first):
        return exported_lines.find_runs(documents, path)
    return _find_runs(path, (dict(flatten(document, "/")) for document in documents), options, None)


def _read_csv_rows(path: Path, options: TableOptions) -> Iterator[dict[str, Any]]:
    with open_csv(path, is_live=options.is_live) as table:
        headings = [unescape_formula(heading) for heading in table.headings]
        for line, row in table.rows:
            if len(row) > len(headings):
                raise InputError(f"{path}:{line}: {len(row)} cells under {len(headings)} headings")
            cells = zip_longest(headings, row, fillvalue="")
            yield {heading: parse_cell(cell, table.decimal_comma) if cell.strip() else None for heading, cell in cells}


def parse_cell(cell: str, decimal_comma: bool) -> object:
    """Return a cell of a CSV file as a number, truth value, list, object or text; a missing value is NaN."""
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
    if (text[0], text[-1]) in (("[", "]"), ("{", "}")):
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return unescape_formula(cell)


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (number > 1 and _is_cut(line)):
                    yield _parse_line(line, f"{path}:{number}")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8: {error}") from error


def _is_cut(line: str) -> bool:
    """Return True for a last line that its program is about to complete."""
    return not line.endswith("\n") and not line.rstrip().endswith("}")


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
    run_column = step_column = None
    for row in rows:
        run_column = run_column or _find_column(options.run, RUN_COLUMNS, row)
        step_column = step_column or _find_column(options.step, STEP_COLUMNS, row)
        name = label or path.stem
        if run_column is not None and row.get(run_column) is not None:
            name = str(row[run_column])
        _add_row(runs.setdefault(name, _Run()), row, _Roles(run_column, step_column, options.config), path)
    if not runs:
        raise InputError(f"{path}: no rows; nothing was imported")
    missing = [name for name in options.config if not any(name in run.config for run in runs.values())]
    missing += [
        name for name, column in ((options.run, run_column), (options.step, step_column)) if name and not column
    ]
    if missing:
        raise InputError(f"{path}: no column `{missing[0]}`{did_you_mean(missing[0], row)}")
    for name, run in runs.items():
        yield FoundRun(name, partial(_to_source_run, run, name, path), [path])


def _find_column(named: str | None, candidates: Iterable[str], row: Mapping[str, Any]) -> str | None:
    """Return the column that the user named, or the first of the candidates; None if the row does not have it."""
    if named in row:
        return named
    lower = {key.lower(): key for key in row}
    return next((lower[name.lower()] for name in ([named] if named else candidates) if name.lower() in lower), None)


@dataclass(frozen=True, slots=True)
class _Roles:
    """Columns of a table by what they hold."""

    run: str | None
    step: str | None
    config: Sequence[str]


def _add_row(run: _Run, row: dict[str, Any], roles: _Roles, path: Path) -> None:
    """Add a row. Raises InputError if its step is not an integer."""
    if not run.first:
        run.first = json.dumps(
            {key: value for key, value in row.items() if value is not None}, sort_keys=True, default=str
        )
    if row.keys() >= _LABBENCH_COLUMNS:
        _add_labbench_row(run, row, roles.config, path)
        return
    step, wall = run.n_rows, math.nan
    if roles.step is not None:
        if row.get(roles.step) is None:
            run.points.skipped["rows without a step"] += 1
            return
        step = _read_step(row, roles.step, path)
    run.n_rows += 1
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key.lower() in TIME_COLUMNS and isinstance(value, int | float):
            wall = value
        elif isinstance(value, str | list | dict | bool) or (key in roles.config and value is not None):
            run.config.setdefault(key, value)
        elif key not in (roles.run, roles.step) and not _INDEX.fullmatch(key.lower()):
            values[key] = value
    if roles.step is not None and roles.step.lower() == "epoch":
        values.setdefault("epoch", step)
    run.config.pop(roles.run or "", None)
    run.points.add_values(values, step, wall)


def _read_step(row: Mapping[str, Any], column: str, path: Path) -> int:
    """Return the step of a row. Raises InputError if it is not an integer."""
    match row.get(column):
        case int(number):
            return number
        case float(number) if number.is_integer():
            return int(number)
        case other:
            problem = f"the step {other!r:.80} in the column `{column}` is not an integer"
            raise InputError(f"{path}: {problem}; --step names another column")


def _add_labbench_row(run: _Run, row: dict[str, Any], config_columns: Sequence[str], path: Path) -> None:
    """Add a row of a table that labbench has exported. Raises InputError if its step is not an integer."""
    run.labels = {"name": str(row["name"]), "experiment": str(row["experiment"])}
    settings, settings_columns = _exported_settings(row)
    settings |= {name: row[name] for name in config_columns if row.get(name) is not None}
    run.config |= settings
    others = {*_LABBENCH_COLUMNS, *settings_columns, *config_columns}
    values = {_metric_of_heading(key): value for key, value in row.items() if key not in others}
    time = row["time"]
    wall = time if isinstance(time, int | float) else math.nan
    run.points.add_values(values, _read_step(row, "step", path), wall)


def _exported_settings(row: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return the settings in a row and the columns that hold them, if the last column has the settings as JSON."""
    last = list(row)[-1]
    settings = row[last]
    if last.rpartition(".")[2] != CONFIG_COLUMN or not isinstance(settings, dict):
        return {}, set()
    prefixed = {key: f"config.{key}" for key in settings}
    return dict(settings), {last, *(name if name in row else key for key, name in prefixed.items())}


def _metric_of_heading(heading: str) -> str:
    """Return the metric of a column; the prefix sets a metric apart from the first columns."""
    metric = heading.removeprefix("metric.")
    return metric if metric in _LABBENCH_COLUMNS else heading


def _to_source_run(run: _Run, name: str, path: Path) -> SourceRun:
    if run.labels:  # known by its key, as in every other export
        series, skipped = run.points.series(0.0), run.points.skipped
        labels = run.labels["name"], run.labels["experiment"]
        return SourceRun(name, *labels, series, config=run.config, skipped=skipped, is_partial=True)
    digest = hashlib.sha256(run.first.encode("utf-8", "replace")).hexdigest()[:16]
    run_id = f"{path.stem} {name} {digest}"
    experiment = path.resolve().parent.name if name == path.stem else path.stem
    started = run.points.started
    return SourceRun(
        id=f"{experiment}/{run_id}",
        name=name,
        experiment=experiment,
        series=run.points.series(started),
        config=run.config,
        started=started,
        finished=run.points.finished,
        skipped=run.points.skipped,
        earlier_id=run_id,
        other_ids=[(None, f"{experiment}/{run_id}")],
    )
