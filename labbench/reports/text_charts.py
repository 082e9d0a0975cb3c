"""An answer as figures of text: what matters how much as bars, each value's mean and interval on one scale.

Shared by `labbench why` and the TUI; standard library only, but for the answer itself.
"""

from __future__ import annotations

import math

from labbench.analysis.answer import Answer, ParameterAnswer
from labbench.analysis.effects import Effect
from labbench.reports.formatting import format_interval, format_value
from labbench.reports.sentences import MODEL_METHODS
from labbench.text import cell_width, clean, fit_to_width, format_number, progress_bar

_BAR_CELLS = 24
_PLOT_CELLS = 40


def importance_rows(answer: Answer) -> list[tuple[str, float, str]]:
    """(name, share of the variance, its interval in words) of each parameter, then of what the parameters leave."""
    known = [one for one in answer.parameters if one.importance is not None]
    rows = [
        (clean(one.name), one.importance.mean, _percent_interval(one)) for one in known if one.importance is not None
    ]
    if answer.shares is not None:
        seeds = answer.shares.seeds
        left = max(0.0, 1.0 - sum(share for _, share, _ in rows) - (seeds or 0.0))
        # a model cannot tell interactions of three from anything else, an additive one not even those of two
        told = answer.shares.interactions if answer.shares.method in MODEL_METHODS else left
        rows += [("interactions", told, "")] if told or answer.shares.method not in MODEL_METHODS else []
        rows += [("other", max(0.0, left - told), "")] if answer.shares.method in MODEL_METHODS else []
        rows += [("seeds", seeds, "")] if seeds is not None else []
    return rows


def importance_lines(answer: Answer) -> list[str]:
    """A line a parameter: its share of the variance as a bar, with its interval, then what the parameters leave."""
    rows = importance_rows(answer)
    room = max((cell_width(name) for name, _, _ in rows), default=0)
    most = max((share for _, share, _ in rows), default=0.0) or 1.0
    return [
        f"{fit_to_width(name, room)}  {progress_bar(share / most, _BAR_CELLS)} {share:>4.0%}  {interval}".rstrip()
        for name, share, interval in rows
    ]


def _percent_interval(parameter: ParameterAnswer) -> str:
    found = parameter.importance
    if found is None or found.low is None or found.high is None:
        return ""
    return f"[{found.low:.0%}, {found.high:.0%}]"


def effect_lines(answer: Answer, parameter: ParameterAnswer, columns: int = 100) -> list[str]:
    """A line a value: the mean over the rest of the grid with its interval, in numbers and on a scale all share."""
    effects = parameter.marginal.effects
    scale = _shared_scale(answer)
    names = effect_labels(parameter)
    room = max(map(cell_width, names), default=0)
    means = [format_interval(effect.interval) if effect.n else "no result" for effect in effects]
    wide = max(map(len, means), default=0)
    known = [effect.interval.mean for effect in effects if effect.n]
    best = (min if answer.goal == "min" else max)(known, default=math.nan)
    cells = _PLOT_CELLS if columns >= room + wide + _PLOT_CELLS + 24 else 0
    lines = []
    for effect, name, mean in zip(effects, names, means, strict=True):
        star = "★" if effect.n and effect.interval.mean == best else " "
        runs = f"{effect.n} run{'s' if effect.n != 1 else ''}" + (
            f", {effect.diverged} diverged" if effect.diverged else ""
        )
        plot = f"{_draw_interval(effect, scale, cells)}  " if cells else ""
        lines.append(f"{star} {fit_to_width(name, room)}  {plot}{mean.ljust(wide)}  {runs}")
    return lines


def scale_line(answer: Answer) -> str:
    """What the ends of the scale of `effect_lines` are."""
    low, high = _shared_scale(answer)
    return f"{format_number(low)} … {format_number(high)}"


def effect_labels(parameter: ParameterAnswer) -> list[str]:
    """The values of a parameter, or the bins that stand for them."""
    effects = parameter.marginal.effects
    values = [effect.value for effect in effects]
    return [
        format_value(effect.value, values)
        if effect.span is None
        else f"{format_number(effect.span[0])} to {format_number(effect.span[1])}"
        for effect in effects
    ]


def _shared_scale(answer: Answer) -> tuple[float, float]:
    """From the lowest to the highest end of all intervals."""
    ends = [
        end
        for parameter in answer.parameters
        for effect in parameter.marginal.effects
        if effect.n
        for end in (effect.interval.low, effect.interval.mean, effect.interval.high)
        if end is not None and math.isfinite(end)
    ]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _draw_interval(effect: Effect, scale: tuple[float, float], cells: int) -> str:
    """An interval as a line with its mean as a dot."""
    line = [" "] * cells
    if effect.n:
        low, high = effect.interval.low, effect.interval.high
        if low is not None and high is not None:
            for place in range(_cell_index(low, scale, cells), _cell_index(high, scale, cells) + 1):
                line[place] = "─"
        line[_cell_index(effect.interval.mean, scale, cells)] = "●"
    return "".join(line)


def _cell_index(value: float, scale: tuple[float, float], cells: int) -> int:
    low, high = scale
    share = (value - low) / (high - low) if high > low else 0.5
    return round(min(1.0, max(0.0, share)) * (cells - 1))
