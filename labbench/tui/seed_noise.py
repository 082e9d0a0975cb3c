"""Noise of the best values of runs: their spread over the seeds of a configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from labbench.configs import canonical_json
from labbench.filters.parser import Comparison
from labbench.records import RunRecord
from labbench.store.reader import Reader

_Deviations: TypeAlias = tuple[float, int]
"""Sum of the squared deviations from the mean, and the degrees of freedom."""


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """Spread of best values over the seeds of each configuration, by metric and run."""

    deviations: Mapping[tuple[str, str], _Deviations] = field(default_factory=dict)
    """Deviations of the configuration of a run, by (metric, run key); absent without repeated seeds."""

    def is_exceeded(self, metric: str, first: str, second: str, difference: float) -> bool:
        """Return True if the best values of two runs differ by more than seeds explain; False if that is unknown.

        Two runs of equal quality differ by more in one of 20 comparisons (Student's t).
        """
        from labbench.analysis.distributions import t_quantile  # with NumPy, which the first screen does not need

        # a set: two runs of one configuration have the same deviations
        known = {self.deviations[metric, key] for key in (first, second) if (metric, key) in self.deviations}
        if not known:
            return False
        n_free = sum(n_free for _, n_free in known)
        spread = math.sqrt(sum(squares for squares, _ in known) / n_free)
        return abs(difference) > t_quantile(0.975, n_free) * math.sqrt(2.0) * spread


def read_seed_noise(reader: Reader, runs: Sequence[RunRecord], metrics: Sequence[str]) -> SeedNoise:
    """Return the spread over all seeds in the database of the configurations of these runs."""
    deviations: dict[tuple[str, str], _Deviations] = {}
    keys = {run.key for run in runs}
    for experiment in sorted({run.experiment for run in runs}):
        for group in _read_configurations(reader, experiment, metrics):
            for index, metric in enumerate(metrics, start=2):
                values = [row[index] for row in group if row[index] is not None and math.isfinite(row[index])]
                if len(values) > 1:
                    of_seeds = (_squared_deviations(values), len(values) - 1)
                    deviations.update({(metric, row[0]): of_seeds for row in group if row[0] in keys})
    return SeedNoise(deviations)


def _read_configurations(reader: Reader, experiment: str, metrics: Sequence[str]) -> Sequence[list[tuple[Any, ...]]]:
    """Return rows (key, settings, best values) of the runs of an experiment, those that differ in seeds together."""
    condition = Comparison("experiment", None, "=", (experiment,), (experiment,))
    names = [name for name in reader.config_keys(condition) if name.rpartition(".")[2] != "seed"]
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for row in reader.values([f"best({metric})" for metric in metrics], condition, by=names):
        rows.setdefault(canonical_json(json.loads(row[1])[: len(names)]), []).append(row)
    return list(rows.values())


def _squared_deviations(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)
