"""The one counter of a training: whatever depends on the step reads it here."""

from __future__ import annotations


class Clock:
    """Optimizer updates done so far."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
