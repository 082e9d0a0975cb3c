"""An answer's tables as plain text cells, for the terminal and for a page: set-ups, two-way means, rates, costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labbench.analysis.answer import Answer, Estimate, HeatMap
from labbench.analysis.costs import Basin
from labbench.analysis.intervals import Interval
from labbench.analysis.setup_costs import Efficiency, Spending
from labbench.reports.formatting import describe, levels_of, short, two_digits, value_text, with_interval
from labbench.text import clean, duration, fit, number, setting, width

GAP = "   "
STAR = "★"
LOST = "✗"
"""Before the number of runs that diverged."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A titled table; every cell is cleaned text. The first column has words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: tuple[int, int] | None = None
    """(row, column) of the best cell, in a table of means."""
    shades: tuple[tuple[float | None, ...], ...] = ()
    """Of a table of means, by row and column but the first: 0 for the worst to 1 for the best; None for no mean."""


def other_tables(answer: Answer, spent: Efficiency | None) -> list[Sheet]:
    """What there is beside the set-ups: means by two parameters, learning rates, costs."""
    found = [*(_two_way(answer, heat_map) for heat_map in answer.heat_maps), _rates(answer), _costs(answer, spent)]
    return [sheet for sheet in found if sheet is not None]


def sheet_lines(sheet: Sheet, columns: int) -> list[str]:
    """The table as aligned text, no line longer than `columns`."""
    table = [sheet.header, *(_starred(sheet, index) for index in range(len(sheet.rows)))]
    sizes = [max(width(row[place]) for row in table) for place in range(len(sheet.header))]
    lines = [
        GAP.join(fit(cell, size, right=place > 0) for place, (cell, size) in enumerate(zip(row, sizes, strict=True)))
        for row in table
    ]
    return [fit(line.rstrip(), columns).rstrip() for line in lines]


def _starred(sheet: Sheet, index: int) -> tuple[str, ...]:
    row = sheet.rows[index]
    if sheet.best is None or sheet.best[0] != index:
        return row
    return tuple(f"{STAR} {cell}" if place == sheet.best[1] else cell for place, cell in enumerate(row))


def setups_table(answer: Answer) -> Sheet | None:
    """The best set-ups by name, with everything that is known of each."""
    if len(answer.ranking) < 2:
        return None
    many = any(estimate.iqm is not None for estimate in answer.ranking)
    lost = any(estimate.diverged for estimate in answer.ranking)
    header = ("set-up", "mean [95 %]", "median", *(["IQM"] if many else []), "sd", "seeds")
    rows = tuple(_setup(estimate, answer, many, lost) for estimate in answer.ranking)
    shown = "the set-ups" if len(rows) == answer.counts.setups else f"the best {len(rows)} of {answer.counts.setups}"
    title = f"{shown} by {clean(answer.metric)}"
    return Sheet(title, (*header, *([answer.lost] if lost else []), "time a run"), rows)


def _setup(estimate: Estimate, answer: Answer, many: bool, lost: bool) -> tuple[str, ...]:
    return (
        describe(estimate.differing, levels_of(answer)) or "the only set-up",
        with_interval(estimate.interval),
        short(Interval(estimate.median, estimate.interval.low, estimate.interval.high)),
        *([number(estimate.iqm)] if many else []),
        "" if estimate.spread is None else two_digits(estimate.spread),
        str(estimate.n),
        *([f"{estimate.diverged} of {estimate.runs}"] if lost else []),
        _seconds(estimate.seconds),
    )


def _two_way(answer: Answer, heat_map: HeatMap) -> Sheet:
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
            return short(cell.interval) + (f" {LOST}{cell.diverged}" if cell.diverged else "")
        return answer.lost if cell.diverged else "–" if cell.runs else ""

    names = tuple(clean(name) for name in heat_map.names)
    rows = tuple(
        (value_text(value, table.rows), *(cell_text(row, column) for column in range(len(table.columns))))
        for row, value in enumerate(table.rows)
    )
    place = next(((r, c + 1) for r, line in enumerate(means) for c, mean in enumerate(line) if mean == best), None)
    header = (f"{names[0]} \\ {names[1]}", *(value_text(value, table.columns) for value in table.columns))
    shades = tuple(tuple(shade(mean) for mean in line) for line in means)
    lost = f" ({LOST} {answer.lost})" if any(cell.diverged for line in table.cells for cell in line) else ""
    title = f"{clean(answer.metric)} by {names[0]} and {names[1]}, mean over the rest{lost}"
    return Sheet(title, header, rows, place, shades)


def _rates(answer: Answer) -> Sheet | None:
    """How forgiving each value of a parameter is towards the learning rate."""
    if not answer.rate_ranges:
        return None
    rate = clean(answer.rate_ranges[0].rate)
    levels = levels_of(answer)
    rows = tuple(
        (f"{clean(found.name)} {value_text(found.value, levels.get(found.name, ()))}", *_basin(found.basin))
        for found in answer.rate_ranges
    )
    title = f"{rate} within 5 % of the best, the rest tuned"
    return Sheet(title, ("with", f"best {rate}", "from", "to", "decades"), rows)


def _basin(basin: Basin | None) -> tuple[str, ...]:
    if basin is None:
        return ("none", "", "", "")
    low = f"≤ {setting(basin.low)}" if basin.open_below else setting(basin.low)
    high = f"≥ {setting(basin.high)}" if basin.open_above else setting(basin.high)
    return (setting(basin.best), low, high, f"{basin.decades:.1f}")


def _costs(answer: Answer, spent: Efficiency | None) -> Sheet | None:
    """Steps, samples and seconds to the target, the quickest set-ups first."""
    if spent is None or not spent.setups:
        return None
    axes = list(spent.setups[0].reached)
    rows = tuple(
        (
            describe(one.differing, levels_of(answer)) or "the only set-up",
            f"{one.reached['steps'].reached} of {one.reached['steps'].runs}",
            *(_cost(one, axis) for axis in axes),
            "" if one.area is None else with_interval(one.area),
        )
        for one in spent.setups
    )
    title = f"cost to {clean(answer.metric)} {target_text(spent)}, median over seeds"
    return Sheet(title, ("set-up", "runs there", *axes, "mean of the curve [95 %]"), rows)


def target_text(spent: Efficiency) -> str:
    """The target in as many digits as a person would give it."""
    return setting(float(f"{spent.target:.4g}"))


def _cost(spending: Spending, axis: Any) -> str:
    median = spending.reached[axis].median
    if median is None:
        return "–"
    return _seconds(median) if axis == "seconds" else setting(float(f"{median:.6g}"))


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.2g}s" if seconds is not None and 0 < seconds < 0.95 else duration(seconds)


def text_block(sheet: Sheet, columns: int) -> Sequence[str]:
    """Title and indented lines."""
    return ["", sheet.title, *(f"  {line}" for line in sheet_lines(sheet, columns - 2))]
