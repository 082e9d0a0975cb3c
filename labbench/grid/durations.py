"""Durations in grid files: "2h", "90m", "1h30m" or a number of seconds."""

from __future__ import annotations

import re
from typing import Any

from labbench.grid.checks import BadValueError, convert_value, quote_value
from labbench.params.param import Param

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def parse_duration(value: Any) -> Any:
    """Parse a duration in seconds: "2h", "90m", "1h30m", "30s", or a number.

    Raises:
        BadValueError: It is none of these, or not above 0.
    """
    if isinstance(value, str):
        if not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", value):
            raise BadValueError(f'must be a time such as "2h", "90m" or "30s", not {quote_value(value)}')
        value = sum(float(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"[\d.]+[dhms]", value))
    return convert_value(Param("float", None, above=0), value)
