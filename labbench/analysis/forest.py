"""Functional ANOVA of a random search by a random forest (Hutter, Hoos & Leyton-Brown 2014), with scikit-learn.

The forest predicts configurations that were not run. The effect of a value is the mean prediction over the tried
configurations after the parameter is set to that value in each (partial dependence, Friedman 2001).

Shapes: C configurations, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np

from labbench.analysis.table import Floats, Parameter, Table

MIN_SETUPS = 30
"""Smallest number of configurations for a forest; below it an additive model explains more."""
TREE_COUNT = 100
MAX_BACKGROUND_SETUPS, MAX_BACKGROUND_SETUPS_OF_PAIRS = 256, 32
"""Number of configurations over which the effect of a parameter, or of a pair, is averaged."""
MAX_VALUES = 8
"""Number of values per parameter at which effects are evaluated."""
PERMUTATION_COUNT = 3
"""Number of forests fitted to permuted residuals, to estimate the variance that a forest attributes to noise."""


def is_available() -> bool:
    """Return True if scikit-learn is installed; does not import it."""
    return find_spec("sklearn") is not None


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variance of the configurations' means by term of the functional ANOVA."""

    main_effects: dict[str, float]
    """Variance by parameter."""
    pairs: dict[tuple[str, str], float]
    """Variance of the interaction by pair of parameters."""


def decompose_variance(table: Table) -> VarianceParts:
    """Return the variance explained by each parameter and each pair, minus the share expected from noise.

    The interaction of two parameters without main effects is underestimated, because greedy splits rarely find it.
    Deterministic: the same table gives the same numbers. Raises ImportError if scikit-learn is not installed.
    """
    names = [p.name for p in table.independent]
    inputs, generator = np.column_stack([_rank_column(p, table) for p in table.independent]), np.random.default_rng(0)
    fitted = _fit_forest(inputs, table.means)
    residuals = table.means - fitted.oob_prediction_
    noise = [
        _effect_variances(_fit_forest(inputs, generator.permutation(residuals)), inputs)
        for _ in range(PERMUTATION_COUNT)
    ]
    signal = (_effect_variances(fitted, inputs) - np.mean(noise, axis=0)).clip(0.0)
    parts = (signal * _calibration_slope(table.means, fitted.oob_prediction_) ** 2).tolist()
    pairs = list(combinations(names, 2))
    return VarianceParts(dict(zip(names, parts, strict=False)), dict(zip(pairs, parts[len(names) :], strict=True)))


def _rank_column(parameter: Parameter, table: Table) -> Floats:
    """Return the ranks of the parameter's unbinned values, shape (C,).

    Trees depend on the order of values only.
    """
    if not parameter.spans:
        return parameter.codes.astype(np.float64)
    values = [setup.config.get(parameter.name) for setup in table.setups]
    numbers = [-np.inf if value is None else float(value) for value in values]
    return np.unique(numbers, return_inverse=True)[1].astype(np.float64)


def _fit_forest(inputs: Floats, targets: Floats) -> Any:
    from sklearn.ensemble import RandomForestRegressor  # the import takes a second, and full grids do not need it

    forest = RandomForestRegressor(TREE_COUNT, min_samples_leaf=2, oob_score=True, random_state=0)
    return forest.fit(inputs, targets)


def _calibration_slope(means: Floats, predicted: Floats) -> float:
    """Return the slope of the means (C,) on out-of-bag predictions (C,), at least 0.

    A forest shrinks effects by averaging; multiplying by this slope corrects their size.
    """
    return max(0.0, float(np.polyfit(predicted, means, 1)[0])) if np.ptp(predicted) > 0 else 0.0


def _effect_variances(forest: Any, inputs: Floats) -> Floats:
    """Return the variances of the main effects, then of the pairwise interactions.

    `inputs` has shape (C, P), the result (P + P (P - 1) / 2,).
    """
    order = np.random.default_rng(0).permutation(len(inputs))
    grids = [_evaluation_values(column) for column in inputs.T]

    def heights(columns: tuple[int, ...], background: Floats) -> Floats:
        """Return the mean prediction at each combination of these parameters' values (partial dependence)."""
        points = np.stack(np.meshgrid(*(grids[column][0] for column in columns), indexing="ij"), axis=-1)
        queries = np.tile(background, (points[..., 0].size, 1))
        queries[:, columns] = np.repeat(points.reshape(-1, len(columns)), len(background), axis=0)
        means: Floats = forest.predict(queries).reshape(*points.shape[:-1], len(background)).mean(axis=-1)
        return means

    variances = []
    for column, (_, weights) in enumerate(grids):
        effect = heights((column,), inputs[order[:MAX_BACKGROUND_SETUPS]])
        variances.append(float(weights @ (effect - weights @ effect) ** 2))
    for first, second in combinations(range(len(grids)), 2):
        rows, columns = grids[first][1], grids[second][1]
        effect = heights((first, second), inputs[order[:MAX_BACKGROUND_SETUPS_OF_PAIRS]])
        effect = effect - rows @ effect
        effect = effect - (effect @ columns)[:, None]
        variances.append(float(rows @ effect**2 @ columns))
    return np.array(variances)


def _evaluation_values(column: Floats) -> tuple[Floats, Floats]:
    """Return up to `MAX_VALUES` values of a column (C,) and the share of the configurations each represents."""
    values, counts = np.unique(column, return_counts=True)
    if len(values) > MAX_VALUES:
        values = np.quantile(column, (np.arange(MAX_VALUES) + 0.5) / MAX_VALUES)
        counts = np.ones(MAX_VALUES, dtype=np.int64)
    return values, counts / counts.sum()
