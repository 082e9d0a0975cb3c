"""Format configurations, numbers and intervals for reports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from labbench.analysis.answer import Answer, Estimate, ParameterAnswer
from labbench.analysis.intervals import Interval
from labbench.analysis.table import freeze, is_number
from labbench.analysis.tuning.tuned_values import TunedComparison
from labbench.metrics import Goal
from labbench.text import clean, format_number, format_setting

OFF_AT_ZERO = {"dropout", "momentum", "weight_decay", "label_noise"}
"""Parameters whose value 0 is formatted as in "no dropout"."""


MAX_DECIMALS = 6
"""Largest number of decimals."""
Levels: TypeAlias = Mapping[str, Sequence[Any]]
"""Values of each parameter that varies, by name."""


def parameter_levels(answer: Answer) -> Levels:
    """Return the values of each parameter of an answer."""
    return {p.name: [effect.value for effect in p.marginal.effects] for p in answer.parameters}


def is_tuned_on(answer: Answer) -> bool:
    """Return True if configurations are chosen by another metric than the one that judges them."""
    return answer.scope is not None and answer.scope.tuning is not None


def chosen_by(answer: Answer) -> str:
    """Return the metric that configurations are chosen by."""
    tuning = None if answer.scope is None else answer.scope.tuning
    return clean(answer.metric if tuning is None else tuning.metric)


def describe_settings(settings: Mapping[str, Any], levels: Levels) -> str:
    """Format settings as in `adam, lr 0.01, batchnorm, no dropout`.

    A parameter with string values is shown without its name, unless another such parameter has the same value.
    """
    text_valued = [name for name in settings if levels.get(name) and all(isinstance(v, str) for v in levels[name])]
    text_values = [settings[name] for name in text_valued]
    return ", ".join(
        format_setting(value)
        if name in text_valued and text_values.count(value) == 1
        else format_named_setting(name, value, levels)
        for name, value in settings.items()
    )


def format_named_setting(name: str, value: Any, levels: Levels) -> str:
    """Format one setting with its name: `lr 0.01`, `batchnorm`, `no dropout`."""
    name_text = clean(name)
    others = levels.get(name, ())
    if isinstance(value, bool) and all(isinstance(other, bool | None) for other in others):
        return name_text if value else f"no {name_text}"
    if is_number(value) and value == 0 and name.split(".")[-1] in OFF_AT_ZERO:
        return f"no {name_text}"
    return f"{name_text} {format_value(value, others)}"


def format_setting_briefly(name: str, value: Any, levels: Levels) -> str:
    """Format one setting without its name where possible: `adam`, `0.01`, `no batchnorm`."""
    others = levels.get(name, ())
    needs_name = value is None or (isinstance(value, bool) and all(isinstance(other, bool | None) for other in others))
    return format_named_setting(name, value, levels) if needs_name else format_value(value, others)


def format_value(value: Any, others: Sequence[Any]) -> str:
    """Format a value of a parameter, whose values are `others`.

    It becomes JSON if another value has the same text, such as 1 and "1".
    """
    text = _format_plain(value)
    ambiguous = {freeze(other) for other in others if _format_plain(other) == text} - {freeze(value)}
    return clean(json.dumps(value, ensure_ascii=False, default=str)) if ambiguous else text


def _format_plain(value: Any) -> str:
    """Format a value, with at most three significant digits of a fraction."""
    if value is None:
        return "not set"
    return (
        format_setting(float(f"{value:.3g}"))
        if isinstance(value, float) and not value.is_integer()
        else format_setting(value)
    )


def format_interval(interval: Interval, decimals: int | None = None) -> str:
    """Format as `0.978 [0.974, 0.981]`, or the mean alone without an interval or width.

    `decimals` are the decimals of a column on the linear scale (`column_decimals`); default: of the interval.
    """
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return format_fixed(interval.mean, decimals)
    if decimals is not None:
        mean, low, high = (format_fixed(value, decimals) for value in (interval.mean, interval.low, interval.high))
        return f"{mean} [{low}, {high}]"
    low, high = format_like(interval.low, interval), format_like(interval.high, interval)
    return f"{format_like(interval.mean, interval)} [{low}, {high}]"


def format_like(value: float, interval: Interval) -> str:
    """Format a value with the digits that an interval of such values justifies.

    Decimals on the linear scale, significant digits on the log scale, where limits may differ by decades.
    """
    if interval.scale == "log" and interval.low is not None and interval.high is not None:
        return _format_significant(value, interval.low, interval.high)
    return format_fixed(value, _decimals_of(interval))


def column_decimals(intervals: Sequence[Interval]) -> int | None:
    """Return the decimals of a column of intervals, so that all rows have the same; None on the log scale.

    They suit the narrowest interval, but are at most one more than suit the widest.
    """
    if any(interval.scale == "log" for interval in intervals):
        return None
    decimals = [each for interval in intervals if (each := _decimals_of(interval)) is not None]
    return min(max(decimals), min(decimals) + 1) if decimals else None


def effect_decimals(parameter: ParameterAnswer) -> int | None:
    """Return the decimals of the means of a parameter's values (`column_decimals`)."""
    return column_decimals([effect.interval for effect in parameter.marginal.effects if effect.n])


