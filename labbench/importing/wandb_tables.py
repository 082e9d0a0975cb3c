"""Import of the CSV files that W&B's web page exports: a chart, or the table of runs.

A run is known by its displayed name, so that the curves of several charts and the configuration in the table meet in
one run.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun, parse_time
from labbench.importing.summary_table import TableRow, find_in_rows, read_table

_FACTS = frozenset(
    {"Name", "ID", "Agent", "State", "Notes", "User", "Tags", "Created", "Updated", "Runtime", "End Time", "Hostname",
     "Sweep", "Group", "Job Type", "GPU Type", "GPU Count", "Commit", "Github"}
)  # fmt: skip
"""Columns of the table of runs before the configuration and the summary."""
_GROUPS = {"Group": "group", "Job Type": "job_type"}
"""Columns that become keys of the configuration, as in the import of the folders that W&B writes."""
_CURVE = re.compile(r"(?P<run>.+) - (?P<metric>.+)")
"""Heading of a column of a chart; the columns with its bounds in `_BOUNDS` follow it."""
_BOUNDS = ("__MIN", "__MAX")
_METRIC_NAME = re.compile(r"loss|acc|err|auc|f1|score|reward|return|perplexity|ppl|mse|mae|iou|bleu|precision|recall")
_DEFAULT_NAME = re.compile(r"wandb_export_.*")
"""Name of a file that nobody has renamed."""


def is_wandb_table(headings: Sequence[str]) -> bool:
    """Return True for the headings of a chart or a table of runs that W&B has exported."""
    return {"Name", "State", "Created", "Runtime"} <= {*headings} or bool(_find_curves(headings))


def find_runs(path: Path, config: Collection[str] = ()) -> Iterator[FoundRun]:
    """Yield the runs of a chart or a table of runs.

    Args:
        config: Columns of the configuration in a table of runs, if they are known.

    Raises:
        InputError: If the file cannot be read, has no rows, or is a table without metrics.
    """
    headings, rows = read_table(path)
    experiment = "wandb" if _DEFAULT_NAME.fullmatch(path.stem) else path.stem
    if curves := _find_curves(headings):
        for run in _read_chart(rows, headings[0], curves, experiment):
            yield FoundRun(run.name, lambda run=run: run, [path])  # type: ignore[misc]
        return
    count = Counter(row.text("Name") for row in rows)
    repeated = {name for name, number in count.items() if number > 1}
    metrics = _summary_headings(headings, config, path)
    yield from find_in_rows(rows, lambda row: _read_row(row, metrics, experiment, repeated), path)


def _find_curves(headings: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return run and metric by heading for a chart: the axis, then `RUN - METRIC` with its bounds.

    Empty for any other table.
    """
    columns = [heading for heading in headings[1:] if not heading.endswith(_BOUNDS)]
    bounds = {column + bound for column in columns for bound in _BOUNDS}
    if not columns or {*columns, *bounds} != {*headings[1:]}:
        return {}
    matches = {column: _CURVE.fullmatch(column) for column in columns}
    return {column: (match["run"], match["metric"]) for column, match in matches.items() if match is not None}


def _read_chart(
    rows: Sequence[TableRow], axis: str, curves: Mapping[str, tuple[str, str]], experiment: str
) -> Iterator[SourceRun]:
    """Yield the runs of a chart.

    The step is the axis if it is whole numbers, else the curve `_step` that W&B adds, else the number of the point.
    """
    names = dict.fromkeys(run for run, _ in curves.values())
    has_steps = all(row.number(axis).is_integer() for row in rows if axis in row.cells)
    for name in names:
        columns = {metric: column for column, (run, metric) in curves.items() if run == name}
        step_column = axis if has_steps else columns.get("_step", "")
        points = RunCollector()
        for index, row in enumerate(row for row in rows if any(column in row.cells for column in columns.values())):
            number = row.number(step_column)
            values = {metric: row.number(column) for metric, column in columns.items() if column in row.cells}
            values.pop("_step", None)
            if not has_steps and axis in row.cells:
                values[axis] = row.number(axis)
            points.add_values(values, int(number) if math.isfinite(number) else index)
        if points.metrics:
            series = points.series(0.0)
            yield SourceRun(
                name, name, experiment, series, skipped=points.skipped, has_last_values=True, is_partial=True
            )


def _read_row(row: TableRow, metrics: Sequence[str], experiment: str, repeated: Collection[str]) -> SourceRun:
    """Read a row of a table of runs; the values of the summary are at its step, or at step 0."""
    points = RunCollector()
    config: dict[str, Any] = {
        key: text for column, key in _GROUPS.items() if (text := row.text(column)) not in ("", "-")
    }
    step = row.number("_step")
    values = {metric: row.value(metric) for metric in metrics if metric in row.cells}
    points.add_values(values, int(step) if math.isfinite(step) else 0)
    for heading in row.cells:
        if heading not in metrics and heading not in _FACTS and not heading.startswith("_"):
            config[heading] = row.value(heading)
    name, created, seconds = row.text("Name"), row.text("Created"), row.number("Runtime")
    started = parse_time(created)
    status, reason = row.status("State")
    return SourceRun(
        id=f"{name} {row.text('ID') or created}" if name in repeated else name,
        name=name,
        experiment=experiment,
        series=points.series(0.0),
        config=config,
        status=status,
        reason=reason,
        started=started,
        finished=None if started is None or math.isnan(seconds) else started + seconds,
        tags=[tag.strip() for tag in row.text("Tags").split(",") if tag.strip()],
        note=row.text("Notes").strip("-") or None,
        skipped=points.skipped,
        has_last_values=True,
        is_partial=True,
    )


def _summary_headings(headings: Sequence[str], config: Collection[str], path: Path) -> list[str]:
    """Return the headings of the summary.

    W&B sorts the keys of the configuration, and after them the keys of the summary: these begin where the order starts
    again. If that is not clear, the names of common metrics are the summary.

    Args:
        config: Headings that the user named as the configuration; all others are the summary then.

    Raises:
        InputError: If there is no summary.
    """
    keys = [heading for heading in headings if heading not in _FACTS and not heading.startswith("_")]
    if config:
        return [key for key in keys if key not in config]
    for sort_key in (str, str.lower):
        starts = [index for index, pair in enumerate(pairwise(map(sort_key, keys)), 1) if pair[1] < pair[0]]
        if len(starts) == 1:
            return keys[starts[0] :]
    if not (metrics := [key for key in keys if _METRIC_NAME.search(key.lower())]):
        raise InputError(f"{path}: no column has the name of a metric: name those of the configuration with --config")
    return metrics
