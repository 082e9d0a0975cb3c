"""Ranges as axes of a grid: `{ from = 0, to = 1, step = 0.1 }`, `{ from = 1e-4, to = 1, count = 5, log = true }`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from labbench.errors import did_you_mean
from labbench.grid.checks import quote_value
from labbench.grid.other_spellings import read_other_spelling
from labbench.grid.random_draws import KINDS
from labbench.grid.source import GridSource, Table
from labbench.grid.toml_positions import Path

KEYS = ("from", "to", "step", "count", "log")
OTHER_KEYS = {
    **dict.fromkeys(("num", "n", "points"), "; write `count` for the number of values"),
    **dict.fromkeys(("q", "by", "step_size"), "; write `step` for the distance of the values"),
    **dict.fromkeys(("scale", "sampling", "base"), "; write log = true for equal ratios"),
}
"""Hints by the name of an option in other tools."""
MAX_VALUES = 100_000


def replace_ranges(source: GridSource, table: Table, path: Path) -> dict[str, Any]:
    """Return a table of axes with lists in place of its ranges, also in nested tables.

    Raises:
        GridError: A range is invalid, or a distribution of `[random]` is in the table.
    """
    axes: dict[str, Any] = {}
    for key, value in table.items():
        where = (*path, key)
        if not isinstance(value, dict):
            axes[key] = value
        elif _is_range(value):
            axes[key] = _read_range(source, key, value, where)
        elif "task" in source.document and not value.keys().isdisjoint(KINDS):
            kind = next(kind for kind in KINDS if kind in value)
            raise source.error(f"a distribution belongs under [random]: {key} = {{ {kind} = … }}", where)
        else:
            _require_no_other_spelling(source, value, where)
            axes[key] = replace_ranges(source, value, where)
    return axes


def _require_no_other_spelling(source: GridSource, table: Table, path: Path) -> None:
    """Raise GridError if a table cannot be one of axes, and another tool has axes of this form."""
    if all(isinstance(value, list | dict) for value in table.values()):
        return
    key = ".".join(part for part in path[1:] if isinstance(part, str))
    if (other := read_other_spelling(key, table)) is not None:
        raise source.error(other.in_grid(), path)


def _is_range(table: Mapping[str, Any]) -> bool:
    return any(_is_number(table.get(key)) for key in ("from", "to"))


def _read_range(source: GridSource, key: str, table: Mapping[str, Any], path: Path) -> list[int | float]:
    for name, value in table.items():
        if name not in KEYS:
            hint = OTHER_KEYS.get(name) or did_you_mean(name, KEYS) or f"; the keys are {', '.join(KEYS)}"
            raise source.error(f"unknown key `{name}` in the range of `{key}`{hint}", (*path, name), at="key")
        if name == "log" and not isinstance(value, bool):
            raise source.error(f"`log` must be true or false, not {quote_value(value)}", (*path, name))
        if name == "count" and not (isinstance(value, int) and value >= 2 and not isinstance(value, bool)):
            raise source.error(f"`count` must be a whole number of at least 2, not {quote_value(value)}", (*path, name))
        if name not in ("log", "count") and not _is_number(value):
            raise source.error(f"`{name}` must be a finite number, not {quote_value(value)}", (*path, name))
    if not {"from", "to"} <= table.keys() or ("step" in table) == ("count" in table):
        example = "from = 1e-4, to = 1, count = 5, log = true" if table.get("log") else "from = 0, to = 1, step = 0.1"
        message = f"a range needs `from`, `to`, and either `step` or `count`: {key} = {{ {example} }}"
        raise source.error(message, path)
    if table["from"] >= table["to"]:
        raise source.error(f"`from` must be below `to` in the range of `{key}`", path)
    if table.get("step", 1) <= 0:
        raise source.error(f"`step` must be above 0, not {quote_value(table['step'])}", (*path, "step"))
    if table.get("log", False) and (table["from"] <= 0 or "step" in table):
        raise source.error("a range with `log` needs `count`, and `from` above 0", path)
    return range_values(source, table, path)


def range_values(source: GridSource, table: Mapping[str, Any], path: Path) -> list[int | float]:
    """Return the values of a valid range, both ends included if the steps meet them.

    Values with a step are exact in decimals; with a `count` they have six significant digits.

    Raises:
        GridError: The range has too many values.
    """
    low, high = table["from"], table["to"]
    if "step" in table:
        start, step = Decimal(str(low)), Decimal(str(table["step"]))
        count = int((Decimal(str(high)) - start) / step) + 1
        values = [start + index * step for index in range(min(count, MAX_VALUES + 1))]
        is_whole = all(isinstance(number, int) for number in (low, table["step"]))
        numbers: list[int | float] = [int(value) if is_whole else float(value) for value in values]
    else:
        count = table["count"]
        positions = [index / (count - 1) for index in range(min(count, MAX_VALUES + 1))]
        numbers = [float(f"{_between(low, high, position, log=table.get('log', False)):.6g}") for position in positions]
        numbers[0], numbers[-1] = low, high if count <= MAX_VALUES else numbers[-1]
    if len(numbers) > MAX_VALUES:
        raise source.error(f"a range has at most {MAX_VALUES:,} values", path)
    return numbers


def _between(low: float, high: float, position: float, *, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + position * (math.log(high) - math.log(low)))
    return low + position * (high - low)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
