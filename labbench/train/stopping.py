"""`[stop]`: when a run has seen enough."""

from __future__ import annotations

import math
from collections.abc import Mapping

from labbench.errors import InputError
from labbench.records import Stop


class Judge:
    """Asked at each epoch's end whether the run goes on."""

    def __init__(self, stop: Stop | None) -> None:
        self.stop = stop
        self._best = -math.inf
        self._epochs_without_better = 0

    def state(self) -> dict[str, float]:
        """What a resumed run has to know."""
        return {"best": self._best, "epochs_without_better": self._epochs_without_better}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from there."""
        self._best, self._epochs_without_better = state["best"], int(state["epochs_without_better"])

    def verdict(self, measured: Mapping[str, float]) -> str | None:
        """The reason to end now, or None. NaN is never better. Raises InputError where the metric was not measured."""
        if self.stop is None:
            return None
        if self.stop.metric not in measured:
            known = ", ".join(sorted(measured))
            raise InputError(
                f"[stop] metric = {self.stop.metric!r} is not measured at an epoch's end; use one of {known}"
            )
        sign = 1 if self.stop.goal == "max" else -1
        value = sign * measured[self.stop.metric]  # the larger, the better
        if self.stop.target is not None and value >= sign * self.stop.target:
            return "target reached"
        if value > self._best + self.stop.min_delta:
            self._best, self._epochs_without_better = value, 0
        else:
            self._epochs_without_better += 1
        if self.stop.patience is not None and self._epochs_without_better >= self.stop.patience:
            return "early stop"
        return None
