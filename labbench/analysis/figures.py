"""Numbers in sentences: as many digits as their intervals are worth, and a minus sign that is one."""

from __future__ import annotations

import math

from labbench.analysis.intervals import Interval
from labbench.text import number, setting


def with_interval(interval: Interval) -> str:
    """`0.978 [0.974, 0.981]`, or the value alone where the interval is not known or has no width."""
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return with_minus(number(interval.mean))
    shown = digits(half_width(interval))
    return f"{fixed(interval.mean, shown)} [{fixed(interval.low, shown)}, {fixed(interval.high, shown)}]"


def change(interval: Interval) -> str:
    """`+0.004 [−0.001, +0.009]`."""
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return signed(interval.mean, two_digits(interval.mean))
    shown = digits(half_width(interval))
    mean, low, high = (signed(value, fixed(value, shown)) for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def signed(value: float, text: str) -> str:
    """A plus before what is more than 0, unless it is shown as 0."""
    return f"+{text}" if value > 0 and text.strip("0.") else text


def two_digits(value: float) -> str:
    """A distance of which nothing says how sure it is."""
    return with_minus(setting(float(f"{value:.2g}")))


def short(interval: Interval) -> str:
    """The mean alone, with as many digits as its interval is worth."""
    return number(interval.mean) if interval.low is None else fixed(interval.mean, digits(half_width(interval)))


def half_width(interval: Interval) -> float:
    """The longer arm of the interval; 0 where it is not known."""
    if interval.low is None or interval.high is None:
        return 0.0
    return max(interval.mean - interval.low, interval.high - interval.mean)


def digits(half: float) -> int | None:
    """Decimals that show one digit of a half-width, two where it starts with 1; None where there is no width."""
    if half <= 0 or not math.isfinite(half):
        return None
    exponent = math.floor(math.log10(half))
    return max(0, -exponent + (half < 2 * 10.0**exponent))


def fixed(value: float, decimals: int | None) -> str:
    """With so many decimals; in significant digits where these are None or would fill the line."""
    fills = decimals is None or decimals > 6 or abs(value) >= 1e12
    text = number(value) if fills else f"{value:.{decimals}f}"
    return with_minus(text if text.strip("-0.") else text.removeprefix("-"))


def with_minus(text: str) -> str:
    """A number's hyphen as the minus sign it is."""
    return f"−{text[1:]}" if text.startswith("-") else text
