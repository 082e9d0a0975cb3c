"""Runs from a long CSV: a row a point, as `labbench export` writes it, or with `run,metric,step,value` alone."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from labbench.errors import InputError
from labbench.export import unescape_formula
from labbench.store.maintenance.external_runs import Import, ImportedRun
from labbench.store.maintenance.keeper import MaintenanceWriter

_REQUIRED_COLUMNS = ("run", "metric", "step", "value")
_ROWS_PER_BATCH = 100_000
"""Points in memory."""


class CsvPoint(NamedTuple):
    """A row: of which run, and what was logged."""

    run: str
    name: str
    experiment: str
    metric: str
    step: int
    time: float
    """Seconds since the run's start."""
    value: float


def import_csv(database: Path, file: Path) -> tuple[int, int]:
    """Bring in the runs of a CSV file, all or none; returns how many are new, and how many were here already.

    A run that came in before gets the points that are new. Raises InputError, with the line, for what is no long CSV.
    """
    points = read_points(file)
    first = next(points, None)  # what is no CSV at all shall not make a database
    if first is None:
        raise InputError(f"{file}: there are no rows in it")
    with MaintenanceWriter(database) as keeper, keeper.importing() as incoming:
        ids: dict[tuple[str, str], int | None] = {}
        series: dict[tuple[int, str], list[CsvPoint]] = defaultdict(list)
        for number, point in enumerate(chain([first], points), 1):
            place = (point.experiment, point.run)
            if place not in ids:
                ids[place] = incoming.begin(ImportedRun("csv", point.run, point.name, point.experiment))
            if (run_id := ids[place]) is not None:
                series[run_id, point.metric].append(point)
            if number % _ROWS_PER_BATCH == 0:
                _add_series(incoming, series)
                series.clear()
        _add_series(incoming, series)
        return incoming.n_new, incoming.n_known


def read_points(path: Path) -> Iterator[CsvPoint]:
    """The rows of a long CSV, one by one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            headings = next(rows, [])
            for name in _REQUIRED_COLUMNS:
                if name not in headings:
                    columns = "run,name,experiment,metric,step,time,value"
                    raise InputError(f"{path}:1: no column `{name}`; a long CSV has {columns}")
            # a column that may be left out is looked up behind the row
            at = {name: headings.index(name) if name in headings else -1 for name in CsvPoint._fields}
            for row in rows:
                if len(row) != len(headings):
                    raise InputError(f"{path}:{rows.line_num}: {len(row)} cells under {len(headings)} headings")
                try:
                    yield _parse_row([*row, ""], at, path.stem)
                except ValueError as error:
                    raise InputError(f"{path}:{rows.line_num}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: this is no CSV in UTF-8: {error}") from error


def _parse_row(row: Sequence[str], at: Mapping[str, int], file: str) -> CsvPoint:
    """A row of cells. ValueError says what is wrong with it."""
    texts = _run_labels(row[at["run"]], row[at["name"]], row[at["experiment"]], row[at["metric"]], file)
    try:
        step, seconds, value = int(row[at["step"]]), float(row[at["time"]] or 0), float(row[at["value"]])
    except ValueError as error:
        raise ValueError(f"step, time and value must be numbers, the step a whole one ({error})") from None
    if not -(2**53) < step < 2**53 or not abs(seconds) < 2**40:
        raise ValueError(f"step {step} or time {seconds} is out of range")
    return CsvPoint(*texts, step, seconds, value)


@lru_cache(maxsize=1024)  # the same in row after row
def _run_labels(run: str, name: str, experiment: str, metric: str, file: str) -> tuple[str, str, str, str]:
    """What a row belongs to; without a name or experiment it has those of its run and its file."""
    if not run or not metric:
        raise ValueError("a point needs a run and a metric")
    return (
        unescape_formula(run),
        unescape_formula(name or run),
        unescape_formula(experiment) or file,
        unescape_formula(metric),
    )


def _add_series(incoming: Import, series: Mapping[tuple[int, str], list[CsvPoint]]) -> None:
    for (run_id, metric), points in series.items():
        milliseconds = [round(1000 * point.time) for point in points]
        incoming.add(run_id, metric, [point.step for point in points], milliseconds, [point.value for point in points])
