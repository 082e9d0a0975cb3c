"""Keys, statuses, points and files of runs: the records that the script of a run needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeGuard

from labbench.errors import InputError

Config: TypeAlias = Mapping[str, Any]
"""Hyperparameters of one run: flat keys joined with `.`, JSON values (numbers, strings, booleans, lists)."""

ALL_EPOCHS = "all epochs"
"""Reason of the end of a run that was not stopped early."""

AT_RUNG = "at a rung"
"""Reason of a run's return to the queue at a rung of a search, where it is compared with other runs."""

NEW_SEED_TAG = "new-seed"
"""Tag of the runs with new seeds that judge the finalists of a search."""

RETRIED = "retried"
"""Reason of a pruned run's return to the queue at a user's request; a search trains it on, too."""

Status: TypeAlias = Literal["queued", "running", "finished", "diverged", "failed", "stopped", "pruned", "lost"]
STATUSES: tuple[Status, ...] = ("queued", "running", "finished", "diverged", "failed", "stopped", "pruned", "lost")

FailureKind: TypeAlias = Literal["user", "crash", "node", "timeout", "oom"]


_KEY = re.compile("[A-Za-z0-9]{1,64}")


def is_key(key: object) -> TypeGuard[str]:
    """Return True for a valid run key, 1 to 64 ASCII letters and digits."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def require_key(key: object) -> str:
    """Return a run's key from a database or another file, once it is checked.

    Keys are used as names of folders.

    Raises:
        InputError: The key is not 1 to 64 ASCII letters and digits, so another program wrote it.
    """
    if not is_key(key):
        raise InputError(
            f"a run has the key {repr(key)[:80]}, but a key is letters and digits: another program wrote this file, "
            "which cannot be trusted"
        )
    return key


@dataclass(frozen=True, slots=True)
class Points:
    """Values of one metric, in the order of measurement.

    A step is the number of optimizer updates before the measurement, so a loss at step 0 is the loss of the initial
    weights. `times` are milliseconds since the run's start.
    """

    run: str
    attempt: int
    metric: str
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Artifact:
    """File that a run produced or used."""

    name: str
    path: str
    """Absolute, or relative to `<database>.files/<key>/`."""
    size: int
    """Bytes."""
    sha256: str
    created: float
    """Unix time in seconds."""
