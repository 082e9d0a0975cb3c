"""Round ticks of axes: linear, logarithmic, durations and times of day. Standard library only."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ticks:
    """Round values of an axis, ascending, and one label each."""

    values: tuple[float, ...]
    labels: tuple[str, ...]


MAX_AXIS_VALUE = 8e307
"""Largest value of an axis: differences of two such values are finite, as are round values around them."""
MIN_AXIS_EXTENT = 1e-300
"""Narrower ranges count as a single value: steps within them would not be exact."""
MIN_CLOCK_SECONDS, MAX_CLOCK_SECONDS = -62_000_000_000, 253_000_000_000
"""Unix seconds in the years 5 and 9987, near the limits of the calendar functions."""
_SUFFIXES = {3: "k", 6: "M", 9: "G", 12: "T"}
_FINER_STEPS = 4
"""Maximum number of finer steps tried to reach `min_ticks`; reached only for ranges that are too narrow."""
_TIME_STEP_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def linear_ticks(low: float, high: float, max_ticks: int, *, whole: bool = False, min_ticks: int = 0) -> Ticks:
    """Return at most `max_ticks` multiples of 1, 2 or 5 times a power of ten; integers only if `whole`.

    With fewer than `min_ticks` of them, the multiples are finer and evenly thinned, up to `min_ticks` + 1.
    """
    low, high = clamp(low, -MAX_AXIS_VALUE, MAX_AXIS_VALUE), clamp(high, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    if not high - low > MIN_AXIS_EXTENT:
        return Ticks((low,), (f"{low:g}",))
    step = _round_step((high - low) / (max_ticks + 1), whole=whole)
    while _count_multiples(low, high, step) > max_ticks:
        step = _round_step(step * 1.01, whole=whole)
    finer = step
    for _ in range(_FINER_STEPS):
        if _count_multiples(low, high, finer) >= min_ticks:
            step = finer
            break
        finer = _round_step(0.4 * finer, whole=False)
    values = _thin_ticks(_multiples(low, high, step), max_ticks, min_ticks)
    largest = max((abs(value) for value in values), default=0.0)
    power = _label_power(largest)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9) + power)
    labels = [_format_tick(value, power, decimals) for value in values]
    return Ticks(tuple(values), tuple(labels))


def _thin_ticks(values: list[float], max_ticks: int, min_ticks: int) -> list[float]:
    """Return every k-th value, for the smallest k that leaves at most `max_ticks` and at least `min_ticks`."""
    stride = max(1, -(-len(values) // max(1, max_ticks)))
    while stride > 1 and -(-len(values) // stride) < min_ticks:
        stride -= 1
    return values[::stride]


def _label_power(largest: float) -> int:
    """Return the power of ten of labels: of the suffixes k, M, G and T, or of scientific notation."""
    if largest == 0 or 1e-2 <= largest < 1e4:
        return 0
    power = math.floor(math.log10(largest) + 1e-9)
    return 3 * (power // 3) if 3 <= power < 15 else power


def clamp(value: float, low: float, high: float) -> float:
    """Return the value clamped to [low, high]."""
    return min(max(value, low), high)


def _round_step(least: float, *, whole: bool) -> float:
    if not least > 0 or not math.isfinite(least):
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    return max(1.0, step) if whole else step


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = _multiple_range(low, high, step)
    return [index * step for index in range(first, last + 1)]


def _count_multiples(low: float, high: float, step: float) -> int:
    """Return the number of multiples without listing them, as there may be very many."""
    first, last = _multiple_range(low, high, step)
    return last - first + 1


def _multiple_range(low: float, high: float, step: float) -> tuple[int, int]:
    slack = 1e-9 * min(step, high - low)
    return math.ceil((low - slack) / step), math.floor((high + slack) / step)


def _format_tick(value: float, power: int, decimals: int) -> str:
    if value == 0:
        return "0"
    suffix = "" if power == 0 else _SUFFIXES.get(power, f"e{power}")
    return f"{value / 10.0**power:.{decimals}f}{suffix}"


def log_ticks(low: float, high: float, max_ticks: int, *, min_ticks: int = 2) -> Ticks:
    """Return at most `max_ticks` ticks, 0 < low <= high: powers of ten, with 2 and 5 between if they fit.

    With fewer than `min_ticks` of them, values between them are added, up to `min_ticks` + 1.
    """
    low, high = clamp(low, MIN_AXIS_EXTENT, MAX_AXIS_VALUE), clamp(high, MIN_AXIS_EXTENT, MAX_AXIS_VALUE)
    candidates = [_log_multiples(low, high, factors) for factors in ((1, 2, 5), (1, 3), (1,))]
    fitting = [values for values in candidates if min_ticks <= len(values) <= max_ticks]
    sufficient = [values for values in reversed(candidates) if len(values) >= min_ticks]
    values = _thin_ticks(next(iter([*fitting, *sufficient]), []), max_ticks, min_ticks)
    if len(values) < min_ticks:
        return linear_ticks(low, high, max_ticks, min_ticks=min_ticks)
    return Ticks(tuple(values), tuple(_format_log_tick(value) for value in values))


def minor_log_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Return the unlabelled values of a logarithmic axis: 1 to 9 times powers of ten, or 1, 2 and 5 times.

    Returns only powers of ten if more would exceed `max_ticks`, nothing if these do.
    """
    low, high = clamp(low, MIN_AXIS_EXTENT, MAX_AXIS_VALUE), clamp(high, MIN_AXIS_EXTENT, MAX_AXIS_VALUE)
    candidates = [_log_multiples(low, high, factors) for factors in (range(1, 10), (1, 2, 5), (1,))]
    return next((values for values in candidates if len(values) <= max_ticks), [])