def ranking_decimals(answer: Answer) -> int | None:
    """Return the decimals of the means of the best configurations (`column_decimals`)."""
    return column_decimals([estimate.interval for estimate in answer.ranking])


def tuned_decimals(comparison: TunedComparison, answer: Answer) -> int | None:
    """Return the decimals of the means of all values of a comparison (`column_decimals`).

    Without intervals of their own, under three seeds, they have the decimals of the same results in the ranking.
    """
    decimals = column_decimals([value.interval for value in comparison.values])
    return ranking_decimals(answer) if decimals is None else decimals


def _decimals_of(interval: Interval) -> int | None:
    """Return the decimals that an interval justifies, more if a share below 1 or 100 would be rounded to it."""
    decimals, mean = decimals_for(half_width(interval)), interval.mean
    if decimals is None:
        return None
    for top in (1.0, 100.0):
        while top / 2.0 < mean < top and round(mean, decimals) == top and decimals < MAX_DECIMALS:
            decimals += 1
    return decimals


def _format_significant(value: float, low: float, high: float) -> str:
    """Format with two significant digits, more if the limits are nearer to each other; limits are positive."""
    half_width_of_logarithm = math.log(high / low) / 2.0 if low > 0 and math.isfinite(high) else math.inf
    digits = min(6, max(2, 1 + (decimals_for(half_width_of_logarithm) or 0)))
    if not 1e-4 <= value < 10.0**digits:
        return format_setting(float(f"{value:.{digits}g}"))
    return f"{value:#.{digits}g}".removesuffix(".")


def format_factor(ratio: Interval, goal: Goal) -> str:
    """Format a ratio of better to worse values as a factor of at least 1 if the first one is better: `2.1 [1.8, 2.5]`.

    The ratio is inverted if lower values are better.
    """
    return format_interval(ratio if goal == "max" else _invert(ratio))


def _invert(ratio: Interval) -> Interval:
    low, high = (None if end is None else 1.0 / end if end else math.inf for end in (ratio.high, ratio.low))
    return replace(ratio, mean=1.0 / ratio.mean if ratio.mean else math.inf, low=low, high=high)


def format_change(interval: Interval, decimals: int | None = None) -> str:
    """Format a difference with signs, as `+0.004 [−0.001, +0.009]`, by default with the decimals of the interval."""
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return add_plus_sign(interval.mean, format_two_digits(interval.mean))
    decimals = difference_decimals([interval], decimals)
    mean, low, high = (
        add_plus_sign(value, format_fixed(value, decimals)) for value in (interval.mean, interval.low, interval.high)
    )
    return f"{mean} [{low}, {high}]"


def difference_decimals(intervals: Sequence[Interval], decimals: int | None = None) -> int | None:
    """Return the decimals of differences (default: as in a column), more if a limit would be rounded to 0.

    So the numbers show on which side of 0 a limit lies.
    """
    if decimals is None:
        decimals = decimals_for(half_width(intervals[0])) if len(intervals) == 1 else column_decimals(intervals)
    limits = [end for interval in intervals for end in (interval.low, interval.high) if end]
    enough = (d for d in range(decimals or 0, MAX_DECIMALS + 1) if all(round(end, d) for end in limits))
    return None if decimals is None else next(enough, decimals)


def format_gain(difference: Interval, goal: Goal, ratio: Interval | None = None) -> str:
    """Format a difference as a gain, positive for both goals, or its ratio as `a factor of 2.1 [1.8, 2.5]`.

    The words around a gain that is certain say its sign; numbers of any other gain have signs.
    """
    if ratio is not None:
        return f"a factor of {format_factor(ratio, goal)}"
    difference = orient_difference(difference, goal)
    if difference.low is None:
        return format_two_digits(difference.mean)
    if difference.low > 0:
        return format_interval(difference, difference_decimals([difference]))
    return format_change(difference)


