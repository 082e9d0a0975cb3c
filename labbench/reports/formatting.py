"""Format set-ups, numbers and intervals for reports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from labbench.analysis.answer import Answer
from labbench.analysis.intervals import Interval
from labbench.analysis.table import freeze, is_number
from labbench.text import clean, format_number, format_setting

OFF_AT_ZERO = {"dropout", "momentum", "weight_decay", "label_noise"}
"""Parameters whose 0 reads as "no dropout"."""


Levels: TypeAlias = Mapping[str, Sequence[Any]]
"""The values of each parameter that varies."""


def parameter_levels(answer: Answer) -> Levels:
    return {p.name: [effect.value for effect in p.marginal.effects] for p in answer.parameters}


def describe_settings(settings: Mapping[str, Any], levels: Levels) -> str:
    """Settings as people say them: `adam, lr 0.01, batchnorm, no dropout`.

    Parameters that have words as values need no name beside them unless two have the same.
    """
    worded = [name for name in settings if levels.get(name) and all(isinstance(value, str) for value in levels[name])]
    bare = [settings[name] for name in worded]
    return ", ".join(
        format_setting(value)
        if name in worded and bare.count(value) == 1
        else format_named_setting(name, value, levels)
        for name, value in settings.items()
    )


def format_named_setting(name: str, value: Any, levels: Levels) -> str:
    """One setting, with its name."""
    shown = clean(name)
    others = levels.get(name, ())
    if isinstance(value, bool) and all(isinstance(other, bool | None) for other in others):
        return shown if value else f"no {shown}"
    if is_number(value) and value == 0 and name.split(".")[-1] in OFF_AT_ZERO:
        return f"no {shown}"
    return f"{shown} {format_value(value, others)}"


def format_setting_briefly(name: str, value: Any, levels: Levels) -> str:
    """One setting whose name was said: `adam`, `0.01`, `no batchnorm`."""
    others = levels.get(name, ())
    named = value is None or (isinstance(value, bool) and all(isinstance(other, bool | None) for other in others))
    return format_named_setting(name, value, levels) if named else format_value(value, others)


def format_value(value: Any, others: Sequence[Any]) -> str:
    """A value of a parameter that has these values: 1 is told from "1" and true from "true" where both are there."""
    text = _format_plain(value)
    alike = {freeze(other) for other in others if _format_plain(other) == text} - {freeze(value)}
    return clean(json.dumps(value, ensure_ascii=False, default=str)) if alike else text


def _format_plain(value: Any) -> str:
    """At most three digits of a fraction: a random search draws more than anybody reads."""
    if value is None:
        return "not set"
    return (
        format_setting(float(f"{value:.3g}"))
        if isinstance(value, float) and not value.is_integer()
        else format_setting(value)
    )


def format_interval(interval: Interval) -> str:
    """`0.978 [0.974, 0.981]`, or the value alone where the interval is not known or has no width."""
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return use_minus_sign(format_number(interval.mean))
    shown = decimals_for(half_width(interval))
    low, high = format_fixed(interval.low, shown), format_fixed(interval.high, shown)
    return f"{format_fixed(interval.mean, shown)} [{low}, {high}]"


def format_change(interval: Interval) -> str:
    """`+0.004 [−0.001, +0.009]`."""
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return add_plus_sign(interval.mean, format_two_digits(interval.mean))
    shown = decimals_for(half_width(interval))
    mean, low, high = (
        add_plus_sign(value, format_fixed(value, shown)) for value in (interval.mean, interval.low, interval.high)
    )
    return f"{mean} [{low}, {high}]"


def add_plus_sign(value: float, text: str) -> str:
    """A plus before what is more than 0, unless it is shown as 0."""
    return f"+{text}" if value > 0 and text.strip("0.") else text


def format_two_digits(value: float) -> str:
    """A distance of which nothing says how sure it is."""
    return use_minus_sign(format_setting(float(f"{value:.2g}")))


def format_mean(interval: Interval) -> str:
    """The mean alone, with as many digits as its interval is worth."""
    return (
        format_number(interval.mean)
        if interval.low is None
        else format_fixed(interval.mean, decimals_for(half_width(interval)))
    )


def half_width(interval: Interval) -> float:
    """The longer arm of the interval; 0 where it is not known."""
    if interval.low is None or interval.high is None:
        return 0.0
    return max(interval.mean - interval.low, interval.high - interval.mean)


def decimals_for(half: float) -> int | None:
    """Decimals that show one digit of a half-width, two where it starts with 1; None where there is no width."""
    if half <= 0 or not math.isfinite(half):
        return None
    exponent = math.floor(math.log10(half))
    return max(0, -exponent + (half < 2 * 10.0**exponent))


def format_fixed(value: float, decimals: int | None) -> str:
    """With so many decimals; in significant digits where these are None or would fill the line."""
    fills = decimals is None or decimals > 6 or abs(value) >= 1e12
    text = format_number(value) if fills else f"{value:.{decimals}f}"
    return use_minus_sign(text if text.strip("-0.") else text.removeprefix("-"))


def use_minus_sign(text: str) -> str:
    """A number's hyphen as the minus sign it is."""
    return f"−{text[1:]}" if text.startswith("-") else text
