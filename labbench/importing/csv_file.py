"""Import of a long CSV, one row per point, as written by `labbench export` or with `run,metric,step,value` only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from labbench.errors import InputError
from labbench.export.table_files import unescape_formula
from labbench.importing.file_types.csv_rows import MISSING, open_csv
from labbench.store.maintenance.external_runs import Import, ImportedRun
from labbench.store.maintenance.keeper import open_for_import

_REQUIRED_COLUMNS = ("run", "metric", "step", "value")
_ROWS_PER_BATCH = 100_000
"""Points held in memory at most."""


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


def is_long(path: Path) -> bool:
    """Return True if a CSV file has the columns of a long one. Raises InputError if it cannot be read."""
    with open_csv(path) as table:
        return {"metric", "value"} <= {heading.lower() for heading in table.headings}


def import_csv(database: Path, file: Path, *, experiment: str | None = None) -> tuple[int, int]:
    """Import the runs of a long CSV file in one transaction.

    A run that was imported before gets the new points.

    Returns:
        The number of new runs and the number of runs that were in the database already.

    Raises:
        InputError: If the file is not a long CSV; the message names the line. Nothing is imported.
        StoreError: If the database cannot be written.
    """
    points = read_points(file)
    first = next(points, None)  # before the database is created: an invalid file must not create one
    if first is None:
        raise InputError(f"{file}: no rows below the headings; nothing was imported")
    with open_for_import(database) as writer, writer.importing() as importer:
        ids: dict[tuple[str, str], int | None] = {}
        series: dict[tuple[int, str], list[CsvPoint]] = defaultdict(list)
        for number, point in enumerate(chain([first], points), 1):
            label = (point.experiment if experiment is None else experiment, point.run)
            if label not in ids:
                ids[label] = importer.begin(ImportedRun("csv", point.run, point.name, label[0]))
            if (run_id := ids[label]) is not None:
                series[run_id, point.metric].append(point)
            if number % _ROWS_PER_BATCH == 0:
                _add_series(importer, series)
                series.clear()
        _add_series(importer, series)
        return importer.n_new, importer.n_known


def read_points(path: Path) -> Iterator[CsvPoint]:
    """Yield the rows of a long CSV.

    Columns are separated by commas, semicolons, tabs or bars. Empty lines are skipped, and an empty value is NaN.

    Raises:
        InputError: If the file cannot be read or is not a long CSV; the message names the line.
    """
    with open_csv(path) as table:
        headings = [heading.lower() for heading in table.headings]
        for name in _REQUIRED_COLUMNS:
            if name not in headings:
                columns = "run,name,experiment,metric,step,time,value"
                raise InputError(f"{path}:{table.heading_line}: no column `{name}`; a long CSV has {columns}")
        # index -1 is the empty cell appended to each row: an optional column that is missing
        indices = {name: headings.index(name) if name in headings else -1 for name in CsvPoint._fields}
        for line, row in table.rows:
            if len(row) != len(headings):
                raise InputError(f"{path}:{line}: {len(row)} cells under {len(headings)} headings")
            try:
                yield _parse_row([*row, ""], indices, path.stem, decimal_comma=table.decimal_comma)
            except ValueError as error:
                raise InputError(f"{path}:{line}: {error}") from None


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
        unescape_formula(metric),
    )


def _add_series(importer: Import, series: Mapping[tuple[int, str], list[CsvPoint]]) -> None:
    for (run_id, metric), points in series.items():
        milliseconds = [round(1000 * point.time) for point in points]
        importer.add(run_id, metric, [point.step for point in points], milliseconds, [point.value for point in points])
