"""Divergence of a run: its first training loss that is NaN or infinite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def first_non_finite(losses: NDArray[np.float64]) -> int | None:
    """Return the index of the first loss that is NaN or infinite, or None.

    losses: training losses by step, shape (T,).
    """
    finite = np.isfinite(losses)
    return None if finite.all() else int(finite.argmin())


def divergence_reason(step: int) -> str:
    """Return the reason for the status "diverged" of a run whose loss at `step` is not finite."""
    return f"non-finite train/loss at step {step}"
