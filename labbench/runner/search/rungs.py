"""Brackets and rungs of a search: numbers of configurations and epochs, and what they cost.

Successive halving (Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
2016) is one bracket; Hyperband (Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization",
JMLR 2018, algorithm 1) has one for each number of rungs; a random search is a bracket with one rung.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labbench.grid.search import Method


@dataclass(frozen=True, slots=True)
class Rung:
    """Point of a search at which configurations that have trained equally long are compared."""

    candidates: int
    """Number of configurations."""
    epochs: int
    """Epochs after which they are compared."""
    new_epochs: int
    """Epochs since the rung before."""
    survivors: int
    """Number of configurations that are trained on."""

    @property
    def cost(self) -> int:
        """Epochs of all its configurations, for one run of each."""
        return self.candidates * self.new_epochs


Bracket = tuple[Rung, ...]
"""Rungs with the same initial configurations, in order; the last one is at the full number of epochs."""


def default_min_epochs(epochs: int) -> int:
    """Return the default of `min_epochs`: a tenth of the epochs, so that three rungs with eta = 3 cost about a quarter.

    Runs that have trained less say little about their end.
    """
    return max(1, epochs // 10)


def rung_epochs(epochs: int, eta: float, min_epochs: int) -> list[int]:
    """Return the epochs of the rungs: `epochs`, and its quotients by powers of eta down to `min_epochs`, ascending."""
    count = math.floor(math.log(epochs / min_epochs, eta) + 1e-9) + 1
    return sorted({math.floor(epochs / eta**power + 0.5) for power in range(count)})


def make_bracket(candidates: int, epochs: Sequence[int], eta: float) -> Bracket:
    """Return the rungs of these configurations; each rung trains the best 1/eta of them on, but at least one."""
    numbers = [max(1, math.floor(candidates / eta**index + 1e-9)) for index in range(len(epochs) + 1)]
    steps = [end - start for start, end in zip([0, *epochs[:-1]], epochs, strict=True)]
    return tuple(Rung(numbers[index], epochs[index], steps[index], numbers[index + 1]) for index in range(len(epochs)))


def make_brackets(method: Method, candidates: int, epochs: Sequence[int], eta: float) -> list[Bracket]:
    """Return the brackets of a search over `candidates` configurations with rungs at `epochs`."""
    if method == "random":
        return [make_bracket(candidates, epochs[-1:], eta)]
    if method != "hyperband":
        return [make_bracket(candidates, epochs, eta)]
    count = len(epochs)
    weights = [math.ceil(count / (rungs + 1) * eta**rungs - 1e-9) for rungs in reversed(range(count))]
    sizes = _apportion(candidates, weights)
    return [make_bracket(size, epochs[index:], eta) for index, size in enumerate(sizes) if size]


def make_batches(candidates: int, batch: int, epochs: Sequence[int], eta: float) -> list[Bracket]:
    """Return a bracket for each batch of configurations."""
    sizes = [min(batch, candidates - start) for start in range(0, candidates, batch)]
    return [make_bracket(size, epochs, eta) for size in sizes]


def total_cost(brackets: Sequence[Bracket]) -> int:
    """Return the epochs that the brackets train, for one run of each configuration."""
    return sum(rung.cost for bracket in brackets for rung in bracket)


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split a total in proportion to weights, by largest remainders; of equal ones, the first gets more."""
    shares = [total * weight / sum(weights) for weight in weights]
    parts = [math.floor(share) for share in shares]
    order = sorted(range(len(weights)), key=lambda index: parts[index] - shares[index])
    for index in order[: total - sum(parts)]:
        parts[index] += 1
    return parts
