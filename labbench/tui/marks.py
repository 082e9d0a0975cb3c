"""Marked runs: what is drawn, compared and edited together. Each has a slot, which is its colour and glyph."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from labbench.charts.glyphs import SLOTS


class Marks(dict[str, int]):
    """The slot, from 1, of each marked run by its key, in the order they were marked."""

    def toggle(self, key: str) -> None:
        """Mark a run with the first slot that is free, or take its mark away."""
        if key in self:
            del self[key]
        else:
            self.add([key])

    def add(self, keys: Iterable[str]) -> None:
        """Mark these runs too; when all slots are taken they are shared, in turn."""
        free = [slot for slot in range(SLOTS, 0, -1) if slot not in self.values()]
        for key in keys:
            if key not in self:
                self[key] = free.pop() if free else len(self) % SLOTS + 1

    def invert(self, keys: Collection[str]) -> None:
        """Of these runs, mark those that are not, and no others."""
        unmarked = [key for key in keys if key not in self]
        self.forget(set(keys))
        self.add(unmarked)

    def forget(self, keys: Iterable[str]) -> None:
        """Take the marks of these runs away."""
        for key in keys:
            self.pop(key, None)

    def concerned(self, highlighted: Collection[str]) -> list[str]:
        """What an edit is about: the highlighted runs, and all marked ones where one of those is highlighted."""
        return list(self) if self.keys() & set(highlighted) else list(highlighted)
