"""One spelling for each number of a config: in the names of runs, in columns, legends and sentences."""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

_NUMBER_IN_NAME = re.compile(r"(?<![^\s=,\[])[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![^\s,\]])", re.ASCII)
"""Number that is a word of a name, or a value or an item of a list in it."""
_MAX_DIGITS = 300
"""Most digits of a whole number in a name; the conversion of very long texts is slow."""


def spell_number(value: float) -> str:
    """Return a number exactly; equal numbers, such as 1e6 and 1000000, have the same spelling.

    Examples: `0.001`, `1e-5`, `1e6`, `1234567`. An exponent is used below 0.0001 and from one million, if that is
    shorter.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 1 << 53:  # not every such number is a float
        if abs(value) > sys.float_info.max or int(float(value)) != value:
            return str(value)
        value = float(value)
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    figures = (whole + fraction).lstrip("0")
    power = int(exponent or 0) + len(figures) - len(fraction)  # the number is 0.FIGURES * 10 ** power
    figures = figures.rstrip("0")
    if not figures:
        return "0"
    padded = f"{'0' * (1 - power)}{figures}".ljust(power, "0")
    point = max(1, power)
    plain = f"{padded[:point]}.{padded[point:]}".removesuffix(".")
    scientific = f"{figures[0]}.{figures[1:]}".removesuffix(".") + f"e{power - 1}"
    is_plain = -4 < power <= 6 or len(plain) <= len(scientific)
    return ("-" if value < 0 else "") + (plain if is_plain else scientific)


def spell_value(value: Any) -> str:
    """Return a config value as JSON without spaces; `spell_number` writes its numbers, also in lists."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(spell_value, value))}]"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return spell_number(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def respell_numbers(name: str) -> str:
    """Return the name of a run with its numbers as `spell_number` writes them: `lr=1e6 s0` for `lr=1000000.0 s0`."""

    def respell(match: re.Match[str]) -> str:
        number = match[0]
        is_whole = number.lstrip("+-").isdigit() and len(number) <= _MAX_DIGITS
        return spell_number(int(number) if is_whole else float(number))

    return _NUMBER_IN_NAME.sub(respell, name)
