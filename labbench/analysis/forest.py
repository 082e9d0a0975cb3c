"""Functional ANOVA of a random search by a random forest (Hutter, Hoos & Leyton-Brown 2014), with scikit-learn.

The forest predicts a set-up that was never tried, so that a full grid can be asked of it: the effect of a value is the
mean prediction with it, the other parameters being as they were in set-ups that were tried (partial dependence).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np

from labbench.analysis.table import Floats, Parameter, Table

MIN_SETUPS = 30
"""Set-ups from which on a forest learns more than an additive model."""
TREE_COUNT = 100
MAX_BACKGROUND_SETUPS, MAX_BACKGROUND_SETUPS_OF_PAIRS = 256, 32
"""Set-ups whose other parameters an effect is averaged over."""
MAX_VALUES = 8
"""Of a parameter, at which its effect is asked for."""
PERMUTATION_COUNT = 3
"""Forests of shuffled residuals, which tell how much variance mere noise would be given."""


def is_available() -> bool:
    """Whether scikit-learn is installed, without loading it."""
    return find_spec("sklearn") is not None


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variances of the set-ups' means."""

    main_effects: dict[str, float]
    pairs: dict[tuple[str, str], float]


def decompose_variance(table: Table) -> VarianceParts:
    """What each parameter and each pair adds to the variance, less what it would be given of mere noise.

    An interaction of two parameters that do nothing alone comes out smaller than it is: greedy splits hardly find it.
    The same table always gives the same numbers.
    """
    names = [p.name for p in table.independent]
    inputs, generator = np.column_stack([_rank_column(p, table) for p in table.independent]), np.random.default_rng(0)
    fitted = _fit_forest(inputs, table.means)
    left = table.means - fitted.oob_prediction_
    noise = [
        _effect_variances(_fit_forest(inputs, generator.permutation(left)), inputs) for _ in range(PERMUTATION_COUNT)
    ]
    clear = (_effect_variances(fitted, inputs) - np.mean(noise, axis=0)).clip(0.0)
    clear = (clear * _calibration_slope(table.means, fitted.oob_prediction_) ** 2).tolist()
    pairs = list(combinations(names, 2))
    return VarianceParts(dict(zip(names, clear, strict=False)), dict(zip(pairs, clear[len(names) :], strict=True)))


def _rank_column(parameter: Parameter, table: Table) -> Floats:
    """(set-ups,): ranks of the parameter's own values, not of its bins; a forest asks for nothing but their order."""
    if not parameter.spans:
        return parameter.codes.astype(np.float64)
    values = [setup.config.get(parameter.name) for setup in table.setups]
    known = [-np.inf if value is None else float(value) for value in values]
    return np.unique(known, return_inverse=True)[1].astype(np.float64)


def _fit_forest(inputs: Floats, targets: Floats) -> Any:
    from sklearn.ensemble import RandomForestRegressor  # takes a second, and grids never need it

    forest = RandomForestRegressor(TREE_COUNT, min_samples_leaf=2, oob_score=True, random_state=0)
    return forest.fit(inputs, targets)


def _calibration_slope(means: Floats, predicted: Floats) -> float:
    """By how much effects are larger than a forest has them, which smooths: the slope of set-ups it has not seen.

    Never below 0, which would be a forest that has learnt nothing.
    """
    return max(0.0, float(np.polyfit(predicted, means, 1)[0])) if np.ptp(predicted) > 0 else 0.0


def _effect_variances(forest: Any, inputs: Floats) -> Floats:
    """(parameters + pairs,): of each main effect, then of what each pair does beyond its two."""
    order = np.random.default_rng(0).permutation(len(inputs))
    grids = [_evaluation_values(column) for column in inputs.T]

    def heights(columns: tuple[int, ...], background: Floats) -> Floats:
        """Mean prediction at each combination of these parameters' values."""
        points = np.stack(np.meshgrid(*(grids[column][0] for column in columns), indexing="ij"), axis=-1)
        asked = np.tile(background, (points[..., 0].size, 1))
        asked[:, columns] = np.repeat(points.reshape(-1, len(columns)), len(background), axis=0)
        means: Floats = forest.predict(asked).reshape(*points.shape[:-1], len(background)).mean(axis=-1)
        return means

    found = []
    for column, (_, weights) in enumerate(grids):
        effect = heights((column,), inputs[order[:MAX_BACKGROUND_SETUPS]])
        found.append(float(weights @ (effect - weights @ effect) ** 2))
    for first, second in combinations(range(len(grids)), 2):
        rows, columns = grids[first][1], grids[second][1]
        effect = heights((first, second), inputs[order[:MAX_BACKGROUND_SETUPS_OF_PAIRS]])
        effect = effect - rows @ effect
        effect = effect - (effect @ columns)[:, None]
        found.append(float(rows @ effect**2 @ columns))
    return np.array(found)


def _evaluation_values(column: Floats) -> tuple[Floats, Floats]:
    """Values at which to ask for a parameter's effect, and the share of the set-ups that each stands for."""
    values, counts = np.unique(column, return_counts=True)
    if len(values) > MAX_VALUES:
        values = np.quantile(column, (np.arange(MAX_VALUES) + 0.5) / MAX_VALUES)
        counts = np.ones(MAX_VALUES, dtype=np.int64)
    return values, counts / counts.sum()
