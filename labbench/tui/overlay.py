"""Which runs the charts show: the marked ones with their slots, and the highlighted one."""

from __future__ import annotations

from labbench.tui.looks import SLOTS


class Overlay:
    """The marked runs and the highlighted one."""

    def __init__(self) -> None:
        self.marks: dict[str, int] = {}
        """Marked runs in the order they were marked, each with its slot from 1."""

    def toggle(self, key: str) -> None:
        """Mark a run with the first slot that is free, or take its mark away."""
        if key in self.marks:
            del self.marks[key]
            return
        taken = set(self.marks.values())
        free = (slot for slot in range(1, SLOTS + 1) if slot not in taken)
        self.marks[key] = next(free, len(self.marks) % SLOTS + 1)

    def shown(self, highlighted: str | None) -> list[str]:
        """What the charts draw: the marked runs, and the highlighted one with them."""
        return list(dict.fromkeys([*self.marks, *([highlighted] if highlighted else [])]))
