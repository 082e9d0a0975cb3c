"""What tracking has to tell while a script runs: one line on stderr, and no line twice; and values in such lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_warned: set[str] = set()

_MAX_CHARACTERS = 60


def warn_once(text: str) -> None:
    """Say something that must not end the training: never an exception, also where warnings are errors."""
    if text not in _warned:
        _warned.add(text)
        warn(text)


def warn(text: str) -> None:
    """Say something, again if need be."""
    try:
        print(f"labbench: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # nobody is left to read: a closed pipe, a closed stream
        return


def quote_value(value: Any) -> str:
    """A value in a message: not too long, with its type."""
    text = as_text(value, repr)
    return f"{text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + '…'} ({type(value).__name__})"


def as_text(value: Any, convert: Callable[[Any], str] = str) -> str:
    """A value as text, also an endless integer, which Python does not print, and an object whose own code fails."""
    if isinstance(value, int):
        try:
            return convert(value)
        except ValueError:
            return hex(value)
    try:
        return convert(value)
    except Exception as error:  # whatever it is, it is not ours, and must not end the training
        return f"<{type(value).__name__}, whose text fails: {type(error).__name__}>"
