"""What tracking has to tell while a script runs: one line on stderr, and no line twice."""

from __future__ import annotations

import sys

_told: set[str] = set()


def tell_once(text: str) -> None:
    """Say something that must not end the training: never an exception, also where warnings are errors."""
    if text not in _told:
        _told.add(text)
        tell(text)


def tell(text: str) -> None:
    """Say something, again if need be."""
    try:
        print(f"labbench: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # nobody is left to read: a closed pipe, a closed stream
        return
