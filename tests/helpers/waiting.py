"""Wait for a condition in tests of processes."""

from __future__ import annotations

import time
from collections.abc import Callable

HANG_SECONDS = 300.0
"""Duration after which a process hangs; hundreds of times what it takes, for machines that are busy with other work."""


def wait_for(holds: Callable[[], bool], *, seconds: float = HANG_SECONDS) -> None:
    """Wait until `holds()` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"the condition was still false after {seconds:g} s"
        time.sleep(0.02)
