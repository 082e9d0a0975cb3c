"""Import of a long CSV, one row per point, as written by `labbench export` or with `run,metric,step,value` only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from labbench.errors import InputError
from labbench.export.table_files import unescape_formula
from labbench.importing.file_types.csv_rows import MISSING, CsvTable, open_csv
from labbench.importing.source_run import FoundRun, PointCollector, SourceRun
from labbench.importing.summary_table import TableRow
from labbench.store.queries.run_sql import storable_text

_REQUIRED_COLUMNS = ("run", "metric", "step", "value")


class CsvPoint(NamedTuple):
    """Row of a long CSV: a run and one logged point."""

    run: str
    name: str
    experiment: str
    metric: str
    step: int
    time: float
    """Seconds since the start of the run."""
    value: float


def is_long(headings: Sequence[str]) -> bool:
    """Return True for the headings of a long CSV."""
    return {"metric", "value"} <= {heading.lower() for heading in headings}


@dataclass
class _Run:
    name: str
    points: dict[str, PointCollector] = field(default_factory=dict)
    """Points by metric."""
    extras: dict[str, str] | None = None
    """Cells of further columns that are equal in all rows; `labbench export --config` writes the settings there."""

    def add(self, point: CsvPoint, extras: dict[str, str]) -> None:
        """Add a row: its point and the cells of further columns."""
        points = self.points.setdefault(point.metric, PointCollector())
        points.steps.append(point.step)
        points.walls.append(point.time)
        points.values.append(point.value)
        if self.extras is None:
            self.extras = extras
        elif self.extras != extras:
            self.extras = {heading: cell for heading, cell in self.extras.items() if extras[heading] == cell}

    def config(self, *, decimal_comma: bool) -> dict[str, Any]:
        """Return the settings in the further columns."""
        cells = {heading: cell for heading, cell in (self.extras or {}).items() if cell.strip()}
        row = TableRow(cells, decimal_comma)
        return {_key_of_heading(heading): row.value(heading) for heading in cells}


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs of a long CSV, in the order of their first rows. The metrics of a run may be in several files.

    Further columns that have one value in each run are settings. An empty value is NaN.

    Raises:
        InputError: If the file is not a long CSV or has no rows; the message names the line.
    """
    runs: dict[tuple[str, str], _Run] = {}
    with open_csv(path) as table:
        headings = _find_columns(table, path)
        # index -1 is the empty cell appended to each row: an optional column that is missing
        indices = {name: headings.index(name) if name in headings else -1 for name in CsvPoint._fields}
        others = [i for i, heading in enumerate(headings) if heading and heading not in indices]
        extra_headings = [unescape_formula(table.headings[i]) for i in others]
        for line, row in table.rows:
            if len(row) != len(headings):
                raise InputError(f"{path}:{line}: {len(row)} cells under {len(headings)} headings")
            try:
                point = _parse_row([*row, ""], indices, path.stem, decimal_comma=table.decimal_comma)
            except ValueError as error:
                raise InputError(f"{path}:{line}: {error}") from None
            run = runs.setdefault((point.experiment, point.run), _Run(point.name))
            run.add(point, dict(zip(extra_headings, [row[i] for i in others], strict=True)))
    if not runs:
        raise InputError(f"{path}: no rows below the headings; nothing was imported")
    for (experiment, key), run in runs.items():
        config = run.config(decimal_comma=table.decimal_comma)
        yield FoundRun(run.name, partial(_to_source_run, key, experiment, run, config), [path])


def _to_source_run(key: str, experiment: str, run: _Run, config: Mapping[str, Any]) -> SourceRun:
    """Return a run; its times, which are relative to its start, are kept as they are."""
    series = {metric: points.build(0.0, earliest=-math.inf) for metric, points in run.points.items()}
    return SourceRun(key, run.name, experiment, series, config=config, is_partial=True)


def _find_columns(table: CsvTable, path: Path) -> list[str]:
    """Return the headings in lower case. Raises InputError if one is missing."""
    headings = [heading.lower() for heading in table.headings]
    for name in _REQUIRED_COLUMNS:
        if name not in headings:
            columns = "run,name,experiment,metric,step,time,value"
            raise InputError(f"{path}:{table.heading_line}: no column `{name}`; a long CSV has {columns}")
    return headings


def _key_of_heading(heading: str) -> str:
    """Return the key of a column; the prefix sets a key apart from the columns of points."""
    key = heading.removeprefix("config.")
    return key if key in CsvPoint._fields else heading


def _parse_row(row: Sequence[str], indices: Mapping[str, int], file: str, *, decimal_comma: bool) -> CsvPoint:
    """Parse the cells of a row. Raises ValueError if one is invalid."""
    texts = _run_labels(
        row[indices["run"]], row[indices["name"]], row[indices["experiment"]], row[indices["metric"]], file
    )
    numbers = [row[indices[name]].strip() for name in ("step", "time", "value")]
    if decimal_comma:
        numbers = [number.replace(",", ".") for number in numbers]
    try:
        step, seconds = _parse_step(numbers[0]), float(numbers[1] or 0)
        value = math.nan if numbers[2].lower() in MISSING else float(numbers[2])
    except ValueError as error:
        raise ValueError(f"time and value must be numbers, step an integer ({error})") from None
    if not -(2**53) < step < 2**53 or not abs(seconds) < 2**40:
        raise ValueError(f"step {step} or time {seconds} is out of range")
    return CsvPoint(*texts, step, seconds, value)


def _parse_step(text: str) -> int:
    """Return a step; `1.0` is 1. Raises ValueError if it is not an integer."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not number.is_integer():
        raise ValueError(f"step {text}")
    return int(number)


@lru_cache(maxsize=1024)  # consecutive rows mostly have the same labels
def _run_labels(run: str, name: str, experiment: str, metric: str, file: str) -> tuple[str, str, str, str]:
    """Return run, name, experiment and metric of a row.

    The name defaults to the run, the experiment to the name of the file.
    """
    if not run or not metric:
        raise ValueError("the cells `run` and `metric` must not be empty")
    return (
        unescape_formula(run),
        unescape_formula(name or run),
        unescape_formula(experiment) or file,
        storable_text(unescape_formula(metric)),
    )
