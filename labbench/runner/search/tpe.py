"""Proposals of configurations by Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011).

Each batch has a fresh sampler, seeded by the search's seed and the number of the batch, and given the earlier trials in
the order of the search. So a proposal depends on configurations, seeds and values alone, and a search that was
interrupted proposes the same configurations again.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from labbench.configs import canonical_json, distinguishing_keys
from labbench.metrics import Goal
from labbench.runner.search.candidates import Candidate

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_MISSING = "null"
"""JSON of the value of a key that a configuration lacks."""


def is_installed() -> bool:
    """Return True if Optuna can be imported."""
    return find_spec("optuna") is not None


@dataclass(frozen=True, slots=True)
class Trial:
    """Configuration with its result."""

    candidate: Candidate
    value: float
    """NaN if it has none."""
    epochs: int
    """Epochs of the last rung that it reached."""
    is_complete: bool
    """True if it reached the last rung."""


class Proposer:
    """Proposes configurations of a grid that have not been tried, given the results so far."""

    def __init__(self, candidates: Sequence[Candidate], goal: Goal, seed: int, implied: frozenset[str]) -> None:
        """`implied` are keys whose values follow from the values of other keys."""
        self._candidates, self._goal, self._seed = candidates, goal, seed
        configs = [candidate.config for candidate in candidates]
        self._keys = [key for key in distinguishing_keys(configs) if key not in implied]
        self._values = {key: _sort_values(configs, key) for key in self._keys}
        """Values of each key as JSON, numbers in ascending order."""
        self._ordered = {key for key, values in self._values.items() if all(map(_is_number, values))}
        self._points = [self._point(candidate.config) for candidate in candidates]
        """Position of each candidate: the index of its value of each key."""

    def propose(self, trials: Sequence[Trial], count: int, batch: int) -> list[Candidate]:
        """Return `count` untried candidates, fewer if fewer are left; `batch` is the number of the batch."""
        import optuna

        digest = hashlib.sha256(f"{self._seed} {batch}".encode()).digest()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the constant liar is experimental
            sampler = optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "big"), constant_liar=True)
            direction = "maximize" if self._goal == "max" else "minimize"
            study = optuna.create_study(direction=direction, sampler=sampler)
            distributions = self._distributions()
            study.add_trials([self._frozen_trial(trial, distributions) for trial in trials])
            untried = set(range(len(self._candidates))) - {trial.candidate.index for trial in trials}
            proposed: list[Candidate] = []
            while untried and len(proposed) < count:
                nearest = self._ask(study, distributions, untried)
                untried.remove(nearest)
                proposed.append(self._candidates[nearest])
        return proposed

    def _ask(self, study: Study, distributions: dict[str, BaseDistribution], untried: set[int]) -> int:
        """Return the index of the untried candidate that is nearest to the sampler's suggestion."""
        suggested = study.ask(distributions).params
        return min(untried, key=lambda index: (self._distance(self._points[index], suggested), index))

    def _distance(self, point: Mapping[str, int], suggested: Mapping[str, Any]) -> float:
        """Return the sum over keys of the distance in ranks, as a fraction of the key's range; 1 for other words."""
        total = 0.0
        for key, index in point.items():
            last = len(self._values[key]) - 1
            apart = abs(index - suggested[key])
            total += apart / last if key in self._ordered else float(apart > 0)
        return total

    def _point(self, config: Mapping[str, Any]) -> dict[str, int]:
        return {key: self._values[key].index(_value_json(config, key)) for key in self._keys}

    def _distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return {
            key: IntDistribution(0, len(values) - 1)
            if key in self._ordered
            else CategoricalDistribution(list(range(len(values))))
            for key, values in self._values.items()
        }

    def _frozen_trial(self, trial: Trial, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
        """Return a trial for the sampler; one without a value counts as the worst, as pruned ones before any value."""
        from optuna.trial import TrialState, create_trial

        has_value = math.isfinite(trial.value)
        return create_trial(
            state=TrialState.COMPLETE if trial.is_complete and has_value else TrialState.PRUNED,
            value=trial.value if trial.is_complete and has_value else None,
            params=self._points[trial.candidate.index],
            distributions=distributions,
            intermediate_values={trial.epochs: trial.value} if has_value else {},
        )


def _sort_values(configs: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    values = list(dict.fromkeys(_value_json(config, key) for config in configs))
    return sorted(values, key=float) if all(map(_is_number, values)) else values


def _value_json(config: Mapping[str, Any], key: str) -> str:
    return canonical_json(config[key]) if key in config else _MISSING


def _is_number(text: str) -> bool:
    return text[0] in "-0123456789"
