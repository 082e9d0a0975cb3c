"""Checks of a value against its parameter: type, range and choices."""

from __future__ import annotations

import json
import math
from typing import Any

from labbench.grid.other_names import suggest_name
from labbench.params.param import BadItem, Param

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a string",
    "ints": "a list of whole numbers",
    "floats": "a list of numbers",
    "strs": "a list of strings",
}
_ITEM_TYPES = {"ints": "int", "floats": "float", "strs": "str"}


NONE = "none"
"""Spelling of a missing value in a grid file, since TOML has no null."""


class BadValueError(ValueError):
    """Invalid value; the message continues the parameter's name: `must be at least 0, not -1`."""

    def __init__(self, message: str, *, index: int | None = None, item: bool = False) -> None:
        """Keep the position of an invalid item.

        `index` is the index of the item if the value is a list; `item` is True if the message names it.
        """
        self.index, self.item = index, item
        super().__init__(message)


def convert_value(param: Param, value: Any) -> Any:
    """Convert a value to the parameter's type.

    1 becomes 1.0 for a float, and 1.0 becomes 1 for an int.

    Raises:
        BadValueError: The value has another type, or is outside the range or the choices.
    """
    item_type = _ITEM_TYPES.get(param.type)
    if item_type is None:
        return _check_scalar(param, param.type, value)
    if not isinstance(value, list):
        raise BadValueError(f"must be {_WORDS[param.type]}, not {quote_value(value)}")
    items = []
    for index, item in enumerate(value):
        try:
            items.append(_check_scalar(param, item_type, item))
        except BadValueError as problem:
            raise BadValueError(str(problem), index=index) from None
    if param.check is not None:
        try:
            param.check(items)
        except BadItem as problem:
            raise BadValueError(str(problem), index=problem.index, item=True) from None
    return items


def convert_setting(param: Param, value: Any) -> Any:
    """Convert a value of a config as `convert_value`; "none" becomes None if the parameter's default is None.

    Raises:
        BadValueError: As `convert_value`.
    """
    if param.default is not None or NONE in param.choices:
        return convert_value(param, value)
    if value == NONE:
        return None
    try:
        return convert_value(param, value)
    except BadValueError as problem:
        hint = f' ("{NONE}": no value)' if problem.index is None else ""
        raise BadValueError(f"{problem}{hint}", index=problem.index, item=problem.item) from None


def is_equal(left: Any, right: Any) -> bool:
    """Return True if two values are equal; true does not equal 1."""
    return bool(left == right) and isinstance(left, bool) is isinstance(right, bool)


def quote_value(value: Any) -> str:
    """Return a value as JSON for a message, shortened to 40 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:39] + "…"


def _convert_scalar(kind: str, value: Any) -> Any:
    """Convert a value to a scalar type."""
    if kind == "bool":
        if isinstance(value, bool):
            return value
    elif kind == "str":
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if kind == "float":
            return _require_finite(value)
        if isinstance(value, int) or value.is_integer():
            return int(value)
    raise BadValueError(f"must be {_WORDS[kind]}, not {quote_value(value)}{_spelling_hint(kind, value)}")


def _require_finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise BadValueError(f"must be a finite number, not {quote_value(value)}")
    return number


def _spelling_hint(kind: str, value: Any) -> str:
    if kind == "bool" and value in ("True", "False"):
        return f" (write {value.lower()})"
    if kind in ("int", "float", "bool") and isinstance(value, str):
        try:
            unquoted = json.loads(value.lower())
        except ValueError:
            return ""
        return " (remove the quotes)" if isinstance(unquoted, int | float) else ""
    return ""


def _check_scalar(param: Param, kind: str, written: Any) -> Any:
    """Convert a value to a scalar type, and check its range and choices."""
    value = _convert_scalar(kind, written)
    if param.choices and value not in param.choices:
        choices = ", ".join(map(str, param.choices))
        hint = suggest_name(value, param.choices) if isinstance(value, str) else ""
        raise BadValueError(f"must be one of {choices}, not {quote_value(written)}{hint}")
    limits = [
        (param.low is None or value >= param.low, "at least", param.low),
        (param.above is None or value > param.above, "above", param.above),
        (param.high is None or value <= param.high, "at most", param.high),
        (param.below is None or value < param.below, "below", param.below),
    ]
    if not all(holds for holds, _, _ in limits):
        rules = " and ".join(f"{words} {_format_number(limit)}" for _, words, limit in limits if limit is not None)
        raise BadValueError(f"must be {rules}, not {quote_value(written)}")
    return value


def _format_number(number: float) -> str:
    return repr(number).removesuffix(".0")
