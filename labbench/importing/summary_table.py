"""Import of tables with one row per run, as `labbench export --summary` writes them.

Of each metric there are the last and the best values, which become points at their steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labbench.errors import InputError
from labbench.export.table_files import unescape_formula
from labbench.importing.file_types.csv_rows import open_csv
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun, parse_time, status_of_export
from labbench.importing.table_file import parse_cell
from labbench.store.queries.export_tables import ORIGIN_COLUMNS

_RUN_COLUMNS = ("run", "name", "experiment", "status", "started", "seconds")
_STEPS = {":last": ":last_step", ":min": ":min_step", ":max": ":max_step"}
"""Ending of the heading of a step, by the ending of the heading of its value."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """Row of a table with one row per run."""

    cells: Mapping[str, str]
    """Cells by heading, without the empty ones."""
    decimal_comma: bool

    def text(self, heading: str) -> str:
        """Return a cell as text; empty if there is none."""
        return unescape_formula(self.cells.get(heading, "").strip())

    def number(self, heading: str) -> float:
        """Return a cell as a number; NaN for anything else."""
        value = self.value(heading) if heading in self.cells else math.nan
        return float(value) if isinstance(value, int | float) else math.nan

    def value(self, heading: str) -> Any:
        """Return a cell as a number, truth value, list or text; words such as `none` are texts."""
        value = parse_cell(self.cells[heading], self.decimal_comma)
        is_word = isinstance(value, float) and math.isnan(value) and self.text(heading).lower() != "nan"
        return self.text(heading) if is_word else value

    def status(self, heading: str) -> tuple[Literal["finished", "failed", "stopped"], str | None]:
        """Return the status of a run that is over, and the reason if it was not."""
        return status_of_export(self.text(heading))


_EARLIER_ORIGIN_COLUMNS = ("code_version", "older_code", "commit", "tags", "note")
"""Last columns of tables that were exported before they had device and hardware."""


def is_summary_table(headings: Sequence[str]) -> bool:
    """Return True for the headings that `labbench export --summary` writes."""
    return tuple(headings[: len(_RUN_COLUMNS)]) == _RUN_COLUMNS


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs of a table that labbench has exported.

    Raises:
        InputError: If the file cannot be read or has no rows.
    """
    headings, rows = read_table(path)
    metrics = [heading.removesuffix(":last") for heading in headings if f"{heading}_step" in headings]
    metrics = [metric for metric in metrics if f"{metric}:last" in headings]
    origin: list[str] = []  # the table of an earlier version without these columns
    for columns in (ORIGIN_COLUMNS, _EARLIER_ORIGIN_COLUMNS):
        last = headings[-len(columns) :]
        if tuple(heading.removeprefix("run.") for heading in last) == columns:
            origin = last
            break
    yield from find_in_rows(rows, lambda row: _read_row(row, metrics, origin), path)


def read_table(path: Path) -> tuple[list[str], list[TableRow]]:
    """Return headings and rows of a table. Raises InputError if the file cannot be read or has no rows."""
    with open_csv(path) as table:
        headings = [unescape_formula(heading) for heading in table.headings]
        rows = []
        for line, row in table.rows:
            if len(row) > len(headings):
                raise InputError(f"{path}:{line}: {len(row)} cells under {len(headings)} headings")
            cells = {heading: cell for heading, cell in zip(headings, row, strict=False) if cell.strip()}
            rows.append(TableRow(cells, table.decimal_comma))
    if not rows:
        raise InputError(f"{path}: no rows; nothing was imported")
    return headings, rows


def find_in_rows(rows: Sequence[TableRow], read: Callable[[TableRow], SourceRun], path: Path) -> Iterator[FoundRun]:
    """Yield the run of each row."""
    for row in rows:
        run = read(row)
        yield FoundRun(run.name, lambda run=run: run, [path])  # type: ignore[misc]


def _read_row(row: TableRow, metrics: Sequence[str], origin: Sequence[str]) -> SourceRun:
    points = RunCollector()
    for metric in metrics:
        for value, step in _STEPS.items():
            if math.isfinite(number := row.number(metric + step)):
                points.add(metric, int(number), row.number(metric + value))
    of_metrics = tuple(f"{metric}:" for metric in metrics)
    settings = [heading for heading in row.cells if not heading.startswith(of_metrics)]
    keys = {heading: _key_of_heading(heading) for heading in settings if heading not in {*_RUN_COLUMNS, *origin}}
    started, seconds = parse_time(row.text("started")), row.number("seconds")
    status, reason = row.status("status")
    return SourceRun(
        id=row.text("run"),
        name=row.text("name"),
        experiment=row.text("experiment"),
        series=points.series(0.0),
        config={key: row.value(heading) for heading, key in keys.items()},
        status=status,
        reason=reason,
        started=started,
        finished=None if started is None or math.isnan(seconds) else started + seconds,
        skipped=points.skipped,
        has_last_values=True,
        is_partial=True,
    )


def _key_of_heading(heading: str) -> str:
    """Return the key of a column; the prefix sets a key apart from the first columns."""
    key = heading.removeprefix("config.")
    return key if key in _RUN_COLUMNS else heading
