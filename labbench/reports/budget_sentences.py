"""Format the best of n random configurations: sentences and tables."""

from __future__ import annotations

from labbench.analysis.answer import Answer
from labbench.analysis.tuning.budgets import BudgetComparison, BudgetCurve, BudgetPoint, Separation
from labbench.reports.formatting import (
    decimals_for,
    format_fixed,
    format_setting_briefly,
    parameter_levels,
)
from labbench.reports.tables import ReportTable
from labbench.text import clean, format_number

TABLE_BUDGETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Budgets of the columns of a table; the largest one of a curve is added."""


def budget_sentences(answer: Answer) -> list[str]:
    """Compare values by the best of n random configurations, and describe what the curves are."""
    if not answer.budgets:
        return []
    lines = [
        _separation_sentence(comparison, separation, answer)
        for comparison in answer.budgets
        for separation in comparison.separations
    ]
    return [*lines, _meaning_sentence(answer)]


def _separation_sentence(comparison: BudgetComparison, separation: Separation, answer: Answer) -> str:
    name, levels = comparison.name or "", parameter_levels(answer)
    first, other = (format_setting_briefly(name, value, levels) for value in (separation.better, separation.other))
    start = f"{clean(name)}, best of n random configurations: "
    if separation.budgets is None:
        return f"{start}{first} and {other} are not separated at any n"
    low, high = separation.budgets
    if low == 1:
        return f"{start}{first} is better than {other} up to n = {high}, else not separated"
    budgets = f"{low} to {high}" if high > low else str(low)
    return f"{start}{first} is better than {other} for n = {budgets}, else not separated"


def _meaning_sentence(answer: Answer) -> str:
    metric = clean(answer.metric)
    sentence = (
        f"the best of n is one run's measured {metric}, noise of its seed included; its median has a 95 % band for "
        "all n at once, whatever the distribution, its mean has no interval"
    )
    missing = max(comparison.missing for comparison in answer.budgets)
    return f"{sentence}; {missing} configurations without a result are left out" if missing else sentence


def budget_tables(answer: Answer) -> list[ReportTable]:
    """Return one table of each comparison: median with its band, and mean, by the number of configurations."""
    return [_budget_table(comparison, answer) for comparison in answer.budgets]


def _budget_table(comparison: BudgetComparison, answer: Answer) -> ReportTable:
    largest = max(curve.results for curve in comparison.curves)
    budgets = [n for n in TABLE_BUDGETS if n < largest] + [largest]
    name = clean(comparison.name or "")
    rows = []
    for curve in comparison.curves:
        label = curve_label(comparison, curve, answer)
        points = [_nearest(curve, n) for n in budgets]
        rows.append((f"{label}, median", *(_median_text(point) for point in points)))
        rows.append((f"{label}, mean", *(_mean_text(point) for point in points)))
    title = f"best {clean(answer.metric)} of n random configurations, median [95 % for all n at once]"
    return ReportTable(title, (name, *(f"n = {n}" for n in budgets)), tuple(rows))


def curve_label(comparison: BudgetComparison, curve: BudgetCurve, answer: Answer) -> str:
    """Return the value of a curve as text, with its number of configurations."""
    name = comparison.name
    value = "all" if name is None else format_setting_briefly(name, curve.value, parameter_levels(answer))
    diverged = f", {curve.diverged} {answer.lost}" if curve.diverged else ""
    return f"{value} ({curve.results}{diverged})"


def _nearest(curve: BudgetCurve, n: int) -> BudgetPoint | None:
    """Return the point of budget `n`, or of the nearest one of a long curve; None beyond its end."""
    if n > curve.results:
        return None
    return min(curve.points, key=lambda point: abs(point.n - n))


def _median_text(point: BudgetPoint | None) -> str:
    if point is None:
        return ""
    ends = [end for end in (point.low, point.high) if end is not None]
    decimals = decimals_for((max(ends) - min(ends)) / 20.0) if len(ends) == 2 else None  # two digits of the width
    median, low, high = ("–" if v is None else format_fixed(v, decimals) for v in (point.median, point.low, point.high))
    return f"{median} [{low}, {high}]"


def _mean_text(point: BudgetPoint | None) -> str:
    return "" if point is None else "–" if point.mean is None else format_number(point.mean)
