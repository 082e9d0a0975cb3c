"""How many runs of a stack go forward and back at a time: the first steps of a training try, the others know.

A wide tile spends less on each operation's start, a narrow one keeps its activations in the cache; which wins depends
on the model and the machine. Since a tile's width changes no number, nothing is trained for the trial alone.
"""

from __future__ import annotations

EACH = 2
"""Steps with each width; the quicker one counts."""
WORSE = 1.05
"""How much slower than the best a width is for narrower ones not to be tried."""


class Trial:
    """Widths from all runs downwards, each half of the one before, until one is worse; and what they cost."""

    def __init__(self, runs: int, known: int | None = None) -> None:
        """`known` is a width that was found before: that, as far as it goes, without another trial."""
        self._width, self._steps = runs, 0
        self._seconds: dict[int, float] = {}
        self._samples = 0
        self.best: int | None = min(known, runs) if known is not None else None
        """What was found; None while it is still tried."""

    @property
    def width(self) -> int:
        """What to step with next."""
        if self.best is not None:
            return self.best
        return self._width

    def took(self, seconds: float, samples: int) -> None:
        """How long a step with `width` took; it counts if it had as many samples as the first one."""
        self._samples = self._samples or samples
        if self.best is not None or samples != self._samples:
            return
        self._seconds[self._width] = min(seconds, self._seconds.get(self._width, seconds))
        self._steps += 1
        if self._steps < EACH:
            return
        quickest = min(self._seconds, key=self._seconds.__getitem__)
        if self._width == 1 or self._seconds[self._width] > WORSE * self._seconds[quickest]:
            self.best = quickest
        else:
            self._width, self._steps = -(-self._width // 2), 0
