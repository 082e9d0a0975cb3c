"""Time of day for recorded times, which never goes back within a process."""

from __future__ import annotations

import time

_offset = float("-inf")
"""Largest difference seen between the time of day and the monotonic clock."""


def now() -> float:
    """Return the time in Unix seconds, unaffected when the system's clock is set back.

    Therefore a run does not finish before it starts, and its heartbeat does not become stale.
    """
    global _offset
    monotonic = time.monotonic()
    _offset = max(_offset, time.time() - monotonic)
    return monotonic + _offset
