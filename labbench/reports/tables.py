"""An answer's tables as plain text cells, for the terminal and for a page: set-ups, two-way means, rates, costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labbench.analysis.answer import Answer, Estimate, HeatMap
from labbench.analysis.costs import Basin
from labbench.analysis.intervals import Interval
from labbench.analysis.setup_costs import Efficiency, SetupCosts
from labbench.reports.formatting import (
    describe_settings,
    format_interval,
    format_mean,
    format_two_digits,
    format_value,
    parameter_levels,
)
from labbench.text import cell_width, clean, fit_to_width, format_duration, format_number, format_setting

COLUMN_GAP = "   "
STAR = "★"
DIVERGED_SIGN = "✗"
"""Before the number of runs that diverged."""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A titled table; every cell is cleaned text. The first column has words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: tuple[int, int] | None = None
    """(row, column) of the best cell, in a table of means."""
    shades: tuple[tuple[float | None, ...], ...] = ()
    """Of a table of means, by row and column but the first: 0 for the worst to 1 for the best; None for no mean."""


def other_tables(answer: Answer, spent: Efficiency | None) -> list[ReportTable]:
    """What there is beside the set-ups: means by two parameters, learning rates, costs."""
    found = [
        *(_heat_map_table(answer, heat_map) for heat_map in answer.heat_maps),
        _rate_ranges_table(answer),
        _costs_table(answer, spent),
    ]
    return [sheet for sheet in found if sheet is not None]


def table_lines(sheet: ReportTable, columns: int) -> list[str]:
    """The table as aligned text, no line longer than `columns`."""
    table = [sheet.header, *(_row_with_star(sheet, index) for index in range(len(sheet.rows)))]
    sizes = [max(cell_width(row[place]) for row in table) for place in range(len(sheet.header))]
    lines = [
        COLUMN_GAP.join(
            fit_to_width(cell, size, right=place > 0) for place, (cell, size) in enumerate(zip(row, sizes, strict=True))
        )
        for row in table
    ]
    return [fit_to_width(line.rstrip(), columns).rstrip() for line in lines]


def _row_with_star(sheet: ReportTable, index: int) -> tuple[str, ...]:
    row = sheet.rows[index]
    if sheet.best is None or sheet.best[0] != index:
        return row
    return tuple(f"{STAR} {cell}" if place == sheet.best[1] else cell for place, cell in enumerate(row))


def setups_table(answer: Answer) -> ReportTable | None:
    """The best set-ups by name, with everything that is known of each."""
    if len(answer.ranking) < 2:
        return None
    many = any(estimate.iqm is not None for estimate in answer.ranking)
    lost = any(estimate.diverged for estimate in answer.ranking)
    header = ("set-up", "mean [95 %]", "median", *(["IQM"] if many else []), "sd", "seeds")
    rows = tuple(_setup_row(estimate, answer, many, lost) for estimate in answer.ranking)
    shown = "the set-ups" if len(rows) == answer.counts.setups else f"the best {len(rows)} of {answer.counts.setups}"
    title = f"{shown} by {clean(answer.metric)}"
    return ReportTable(title, (*header, *([answer.lost] if lost else []), "time a run"), rows)


def _setup_row(estimate: Estimate, answer: Answer, many: bool, lost: bool) -> tuple[str, ...]:
    return (
        describe_settings(estimate.differing, parameter_levels(answer)) or "the only set-up",
        format_interval(estimate.interval),
        format_mean(Interval(estimate.median, estimate.interval.low, estimate.interval.high)),
        *([format_number(estimate.iqm)] if many else []),
        "" if estimate.spread is None else format_two_digits(estimate.spread),
        str(estimate.n),
        *([f"{estimate.diverged} of {estimate.runs}"] if lost else []),
        _format_seconds(estimate.seconds),
    )


def _heat_map_table(answer: Answer, heat_map: HeatMap) -> ReportTable:
    """Means by two parameters, the best starred."""
    table = heat_map.table
    means = [[cell.interval.mean if cell.n else None for cell in line] for line in table.cells]
    known = [mean for line in means for mean in line if mean is not None]
    steady = [cell.interval.mean for line in table.cells for cell in line if cell.n and not cell.diverged]
    top, bottom = (max(known), min(known)) if answer.goal == "max" else (min(known), max(known))
    best = (max if answer.goal == "max" else min)(steady or known)

    def shade(mean: float | None) -> float | None:
        return None if mean is None else (mean - bottom) / (top - bottom) if top != bottom else 1.0

    def cell_text(row: int, column: int) -> str:
        cell = table.cells[row][column]
        if cell.n:
            return format_mean(cell.interval) + (f" {DIVERGED_SIGN}{cell.diverged}" if cell.diverged else "")
        return answer.lost if cell.diverged else "–" if cell.runs else ""

    names = tuple(clean(name) for name in heat_map.names)
    rows = tuple(
        (format_value(value, table.rows), *(cell_text(row, column) for column in range(len(table.columns))))
        for row, value in enumerate(table.rows)
    )
    place = next(((r, c + 1) for r, line in enumerate(means) for c, mean in enumerate(line) if mean == best), None)
    header = (f"{names[0]} \\ {names[1]}", *(format_value(value, table.columns) for value in table.columns))
    shades = tuple(tuple(shade(mean) for mean in line) for line in means)
    lost = f" ({DIVERGED_SIGN} {answer.lost})" if any(cell.diverged for line in table.cells for cell in line) else ""
    title = f"{clean(answer.metric)} by {names[0]} and {names[1]}, mean over the rest{lost}"
    return ReportTable(title, header, rows, place, shades)


def _rate_ranges_table(answer: Answer) -> ReportTable | None:
    """How forgiving each value of a parameter is towards the learning rate."""
    if not answer.rate_ranges:
        return None
    rate = clean(answer.rate_ranges[0].rate)
    levels = parameter_levels(answer)
    rows = tuple(
        (f"{clean(found.name)} {format_value(found.value, levels.get(found.name, ()))}", *_basin_cells(found.basin))
        for found in answer.rate_ranges
    )
    title = f"{rate} within 5 % of the best, the rest tuned"
    return ReportTable(title, ("with", f"best {rate}", "from", "to", "decades"), rows)


def _basin_cells(basin: Basin | None) -> tuple[str, ...]:
    if basin is None:
        return ("none", "", "", "")
    low = f"≤ {format_setting(basin.low)}" if basin.open_below else format_setting(basin.low)
    high = f"≥ {format_setting(basin.high)}" if basin.open_above else format_setting(basin.high)
    return (format_setting(basin.best), low, high, f"{basin.decades:.1f}")


def _costs_table(answer: Answer, spent: Efficiency | None) -> ReportTable | None:
    """Steps, samples and seconds to the target, the quickest set-ups first."""
    if spent is None or not spent.setups:
        return None
    axes = list(spent.setups[0].reached)
    rows = tuple(
        (
            describe_settings(one.differing, parameter_levels(answer)) or "the only set-up",
            f"{one.reached['steps'].reached} of {one.reached['steps'].runs}",
            *(_format_cost(one, axis) for axis in axes),
            "" if one.area is None else format_interval(one.area),
        )
        for one in spent.setups
    )
    title = f"cost to {clean(answer.metric)} {target_text(spent)}, median over seeds"
    return ReportTable(title, ("set-up", "runs there", *axes, "mean of the curve [95 %]"), rows)


def target_text(spent: Efficiency) -> str:
    """The target in as many digits as a person would give it."""
    return format_setting(float(f"{spent.target:.4g}"))


def _format_cost(spending: SetupCosts, axis: Any) -> str:
    median = spending.reached[axis].median
    if median is None:
        return "–"
    return _format_seconds(median) if axis == "seconds" else format_setting(float(f"{median:.6g}"))


def _format_seconds(seconds: float | None) -> str:
    return f"{seconds:.2g}s" if seconds is not None and 0 < seconds < 0.95 else format_duration(seconds)


def text_block(sheet: ReportTable, columns: int) -> Sequence[str]:
    """Title and indented lines."""
    return ["", sheet.title, *(f"  {line}" for line in table_lines(sheet, columns - 2))]
