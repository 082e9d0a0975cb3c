"""Tables of an answer as text cells, for terminal and HTML."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labbench.analysis.answer import Answer, Estimate, HeatMap, ParameterAnswer
from labbench.analysis.costs import Basin
from labbench.analysis.intervals import Scale
from labbench.analysis.setup_costs import Efficiency, SetupCosts
from labbench.analysis.tuning.tuned_values import MIN_INTERVAL_SEEDS, TunedComparison, TunedValue
from labbench.reports.formatting import (
    chosen_by,
    column_decimals,
    describe_settings,
    difference_decimals,
    effect_decimals,
    effect_labels,
    format_change,
    format_factor,
    format_fixed,
    format_interval,
    format_like,
    format_mean,
    format_setting_briefly,
    format_two_digits,
    format_value,
    is_tuned_on,
    orient_difference,
    parameter_levels,
    ranking_decimals,
    repetition,
    tuned_decimals,
    use_minus_sign,
)
from labbench.text import cell_width, clean, fit_to_width, format_duration, format_number, format_setting

COLUMN_GAP = "   "
STAR = "★"
DIVERGED_SIGN = "✗"
"""Prefix of the number of diverged runs."""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table with a title.

    All cells are cleaned text, the first column is left-aligned.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: tuple[int, int] | None = None
    """Row and column of the best cell in a table of means."""
    shades: tuple[tuple[float | None, ...], ...] = ()
    """Shade of each cell in a table of means, without the first column: 0 (worst) to 1 (best); None without mean."""
    note: str = ""
    """Sentence below the table."""


def other_tables(answer: Answer, efficiency: Efficiency | None) -> list[ReportTable]:
    """Return all tables except the configurations: two-way means, learning rates, costs."""
    tables = [
        *(_heat_map_table(answer, heat_map) for heat_map in answer.heat_maps),
        _rate_ranges_table(answer),
        _costs_table(answer, efficiency),
    ]
    return [table for table in tables if table is not None]


def table_lines(table: ReportTable, columns: int) -> list[str]:
    """Format a table as aligned lines of at most `columns` cells."""
    rows = [table.header, *(_row_with_star(table, index) for index in range(len(table.rows)))]
    widths = [max(cell_width(row[i]) for row in rows) for i in range(len(table.header))]
    lines = [
        COLUMN_GAP.join(
            fit_to_width(cell, width, right=i > 0) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    fitted = [fit_to_width(line.rstrip(), columns).rstrip() for line in lines]
    return [*fitted, *(textwrap.wrap(table.note, columns) if table.note else [])]


def _row_with_star(table: ReportTable, index: int) -> tuple[str, ...]:
    row = table.rows[index]
    if table.best is None or table.best[0] != index:
        return row
    return tuple(f"{STAR} {cell}" if i == table.best[1] else cell for i, cell in enumerate(row))


def effects_table(answer: Answer, parameter: ParameterAnswer) -> ReportTable:
    """Return the table of the means at each value of a parameter, averaged over the others."""
    effects, decimals = parameter.marginal.effects, effect_decimals(parameter)
    rows = tuple(
        (
            clean(label),
            format_interval(effect.interval, decimals) if effect.n else "no result",
            str(effect.n),
            f"{DIVERGED_SIGN} {effect.diverged}" if effect.diverged else "",
        )
        for label, effect in zip(effect_labels(parameter), effects, strict=True)
    )
    header = (clean(parameter.name), clean(answer.metric), "runs", "diverged")
    return ReportTable(f"{clean(parameter.name)}: means over the rest of the grid", header, rows)


def tuned_tables(answer: Answer) -> list[ReportTable]:
    """Return a table of the values of each categorical parameter, each at its own best setting."""
    return [_tuned_table(answer, comparison) for comparison in answer.tuned]


def _tuned_table(answer: Answer, comparison: TunedComparison) -> ReportTable:
    levels, decimals = parameter_levels(answer), tuned_decimals(comparison, answer)
    behind = [value.behind for value in comparison.values if value.behind is not None]
    behind_decimals = difference_decimals(behind, column_decimals(behind))
    rows = tuple(
        (
            format_setting_briefly(comparison.name, value.value, levels),
            format_interval(value.interval, decimals),
            _behind_cell(value, answer, behind_decimals),
            str(value.settings),
            describe_settings(value.chosen, levels) or "the only setting",
        )
        for value in comparison.values
    )
    name, metric = clean(comparison.name), clean(answer.metric)
    limits = " [95 %]" if comparison.seeds >= MIN_INTERVAL_SEEDS else ""
    header = (name, f"{metric}{limits}", f"behind the first{limits}", "settings", "chosen with all seeds")
    title = f"{name}: each value at its own best setting, judged on seeds that did not choose it"
    return ReportTable(title, header, rows)


def _behind_cell(value: TunedValue, answer: Answer, decimals: int | None) -> str:
    """Format the distance of a value from the first one: a difference with signs, or as `× 2.1 [1.8, 2.5]`."""
    if value.behind is None:
        return ""
    if value.ratio is not None:
        return f"× {format_factor(value.ratio, answer.goal)}"
    return format_change(orient_difference(value.behind, answer.goal), decimals)


def setups_table(answer: Answer) -> ReportTable | None:
    """Return the table of the best configurations and their results.

    Returns None for fewer than two.
    """
    if len(answer.ranking) < 2:
        return None
    with_iqm = any(estimate.iqm is not None for estimate in answer.ranking)
    with_lost = any(estimate.diverged for estimate in answer.ranking)
    mean, spread = ("geometric mean", "sd as factor") if answer.scale == "log" else ("mean", "sd")
    iqm = ["IQM"] if with_iqm else []
    scores = [] if answer.ranking[0].score is None else [chosen_by(answer)]
    header = ("configuration", *scores, f"{mean} [95 %]", "median", *iqm, spread, f"{repetition(answer)}s")
    rows = tuple(_setup_row(estimate, answer, with_iqm, with_lost) for estimate in answer.ranking)
    best = "" if len(rows) == answer.counts.setups else f"best {len(rows)} of {answer.counts.setups} "
    title = f"{best}configurations by {chosen_by(answer)}{f', judged by {clean(answer.metric)}' if scores else ''}"
    lost = [answer.lost] if with_lost else []
    return ReportTable(title, (*header, *lost, "time per run"), rows, note=_selection_note(answer))


def _selection_note(answer: Answer) -> str:
    """Say why the interval of the first row is wider than elsewhere; "" if it is not."""
    if answer.best is None or answer.best.selected_among < 2 or answer.best.interval.low is None:
        return ""
    among = answer.best.selected_among
    return f"The interval of the first row is wider than elsewhere: it was picked among {among} that could have won."


def _setup_row(estimate: Estimate, answer: Answer, with_iqm: bool, with_lost: bool) -> tuple[str, ...]:
    decimals = ranking_decimals(answer)
    return (
        describe_settings(estimate.differing, parameter_levels(answer)) or "the only configuration",
        *([] if estimate.score is None else [use_minus_sign(format_number(estimate.score))]),
        format_interval(estimate.interval, decimals),
        format_like(estimate.median, estimate.interval)
        if decimals is None
        else format_fixed(estimate.median, decimals),
        *(["" if estimate.iqm is None else format_fixed(estimate.iqm, decimals)] if with_iqm else []),
        _spread_cell(estimate, decimals),
        str(estimate.n),
        *([f"{estimate.diverged} of {estimate.runs}"] if with_lost else []),
        _format_seconds(estimate.seconds),
    )


def _spread_cell(estimate: Estimate, decimals: int | None) -> str:
    """Format a standard deviation with one decimal more than the means."""
    if estimate.spread_factor is not None:
        return format_setting(float(f"{estimate.spread_factor:.3g}"))
    if estimate.spread is None or decimals is None:
        return "" if estimate.spread is None else format_two_digits(estimate.spread)
    return format_fixed(estimate.spread, decimals + 1)


def _heat_map_table(answer: Answer, heat_map: HeatMap) -> ReportTable:
    """Return the means by two parameters.

    The best cell, without diverged runs if possible, has a star.
    """
    table = heat_map.table
    means = [[cell.interval.mean if cell.n else None for cell in line] for line in table.cells]
    measured = [mean for line in means for mean in line if mean is not None]
    stable = [cell.interval.mean for line in table.cells for cell in line if cell.n and not cell.diverged]
    top, bottom = (max(measured), min(measured)) if answer.goal == "max" else (min(measured), max(measured))
    best = (max if answer.goal == "max" else min)(stable or measured)

    decimals = column_decimals([cell.interval for line in table.cells for cell in line if cell.interval.mean == best])

    def shade(mean: float | None) -> float | None:
        return None if mean is None else _position(mean, bottom, top, answer.scale)

    def cell_text(row: int, column: int) -> str:
        cell = table.cells[row][column]
        if cell.n:
            return format_mean(cell.interval, decimals) + (f" {DIVERGED_SIGN}{cell.diverged}" if cell.diverged else "")
        return answer.lost if cell.diverged else "–" if cell.runs else ""

    names = tuple(clean(name) for name in heat_map.names)
    rows = tuple(
        (format_value(value, table.rows), *(cell_text(row, column) for column in range(len(table.columns))))
        for row, value in enumerate(table.rows)
    )
    stars = [(r, c) for r, line in enumerate(means) for c, mean in enumerate(line) if mean == best]
    star = heat_map.best or next(iter(stars), None)
    header = (f"{names[0]} \\ {names[1]}", *(format_value(value, table.columns) for value in table.columns))
    shades = tuple(tuple(shade(mean) for mean in line) for line in means)
    lost = f" ({DIVERGED_SIGN} {answer.lost})" if any(cell.diverged for line in table.cells for cell in line) else ""
    title = f"{clean(answer.metric)} by {names[0]} and {names[1]}, mean over the rest{lost}"
    if heat_map.best is not None:
        (row, column), levels = heat_map.best, parameter_levels(answer)
        best_cell = dict(zip(heat_map.names, (table.rows[row], table.columns[column]), strict=True))
        title += f"; best by {chosen_by(answer)}: {describe_settings(best_cell, levels)}"
    return ReportTable(title, header, rows, None if star is None else (star[0], star[1] + 1), shades)


def _position(value: float, bottom: float, top: float, scale: Scale) -> float:
    """Return the position of a value between two others, 0 to 1; 1 if they are equal."""
    if scale == "log" and min(value, bottom, top) > 0:
        value, bottom, top = math.log(value), math.log(bottom), math.log(top)
    return (value - bottom) / (top - bottom) if top != bottom else 1.0


def _rate_ranges_table(answer: Answer) -> ReportTable | None:
    """Return the range of usable learning rates under each value of the other parameters."""
    if not answer.rate_ranges:
        return None
    rate = clean(answer.rate_ranges[0].rate)
    levels = parameter_levels(answer)
    rows = tuple(
        (f"{clean(row.name)} {format_value(row.value, levels.get(row.name, ()))}", *_basin_cells(row.basin))
        for row in answer.rate_ranges
    )
    best = f"best {chosen_by(answer)}" if is_tuned_on(answer) else "best"
    title = f"{rate} within 5 % of the {best}, other parameters tuned"
    return ReportTable(title, ("with", f"best {rate}", "from", "to", "decades"), rows)


def _basin_cells(basin: Basin | None) -> tuple[str, ...]:
    if basin is None:
        return ("none", "", "", "")
    low = f"≤ {format_setting(basin.low)}" if basin.open_below else format_setting(basin.low)
    high = f"≥ {format_setting(basin.high)}" if basin.open_above else format_setting(basin.high)
    return (format_setting(basin.best), low, high, f"{basin.decades:.1f}")


def _costs_table(answer: Answer, efficiency: Efficiency | None) -> ReportTable | None:
    """Return steps, samples and seconds to reach the target, fastest configuration first."""
    if efficiency is None or not efficiency.setups:
        return None
    axes = list(efficiency.setups[0].reached)
    decimals = column_decimals([costs.area for costs in efficiency.setups if costs.area is not None])
    rows = tuple(
        (
            describe_settings(costs.differing, parameter_levels(answer)) or "the only configuration",
            f"{costs.reached['steps'].reached} of {costs.reached['steps'].runs}",
            *(_format_cost(costs, axis) for axis in axes),
            "" if costs.area is None else format_interval(costs.area, decimals),
        )
        for costs in efficiency.setups
    )
    title = f"cost of reaching {clean(answer.metric)} {target_text(efficiency)}, median over {repetition(answer)}s"
    return ReportTable(title, ("configuration", "runs reaching it", *axes, "mean of the curve [95 %]"), rows)


def target_text(efficiency: Efficiency) -> str:
    """Format the target with up to four significant digits."""
    return format_setting(float(f"{efficiency.target:.4g}"))


def _format_cost(costs: SetupCosts, axis: Any) -> str:
    median = costs.reached[axis].median
    if median is None:
        return "–"
    return _format_seconds(median) if axis == "seconds" else format_setting(round(median))


def _format_seconds(seconds: float | None) -> str:
    return f"{seconds:#.2g}s" if seconds is not None and 0 < seconds < 0.95 else format_duration(seconds)


def text_block(table: ReportTable, columns: int) -> Sequence[str]:
    """Return a blank line, the title and the indented lines of a table."""
    return ["", table.title, *(f"  {line}" for line in table_lines(table, columns - 2))]
