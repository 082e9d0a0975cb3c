"""Text charts of an answer: importance as bars, means and intervals of each value on a common scale.

Used by `labbench why` and the TUI.
"""

from __future__ import annotations

import math

from labbench.analysis.answer import Answer, ParameterAnswer
from labbench.analysis.effects import Effect
from labbench.analysis.intervals import Interval
from labbench.reports.formatting import INTERACTIONS, effect_decimals, effect_labels, format_interval, luck_phrase
from labbench.reports.sentences.parameter_sentences import MODEL_METHODS
from labbench.text import cell_width, clean, fit_to_width, format_number, progress_bar

IMPORTANCE_TITLE = "where the differences come from"
_BAR_CELLS = 24
_PLOT_CELLS = 40


def importance_rows(answer: Answer) -> list[tuple[str, float, str]]:
    """Return (name, share of the variance, interval as text) per parameter, then interactions, other and seeds."""
    rows = [
        (clean(parameter.name), parameter.importance.mean, _percent_interval(parameter.importance))
        for parameter in answer.parameters
        if parameter.importance is not None
    ]
    if answer.shares is not None:
        seeds = answer.shares.seeds
        remainder = max(0.0, 1.0 - sum(share for _, share, _ in rows) - (seeds or 0.0))
        # a forest estimates interactions of two parameters only, an additive model none
        is_model = answer.shares.method in MODEL_METHODS
        interactions = answer.shares.interactions if is_model else remainder
        rows += [(INTERACTIONS, interactions, "")] if interactions or not is_model else []
        rows += [("unexplained", max(0.0, remainder - interactions), "")] if is_model else []
        rows += [(luck_phrase(answer), seeds, "")] if seeds is not None else []
    return rows


def importance_lines(answer: Answer) -> list[str]:
    """Return one line per row of `importance_rows`: name, bar, share and interval."""
    rows = importance_rows(answer)
    width = max((cell_width(name) for name, _, _ in rows), default=0)
    most = max((share for _, share, _ in rows), default=0.0) or 1.0
    return [
        f"{fit_to_width(name, width)}  {progress_bar(share / most, _BAR_CELLS)} {share:>4.0%}  {interval}".rstrip()
        for name, share, interval in rows
    ]


def _percent_interval(share: Interval) -> str:
    return "" if share.low is None or share.high is None else f"[{share.low:.0%}, {share.high:.0%}]"


def effect_lines(answer: Answer, parameter: ParameterAnswer, columns: int = 100) -> list[str]:
    """Return one line per value: plot, mean, interval, number of runs.

    Means are over the rest of the grid, plots on the scale of all parameters. The plot is left out if a line would
    exceed `columns`.
    """
    effects, decimals = parameter.marginal.effects, effect_decimals(parameter)
    scale = _shared_scale(answer)
    names = effect_labels(parameter)
    name_width = max(map(cell_width, names), default=0)
    means = [format_interval(effect.interval, decimals) if effect.n else "no result" for effect in effects]
    mean_width = max(map(len, means), default=0)
    measured = [effect.interval.mean for effect in effects if effect.n]
    best = (min if answer.goal == "min" else max)(measured, default=math.nan)
    cells = _PLOT_CELLS if columns >= name_width + mean_width + _PLOT_CELLS + 24 else 0
    lines = []
    for effect, name, mean in zip(effects, names, means, strict=True):
        star = "★" if effect.n and effect.interval.mean == best else " "
        runs = _runs_phrase(effect, answer.lost)
        plot = f"{_draw_interval(effect, scale, cells, is_log=answer.scale == 'log')}  " if cells else ""
        lines.append(f"{star} {fit_to_width(name, name_width)}  {plot}{mean.ljust(mean_width)}  {runs}")
    return lines


def _runs_phrase(effect: Effect, lost: str) -> str:
    """Format the numbers of runs of a value: `2 runs, 1 diverged`, or `2 runs diverged` if none has a result."""
    lost_phrase = f"{effect.diverged} {lost}" if effect.n else f"{_count_runs(effect.diverged)} {lost}"
    parts = [_count_runs(effect.n)] if effect.n or not effect.diverged else []
    return ", ".join([*parts, lost_phrase] if effect.diverged else parts)


def _count_runs(n: int) -> str:
    return f"{n} run{'s' if n != 1 else ''}"


def scale_line(answer: Answer) -> str:
    """Format the two ends of the scale of `effect_lines`."""
    low, high = _shared_scale(answer)
    return f"{format_number(low)} … {format_number(high)}{', log scale' if answer.scale == 'log' else ''}"


def _shared_scale(answer: Answer) -> tuple[float, float]:
    """Return the lowest and the highest limit of all intervals."""
    ends = [
        end
        for parameter in answer.parameters
        for effect in parameter.marginal.effects
        if effect.n
        for end in (effect.interval.low, effect.interval.mean, effect.interval.high)
        if end is not None and math.isfinite(end) and (end > 0 or answer.scale == "linear")
    ]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _draw_interval(effect: Effect, scale: tuple[float, float], cells: int, *, is_log: bool) -> str:
    """Draw an interval as a line of `cells` characters, with its mean as a dot."""

    def cell_index(value: float) -> int:
        return _cell_index(value, scale, cells, is_log=is_log)

    line = [" "] * cells
    if effect.n:
        low, high = effect.interval.low, effect.interval.high
        if low is not None and high is not None:
            for i in range(cell_index(low), cell_index(high) + 1):
                line[i] = "─"
        line[cell_index(effect.interval.mean)] = "●"
    return "".join(line)


def _cell_index(value: float, scale: tuple[float, float], cells: int, *, is_log: bool) -> int:
    low, high = scale
    if is_log:
        low, high, value = math.log(low), math.log(high), math.log(min(max(value, low), high))
    share = (value - low) / (high - low) if high > low else 0.5
    return round(min(1.0, max(0.0, share)) * (cells - 1))
