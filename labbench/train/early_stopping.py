"""Early stopping by patience or by a target."""

from __future__ import annotations

import math
from collections.abc import Mapping

from labbench.errors import InputError
from labbench.records import Stop


class EarlyStopping:
    """Early stopping of one run by its `[stop]`, evaluated at the end of each epoch."""

    def __init__(self, stop: Stop | None) -> None:
        self.stop = stop
        self._best = -math.inf
        self._epochs_without_improvement = 0

    def state(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return {"best": self._best, "epochs_without_better": self._epochs_without_improvement}

    def load(self, state: Mapping[str, float]) -> None:
        """Restore the state that `state` returned."""
        self._best, self._epochs_without_improvement = state["best"], int(state["epochs_without_better"])

    def reason_to_stop(self, measured: Mapping[str, float]) -> str | None:
        """Return the reason to stop now, or None; NaN never counts as an improvement.

        Raises:
            InputError: If the metric of `[stop]` was not measured.
        """
        if self.stop is None:
            return None
        if self.stop.metric not in measured:
            names = ", ".join(sorted(measured))
            raise InputError(
                f"[stop] metric = {self.stop.metric!r} is not measured at the end of an epoch; use one of {names}"
            )
        sign = 1 if self.stop.goal == "max" else -1
        value = sign * measured[self.stop.metric]  # larger is better
        if self.stop.target is not None and value >= sign * self.stop.target:
            return "target reached"
        if value > self._best + self.stop.min_delta:
            self._best, self._epochs_without_improvement = value, 0
        else:
            self._epochs_without_improvement += 1
        if self.stop.patience is not None and self._epochs_without_improvement >= self.stop.patience:
            return "early stop"
        return None
