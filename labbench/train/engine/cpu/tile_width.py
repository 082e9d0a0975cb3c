"""Tuning of the tile width.

The tile width is the number of runs of a stack that go forward and backward together. A wide tile spends less time on
starting operations, a narrow one keeps its activations in the CPU cache; the faster one depends on the model and the
machine. The tuner times the first steps of the training. These are ordinary steps: the width does not affect results.
"""

from __future__ import annotations

STEPS_PER_WIDTH = 2
"""Consecutive steps with each width; the first one runs on a cold cache."""
ROUNDS = 2
"""Passes over all widths; several, because the load of the machine varies."""
MAX_SLOWDOWN = 1.05
"""Time of a width relative to the fastest one, above which narrower widths are not tried."""


class TileWidthTuner:
    """Time tile widths and choose the fastest.

    Widths start at all runs and are halved until one is slower.
    """

    def __init__(self, runs: int, best: int | None = None) -> None:
        """Start tuning for a stack of `runs` runs.

        If the fastest width is already known, it is passed as `best` and used without tuning, limited to `runs`.
        """
        self.runs = runs
        self.best: int | None = min(best, runs) if best is not None else None
        """Fastest width in runs; None during tuning."""
        self._widths = [runs]
        self._seconds: dict[int, float] = {}
        self._steps = self._index = self._rounds = 0
        self._samples = 0

    def for_runs(self, runs: int) -> TileWidthTuner:
        """Return the tuner for a stack that has shrunk to `runs` runs."""
        return self if runs == self.runs else TileWidthTuner(runs, self.fastest_width if self.is_settled else None)

    @property
    def width(self) -> int:
        """Width of the next step, in runs."""
        return self._widths[self._index] if self.best is None else self.best

    @property
    def is_settled(self) -> bool:
        """True once every candidate width has been timed."""
        return self.best is not None or self._rounds > 0

    @property
    def fastest_width(self) -> int:
        """Fastest width so far, in runs; valid after the first timed step."""
        return self.best or min(self._seconds, key=self._seconds.__getitem__)

    def record_step(self, seconds: float, samples: int) -> None:
        """Record the time of a step with `width`.

        Batches of another size than the first are ignored.
        """
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
        self._index += 1
        is_last = self._index == len(self._widths)
        if is_last and width > 1 and self._seconds[width] <= MAX_SLOWDOWN * self._seconds[self.fastest_width]:
            self._widths.append(-(-width // 2))
        if self._index == len(self._widths):
            self._index, self._rounds = 0, self._rounds + 1
        if self._rounds == ROUNDS:
            self.best = self.fastest_width
