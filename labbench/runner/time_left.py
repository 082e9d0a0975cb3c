"""Estimate of the time left, from the share of the work that is done."""

from __future__ import annotations

MIN_SECONDS, MIN_SHARE = 5.0, 0.02
"""Seconds and share of the work after which there is an estimate."""
MAX_WAIT_SECONDS = 60.0
"""Seconds after which there is an estimate from any share."""


class TimeLeft:
    """Estimate of the time left; the start of the processes, before the first progress, does not count."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        """Time and share of the first progress."""

    def estimate(self, now: float, share: float) -> float | None:
        """Return the seconds left, given the completed share of the work; None before an estimate means something."""
        if share and self._began is None:
            self._began = now, share
        if self._began is None or share >= 1:
            return None
        seconds, gain = now - self._began[0], share - self._began[1]
        is_reliable = (seconds >= MIN_SECONDS and gain >= MIN_SHARE) or seconds >= MAX_WAIT_SECONDS
        return seconds * (1 - share) / gain if is_reliable and gain > 0 else None