def _log_multiples(low: float, high: float, factors: Sequence[int]) -> list[float]:
    """Return the values in the range that are one of `factors` times a power of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [
        factor * 10.0**power
        for power in range(first, last + 1)
        for factor in factors
        if low * (1 - 1e-9) <= factor * 10.0**power <= high * (1 + 1e-9)
    ]


def _format_log_tick(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    if -4 <= power <= 3:
        return f"{value:.{max(0, -power)}f}"
    power = _label_power(value)
    return f"{value / 10.0**power:.0f}{_SUFFIXES.get(power, f'e{power}')}"


def time_ticks(low: float, high: float, max_ticks: int) -> Ticks:
    """Return ticks of durations in seconds, at round seconds, minutes, hours or days: `30s`, `1m30s`, `2h`."""
    low, high = clamp(low, -MAX_AXIS_VALUE, MAX_AXIS_VALUE), clamp(high, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    if high - low <= max_ticks / 2:
        plain = linear_ticks(low, high, max_ticks)
        return Ticks(plain.values, tuple(label if label == "0" else f"{label}s" for label in plain.labels))
    days = 86400 * _round_step((high - low) / max(1, max_ticks - 1) / 86400, whole=True)
    step = next((step for step in _TIME_STEP_SECONDS if _count_multiples(low, high, step) <= max_ticks), days)
    values = _multiples(low, high, step)
    return Ticks(tuple(values), tuple(_format_seconds(round(value)) for value in values))


def _format_seconds(seconds: int) -> str:
    if seconds == 0:
        return "0"
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    parts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return sign + "".join(f"{count}{unit}" for count, unit in parts if count)


def clock_ticks(low: float, high: float, max_ticks: int) -> Ticks:
    """Return ticks of Unix seconds at round local times: `14:05`, `14:05:30`, or `22 Nov` over days."""
    low, high = clamp(low, MIN_CLOCK_SECONDS, MAX_CLOCK_SECONDS), clamp(high, MIN_CLOCK_SECONDS, MAX_CLOCK_SECONDS)
    offset = time.localtime(low).tm_gmtoff
    relative = time_ticks(low + offset, high + offset, max_ticks)
    values = [value - offset for value in relative.values]
    step = values[1] - values[0] if len(values) > 1 else high - low
    form = "%d %b" if step >= 86400 else "%H:%M" if step >= 60 else "%H:%M:%S"
    return Ticks(tuple(values), tuple(time.strftime(form, time.localtime(value)) for value in values))
