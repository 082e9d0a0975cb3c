"""Export of metrics as the CSV file of a chart on W&B's web page: a row per step, three columns per run and metric.

The columns of a run and a metric are `RUN - METRIC` and its bounds `__MIN` and `__MAX`, which are equal to it.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import TextIO

from labbench.export.table_files import escape_formula
from labbench.filters.parser import RunFilter
from labbench.store.reader import Reader

_BOUNDS = ("", "__MIN", "__MAX")


def write_wandb_chart(
    reader: Reader, filter: RunFilter, file: TextIO, *, metrics: Collection[str] | None = None
) -> None:
    """Write the runs that match a filter as a chart of W&B. All points are held in memory.

    Runs of the same name have their keys in the headings.

    Args:
        file: Open for writing, with `newline=""`.
        metrics: Names of the metrics to write; None writes all.

    Raises:
        InputError: If the filter or a metric is unknown.
    """
    curves: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for run, name, _, metric, points in reader.batches(filter, metrics):
        curves[run, name, metric].update((step, value) for step, _, value in points)
    names = Counter(name for _, name in {(run, name) for run, name, _ in curves})
    headings = ["Step"]
    for run, name, metric in curves:
        label = name if names[name] == 1 else f"{name} ({run})"
        headings += [f"{label} - {metric}{bound}" for bound in _BOUNDS]
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow([escape_formula(heading) for heading in headings])
    for step in sorted({step for curve in curves.values() for step in curve}):
        values = [curve.get(step) for curve in curves.values()]
        cells = ["" if value is None else "NaN" if value != value else value for value in values]
        writer.writerow([step, *(cell for cell in cells for _ in _BOUNDS)])