def orient_difference(difference: Interval, goal: Goal) -> Interval:
    """Return a difference as a gain, positive for both goals."""
    if goal == "max":
        return difference
    low, high = difference.low, difference.high
    return Interval(-difference.mean, *((None, None) if low is None or high is None else (-high, -low)))


def add_plus_sign(value: float, text: str) -> str:
    """Prefix `text` with a plus sign if `value` is positive and `text` is not rounded to 0."""
    return f"+{text}" if value > 0 and text.strip("0.") else text


def format_two_digits(value: float) -> str:
    """Format a difference without an interval, with two significant digits."""
    return use_minus_sign(format_setting(float(f"{value:.2g}")))


def format_mean(interval: Interval, decimals: int | None = None) -> str:
    """Format the mean alone, with the decimals of its column, by default those that its interval justifies."""
    if decimals is not None:
        return format_fixed(interval.mean, decimals)
    return format_number(interval.mean) if interval.low is None else format_like(interval.mean, interval)


def half_width(interval: Interval) -> float:
    """Return the distance from the mean to the farther limit, 0 if the interval is unknown."""
    if interval.low is None or interval.high is None:
        return 0.0
    return max(interval.mean - interval.low, interval.high - interval.mean)


def decimals_for(half: float) -> int | None:
    """Return the decimals that show one digit of a half-width, two if it starts with 1.

    Returns None if the width is 0 or not finite.
    """
    if half <= 0 or not math.isfinite(half):
        return None
    exponent = math.floor(math.log10(half))
    return max(0, -exponent + (half < 2 * 10.0**exponent))


def format_fixed(value: float, decimals: int | None) -> str:
    """Format with `decimals` decimals, or with significant digits if None or too long."""
    too_long = decimals is None or decimals > MAX_DECIMALS or abs(value) >= 1e12
    text = format_number(value) if too_long else f"{value:.{decimals}f}"
    return use_minus_sign(text if text.strip("-0.") else text.removeprefix("-"))


def use_minus_sign(text: str) -> str:
    """Replace a leading hyphen by the minus sign U+2212."""
    return f"−{text[1:]}" if text.startswith("-") else text


def effect_labels(parameter: ParameterAnswer) -> list[str]:
    """Return the values of a parameter as text, or its bins as ranges."""
    effects = parameter.marginal.effects
    values = [effect.value for effect in effects]
    return [
        format_value(effect.value, values)
        if effect.span is None
        else f"{format_number(effect.span[0])} to {format_number(effect.span[1])}"
        for effect in effects
    ]


def format_span(span: tuple[float, float] | None) -> str:
    """Format the values of a bin, such as `0.0036–0.022`; empty for none and for a single value."""
    if span is None or span[0] == span[1]:
        return ""
    return "–".join(format_setting(float(f"{edge:.2g}")) for edge in span)


def setup_phrase(estimate: Estimate, answer: Answer) -> str:
    """Describe a configuration by the settings that vary in the grid."""
    return describe_settings(estimate.differing, parameter_levels(answer)) or "the only configuration"


def seeds_phrase(n: int, answer: Answer) -> str:
    """Format a number of seeds, or of runs if their seeds are unknown."""
    return f"{n} {repetition(answer)}{'s' if n != 1 else ''}"


INTERACTIONS = "combinations (interactions)"
"""Name of the share of the variance that parameters explain together only."""


def luck_phrase(answer: Answer) -> str:
    """Return the name of the share of the variance within configurations."""
    return "luck (seeds)" if answer.counts.has_seeds else "luck (repeated runs)"


def repetition(answer: Answer) -> str:
    """Return the noun for a value of a configuration: a seed, or a run if seeds are unknown."""
    return "seed" if answer.counts.has_seeds else "run"


def format_percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def estimate_phrase(estimate: Estimate, answer: Answer) -> str:
    """Format an estimate as `0.978 [0.974, 0.981] over 3 seeds`."""
    interval = estimate.interval
    if estimate.n > 1 and interval.low == interval.high and interval.low is not None:
        return f"{use_minus_sign(format_number(interval.mean))} with each of {seeds_phrase(estimate.n, answer)}"
    return f"{format_interval(interval, ranking_decimals(answer))} over {seeds_phrase(estimate.n, answer)}"
