"""Functional ANOVA of a random search by a random forest (Hutter, Hoos & Leyton-Brown 2014), with scikit-learn.

The forest predicts configurations that were not run. The effect of a value is the mean prediction over the tried
configurations after the parameter is set to that value in each (partial dependence, Friedman 2001).

Shapes: C configurations, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from labbench.analysis.table import Check, Floats, Parameter, Table, never_cancelled

MIN_SETUPS = 30
"""Smallest number of configurations for a forest; below it an additive model explains more."""
TREE_COUNT, PERMUTED_TREE_COUNT = 50, 25
"""Number of trees of the forest, and of each forest that is fitted to permuted residuals."""
MAX_TREE_SETUPS = 500
"""Number of configurations that a tree is fitted to; more take longer and estimate noisy effects no better."""
MAX_BACKGROUND_SETUPS, MAX_BACKGROUND_SETUPS_OF_PAIRS = 256, 32
"""Number of configurations over which the effect of a parameter, or of a pair, is averaged."""
MAX_VALUES = 8
"""Number of values per parameter at which effects are evaluated."""
MAX_PAIRED = 10
"""Largest number of parameters whose interactions are estimated, those with the largest main effects."""
PERMUTATION_COUNT = 2
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
    """Variance of the interaction by pair of parameters, for the `MAX_PAIRED` largest main effects."""


Term: TypeAlias = tuple[int, ...]
"""Columns of one parameter or of a pair."""


def decompose_variance(table: Table, check: Check = never_cancelled) -> VarianceParts:
    """Return the variance explained by each parameter and each pair, minus the share expected from noise.

    The interaction of two parameters without main effects is underestimated, because greedy splits rarely find it.
    Deterministic: the same table gives the same numbers. `check` is called before each term and may raise to cancel.
    Raises ImportError if scikit-learn is not installed.
    """
    names = [p.name for p in table.independent]
    inputs, generator = np.column_stack([_rank_column(p, table) for p in table.independent]), np.random.default_rng(0)
    fitted = _fit_forest(inputs, table.means, TREE_COUNT, out_of_bag=True)
    residuals = table.means - fitted.oob_prediction_
    mains: list[Term] = [(column,) for column in range(len(names))]
    of_mains = _effect_variances(fitted, inputs, mains, check)
    paired = sorted(np.argsort(-of_mains, kind="stable")[:MAX_PAIRED].tolist())
    pairs: list[Term] = list(combinations(paired, 2))
    permuted = [
        _fit_forest(inputs, generator.permutation(residuals), PERMUTED_TREE_COUNT) for _ in range(PERMUTATION_COUNT)
    ]
    noise = [_effect_variances(forest, inputs, mains + pairs, check) for forest in permuted]
    variances = np.concatenate([of_mains, _effect_variances(fitted, inputs, pairs, check)])
    signal = (variances - np.mean(noise, axis=0)).clip(0.0)
    parts = (signal * _calibration_slope(table.means, fitted.oob_prediction_) ** 2).tolist()
    pair_names = [(names[first], names[second]) for first, second in pairs]
    return VarianceParts(dict(zip(names, parts, strict=False)), dict(zip(pair_names, parts[len(names) :], strict=True)))


def _rank_column(parameter: Parameter, table: Table) -> Floats:
    """Return the ranks of the parameter's unbinned values, shape (C,).

    Trees depend on the order of values only.
    """
    if not parameter.spans:
        return parameter.codes.astype(np.float64)
    values = [setup.config.get(parameter.name) for setup in table.setups]
    numbers = [-np.inf if value is None else float(value) for value in values]
    return np.unique(numbers, return_inverse=True)[1].astype(np.float64)


def _fit_forest(inputs: Floats, targets: Floats, trees: int, *, out_of_bag: bool = False) -> Any:
    """Return a forest fitted to inputs (C, P) and targets (C,), with its out-of-bag predictions on request."""
    from sklearn.ensemble import RandomForestRegressor  # the import takes a second, and full grids do not need it

    size = MAX_TREE_SETUPS if len(inputs) > MAX_TREE_SETUPS else None
    forest = RandomForestRegressor(trees, min_samples_leaf=2, max_samples=size, oob_score=out_of_bag, random_state=0)
    return forest.fit(inputs, targets)


def _calibration_slope(means: Floats, predicted: Floats) -> float:
    """Return the slope of the means (C,) on out-of-bag predictions (C,), at least 0.

    A forest shrinks effects by averaging; multiplying by this slope corrects their size.
    """
    return max(0.0, float(np.polyfit(predicted, means, 1)[0])) if np.ptp(predicted) > 0 else 0.0


def _effect_variances(forest: Any, inputs: Floats, terms: Sequence[Term], check: Check) -> Floats:
    """Return the variance of the effect of each term, beyond the main effects in it, shape (terms,).

    `inputs` has shape (C, P).
    """
    trees = [tree.tree_ for tree in forest.estimators_]  # 5 times as fast as `forest.predict` on few rows
    order = np.random.default_rng(0).permutation(len(inputs))
    grids = [_evaluation_values(column) for column in inputs.T]

    def heights(columns: tuple[int, ...], background: Floats) -> Floats:
        """Return the mean prediction at each combination of these parameters' values (partial dependence)."""
        points = np.stack(np.meshgrid(*(grids[column][0] for column in columns), indexing="ij"), axis=-1)
        queries = np.tile(background, (points[..., 0].size, 1))
        queries[:, columns] = np.repeat(points.reshape(-1, len(columns)), len(background), axis=0)
        rows = queries.astype(np.float32)
        predictions = sum(tree.predict(rows)[:, 0] for tree in trees) / len(trees)
        means: Floats = predictions.reshape(*points.shape[:-1], len(background)).mean(axis=-1)
        return means

    def main_variance(column: int) -> float:
        weights = grids[column][1]
        effect = heights((column,), inputs[order[:MAX_BACKGROUND_SETUPS]])
        return float(weights @ (effect - weights @ effect) ** 2)

    def pair_variance(first: int, second: int) -> float:
        rows, columns = grids[first][1], grids[second][1]
        effect = heights((first, second), inputs[order[:MAX_BACKGROUND_SETUPS_OF_PAIRS]])
        effect = effect - rows @ effect
        effect = effect - (effect @ columns)[:, None]
        return float(rows @ effect**2 @ columns)

    variances = []
    for term in terms:
        check()
        variances.append(main_variance(*term) if len(term) == 1 else pair_variance(*term))
    return np.array(variances)


def _evaluation_values(column: Floats) -> tuple[Floats, Floats]:
    """Return up to `MAX_VALUES` values of a column (C,) and the share of the configurations each represents."""
    values, counts = np.unique(column, return_counts=True)
    if len(values) > MAX_VALUES:
        values = np.quantile(column, (np.arange(MAX_VALUES) + 0.5) / MAX_VALUES)
        counts = np.ones(MAX_VALUES, dtype=np.int64)
    return values, counts / counts.sum()
