"""How many runs of a stack go forward and back at a time: the first steps of a training try, the others know.

A wide tile spends less on each operation's start, a narrow one keeps its activations in the cache; which wins depends
on the model and the machine. Since a tile's width changes no number, nothing is trained for the trial alone.
"""

from __future__ import annotations

STEPS_PER_WIDTH = 2
"""Steps in turn with each width; the first one finds its memory cold."""
ROUNDS = 2
"""Through all widths: what else the machine does comes and goes."""
MAX_SLOWDOWN = 1.05
"""How much slower than the best a width is for narrower ones not to be tried."""


class TileWidthTuner:
    """Widths from all runs downwards, each half of the one before, until one is worse; and what they cost at best."""

    def __init__(self, runs: int, best: int | None = None) -> None:
        """`best` is a width that was found before: that, as far as it goes, without another trial."""
        self.runs = runs
        self.best: int | None = min(best, runs) if best is not None else None
        """What was found; None while it is still tried."""
        self._widths = [runs]
        self._seconds: dict[int, float] = {}
        self._steps = self._place = self._rounds = 0
        self._samples = 0

    def for_runs(self, runs: int) -> TileWidthTuner:
        """The trial of so many runs that are left."""
        return self if runs == self.runs else TileWidthTuner(runs, self.fastest_width if self.is_settled else None)

    @property
    def width(self) -> int:
        """What to step with next."""
        return self._widths[self._place] if self.best is None else self.best

    @property
    def is_settled(self) -> bool:
        """Whether each width that is worth it was tried once."""
        return self.best is not None or self._rounds > 0

    @property
    def fastest_width(self) -> int:
        """What was found so far, once something was timed."""
        return self.best or min(self._seconds, key=self._seconds.__getitem__)

    def record_step(self, seconds: float, samples: int) -> None:
        """How long a step with `width` took; it counts if it had as many samples as the first one."""
        self._samples = self._samples or samples
        if self.best is not None or samples != self._samples:
            return
        width = self.width
        self._seconds[width] = min(seconds, self._seconds.get(width, seconds))
        self._steps += 1
        if self._steps == STEPS_PER_WIDTH:
            self._steps = 0
            self._advance(width)

    def _advance(self, width: int) -> None:
        self._place += 1
        last = self._place == len(self._widths)
        if last and width > 1 and self._seconds[width] <= MAX_SLOWDOWN * self._seconds[self.fastest_width]:
            self._widths.append(-(-width // 2))
        if self._place == len(self._widths):
            self._place, self._rounds = 0, self._rounds + 1
        if self._rounds == ROUNDS:
            self.best = self.fastest_width
