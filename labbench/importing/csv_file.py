"""Runs from a long CSV: a row a point, as `labbench export` writes it, or with `run,metric,step,value` alone."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from labbench.errors import InputError
from labbench.export import restored
from labbench.store.importing import ForeignRun, Import
from labbench.store.keeper import Keeper

_NEEDED = ("run", "metric", "step", "value")
_AT_ONCE = 100_000
"""Points in memory."""


class Point(NamedTuple):
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
    with Keeper(database) as keeper, keeper.importing() as incoming:
        ids: dict[tuple[str, str], int | None] = {}
        series: dict[tuple[int, str], list[Point]] = defaultdict(list)
        for number, point in enumerate(chain([first], points), 1):
            place = (point.experiment, point.run)
            if place not in ids:
                ids[place] = incoming.begin(ForeignRun("csv", point.run, point.name, point.experiment))
            if (run_id := ids[place]) is not None:
                series[run_id, point.metric].append(point)
            if number % _AT_ONCE == 0:
                _add(incoming, series)
                series.clear()
        _add(incoming, series)
        return incoming.n_new, incoming.n_known


def read_points(path: Path) -> Iterator[Point]:
    """The rows of a long CSV, one by one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}:1: no column `{missing[0]}`; a long CSV has run,name,experiment,metric,step,time,value"
                )
            for row in rows:
                yield _point(row, f"{path}:{rows.line_num}", experiment=path.stem)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: this is no CSV in UTF-8: {error}") from error


def _point(row: Mapping[str, str | None], place: str, *, experiment: str) -> Point:
    """A row, what may be left out filled in: the name is the run's word, the experiment the file's name, the time 0."""
    if None in row.values() or None in row:
        raise InputError(f"{place}: not as many cells as there are headings")
    cells = {name: cell or "" for name, cell in row.items()}
    texts = {name: restored(cells.get(name, "")) for name in ("run", "name", "experiment", "metric")}
    if not texts["run"] or not texts["metric"]:
        raise InputError(f"{place}: a point needs a run and a metric")
    try:
        step, seconds, value = int(cells["step"]), float(cells.get("time") or 0), float(cells["value"])
        if not -(2**53) < step < 2**53 or not abs(seconds) < 2**40:
            raise ValueError("out of range")
    except ValueError as error:
        raise InputError(f"{place}: step, time and value must be numbers, the step a whole one ({error})") from None
    return Point(
        texts["run"], texts["name"] or texts["run"], texts["experiment"] or experiment, texts["metric"],
        step, seconds, value,
    )  # fmt: skip


def _add(incoming: Import, series: Mapping[tuple[int, str], list[Point]]) -> None:
    for (run_id, metric), points in series.items():
        milliseconds = [round(1000 * point.time) for point in points]
        incoming.add(run_id, metric, [point.step for point in points], milliseconds, [point.value for point in points])
