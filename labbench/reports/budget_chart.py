"""Draw the best of n random configurations as an SVG element of the HTML page: medians with their bands."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

from labbench.analysis.answer import Answer
from labbench.analysis.tuning.budgets import BudgetComparison, BudgetCurve
from labbench.reports.budget_sentences import curve_label
from labbench.text import clean, format_number

WIDTH, HEIGHT, LEFT, MARGIN = 960, 320, 64, 28
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Colour-blind safe palette of Okabe and Ito (2008), as of the page's curves."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Ranges of the axes: budgets from 1 on, on a log scale, and values."""

    largest: int
    bottom: float
    top: float
    is_log: bool
    """True for a logarithmic axis of values; all values are positive."""

    def x(self, n: int) -> float:
        """Return the horizontal position of a budget."""
        return LEFT + math.log(n) / math.log(self.largest) * (WIDTH - LEFT - MARGIN)

    def y(self, value: float) -> float:
        """Return the vertical position of a value."""
        bottom, top, value = (
            map(math.log, (self.bottom, self.top, max(value, self.bottom)))
            if self.is_log
            else (self.bottom, self.top, value)
        )
        share = (value - bottom) / ((top - bottom) or 1.0)
        return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)


def budget_svg(comparison: BudgetComparison, answer: Answer) -> str:
    """Return the curves of a comparison over a logarithmic axis of budgets; an open band ends at the frame.

    The axis of values is logarithmic for losses that are compared by their logarithms.
    """
    is_log = answer.scale == "log"
    points = [point for curve in comparison.curves for point in curve.points]
    values = [v for point in points for v in (point.median, point.low, point.high) if v is not None]
    values = [value for value in values if value > 0] if is_log else values
    if not values:
        return ""
    frame = _Frame(max(2, *(curve.results for curve in comparison.curves)), min(values), max(values), is_log)
    curves = "".join(
        _draw_curve(curve, frame, index, html.escape(clean(curve_label(comparison, curve, answer))))
        for index, curve in enumerate(comparison.curves)
    )
    label = html.escape(f"best {clean(answer.metric)} by number of random configurations")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{_draw_axes(frame)}{curves}</svg>'


def _draw_curve(curve: BudgetCurve, frame: _Frame, index: int, label: str) -> str:
    colour = COLOURS[index % len(COLOURS)]

    def corner(n: int, value: float) -> str:
        return f"{frame.x(n):.1f},{frame.y(value):.1f}"

    highs = [corner(p.n, frame.top if p.high is None else p.high) for p in curve.points]
    lows = [corner(p.n, frame.bottom if p.low is None else p.low) for p in curve.points]
    medians = [corner(p.n, p.median) for p in curve.points if p.median is not None]
    return (
        f'<polygon points="{" ".join(highs + lows[::-1])}" fill="{colour}" opacity=".13"/>'
        f'<polyline points="{" ".join(medians)}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        f'<text x="{LEFT + 8}" y="{MARGIN + 16 * index}" style="fill:{colour}">{label}</text>'
    )


def _draw_axes(frame: _Frame) -> str:
    ticks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= frame.largest]
    parts = [f'<text x="{frame.x(n):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{n}</text>' for n in ticks]
    middle = math.sqrt(frame.bottom * frame.top) if frame.is_log else (frame.bottom + frame.top) / 2
    for value in (frame.bottom, middle, frame.top):
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{html.escape(format_number(value))}</text>'
        )
    return "".join(parts)
