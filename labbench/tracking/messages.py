"""Messages of tracking to the user of a script: one line each on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_printed: set[str] = set()

_MAX_CHARACTERS = 60


def warn_once(text: str) -> None:
    """Print a message unless it was printed before.

    Never raises, unlike a Python warning, which would end the training where warnings are errors.
    """
    if text not in _printed:
        _printed.add(text)
        warn(text)


def warn(text: str) -> None:
    """Print a message, even if it was printed before. Never raises."""
    try:
        print(f"labbench: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # a closed pipe or stream
        return


def quote_value(value: Any) -> str:
    """Return a value for a message, shortened, with its type."""
    text = as_text(value, repr)
    return f"{text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + '…'} ({type(value).__name__})"


def as_text(value: Any, convert: Callable[[Any], str] = str) -> str:
    """Convert a value to text without raising.

    Python does not print integers of more than 4,300 digits, and a method of the value that `convert` calls may be
    broken.
    """
    if isinstance(value, int):
        try:
            return convert(value)
        except ValueError:
            return hex(value)
    try:
        return convert(value)
    except Exception as error:  # code of the value's class may raise anything, which must not end the training
        return f"<{type(value).__name__}, whose text conversion raised {type(error).__name__}>"
