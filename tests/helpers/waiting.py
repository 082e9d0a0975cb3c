"""Wait for a condition in tests of processes."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(holds: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait until `holds()` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"the condition was still false after {seconds:g} s"
        time.sleep(0.02)
