"""Functional ANOVA of a random search by a random forest (Hutter, Hoos & Leyton-Brown 2014).

The forest (Breiman 2001) predicts configurations that were not run. A leaf of a tree is a box with one prediction. So
the mean prediction at a value of a parameter, over all combinations of the tried values of the other parameters, is a
sum over leaves: their prediction times the share of these combinations in their box (Hutter et al. 2014).

All trees are grown together, one level at a time, from histograms of the parameters' values (LightGBM, Ke et al. 2017).
This takes less time than the import of a library of trees.

Shapes: C configurations, P parameters, B bins of their values, T trees, E pairs of a tree and a configuration, K nodes
of a level, L leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.table import Check, Floats, Ints, Parameter, Table, never_cancelled

MIN_SETUPS = 30
"""Smallest number of configurations for a forest; below it an additive model explains more."""
TREE_COUNT, PERMUTED_TREE_COUNT = 50, 25
"""Number of trees of the forest, and of each forest that is fitted to permuted residuals."""
MAX_TREE_SETUPS = 500
"""Number of configurations drawn for a tree; more take longer and estimate noisy effects no better."""
MIN_LEAF_SETUPS, MIN_LEAF_SETUPS_OF_MANY = 2, 4
"""Smallest number of different configurations of a leaf, and that for more than `MAX_TREE_SETUPS` configurations."""
MAX_VALUES, BIN_COUNT = 32, 16
"""Number of values of a parameter above which they are binned, and the number of bins, of equal numbers of values."""
MAX_PAIRED = 10
"""Largest number of parameters whose interactions are estimated, those with the largest main effects."""
PERMUTATION_COUNT = 2
"""Number of forests fitted to permuted residuals, to estimate the variance that a forest attributes to noise."""
MIN_GAIN = 1e-9
"""Reduction of the sum of squares, in variances of the targets, below which a node is not split."""

Term: TypeAlias = tuple[int, ...]
"""Columns of one parameter or of a pair."""


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variance of the configurations' means by term of the functional ANOVA."""

    main_effects: dict[str, float]
    """Variance by parameter."""
    pairs: dict[tuple[str, str], float]
    """Variance of the interaction by pair of parameters, for the `MAX_PAIRED` largest main effects."""


@dataclass(frozen=True, slots=True)
class BinnedInputs:
    """Bins of the parameters' values, in ascending order."""

    bins: Ints
    """Bin of each value, shape (C, P)."""
    shares: Floats
    """Share of the configurations in each bin, shape (P, B)."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """Leaves of T trees: boxes of bins with their predictions."""

    trees: int
    low: Ints
    """First bin of each leaf, by parameter, shape (L, P)."""
    high: Ints
    """Bin after the last one, shape (L, P)."""
    value: Floats
    """Prediction, shape (L,)."""


def decompose_variance(table: Table, check: Check = never_cancelled) -> VarianceParts:
    """Return the variance explained by each parameter and each pair, minus the share expected from noise.

    The interaction of two parameters without main effects is underestimated, because greedy splits rarely find it.
    Deterministic: the same table gives the same numbers. `check` is called between steps and may raise to cancel.
    """
    names = [p.name for p in table.independent]
    inputs, generator = bin_columns([_rank_column(p, table) for p in table.independent]), np.random.default_rng(0)
    scale = float(table.means.std())
    targets = (table.means - table.means.mean()) / scale
    bags = draw_bags(generator, TREE_COUNT, len(targets))
    fitted, predictions = grow_trees(inputs, bags, np.broadcast_to(targets, bags.shape), check)
    outside = bags == 0
    predicted = (predictions * outside).sum(axis=0) / np.maximum(outside.sum(axis=0), 1)  # out of bag
    mains: list[Term] = [(column,) for column in range(len(names))]
    of_mains = effect_variances(fitted, inputs, mains, check)
    paired = sorted(np.argsort(-of_mains, kind="stable")[:MAX_PAIRED].tolist())
    pairs: list[Term] = list(combinations(paired, 2))
    noise = []
    for _ in range(PERMUTATION_COUNT):
        bags = draw_bags(generator, PERMUTED_TREE_COUNT, len(targets))
        residuals = np.broadcast_to(generator.permutation(targets - predicted), bags.shape)
        noise.append(effect_variances(grow_trees(inputs, bags, residuals, check)[0], inputs, mains + pairs, check))
    variances = np.concatenate([of_mains, effect_variances(fitted, inputs, pairs, check)])
    signal = (variances - np.mean(noise, axis=0)).clip(0.0)
    parts = (signal * (scale * _calibration_slope(targets, predicted)) ** 2).tolist()
    pair_names = [(names[first], names[second]) for first, second in pairs]
    return VarianceParts(dict(zip(names, parts, strict=False)), dict(zip(pair_names, parts[len(names) :], strict=True)))


def _rank_column(parameter: Parameter, table: Table) -> Ints:
    """Return the ranks of the parameter's unbinned values, shape (C,).

    Trees depend on the order of values only.
    """
    if not parameter.spans:
        return np.unique(parameter.codes, return_inverse=True)[1]
    values = [setup.config.get(parameter.name) for setup in table.setups]
    numbers = [-np.inf if value is None else float(value) for value in values]
    return np.unique(numbers, return_inverse=True)[1]


def bin_columns(ranks: Sequence[Ints]) -> BinnedInputs:
    """Bin columns of ranks from 0 on, each of shape (C,): each rank alone, or quantiles of more than `MAX_VALUES`."""
    columns = []
    for column in ranks:
        if column.max() >= MAX_VALUES:
            edges = np.unique(np.quantile(column, np.arange(1, BIN_COUNT) / BIN_COUNT))
            column = np.unique(np.searchsorted(edges, column, side="left"), return_inverse=True)[1]
        columns.append(column)
    bins = np.column_stack(columns).astype(np.int64)
    size = int(bins.max()) + 1
    return BinnedInputs(bins, np.stack([np.bincount(column, minlength=size) for column in bins.T]) / len(bins))


def draw_bags(generator: np.random.Generator, trees: int, setups: int) -> Ints:
    """Return the number of times that each tree draws each configuration, shape (T, C) (bootstrap)."""
    drawn = generator.integers(setups, size=(trees, min(setups, MAX_TREE_SETUPS)))
    drawn += setups * np.arange(trees)[:, None]
    return np.bincount(drawn.ravel(), minlength=trees * setups).reshape(trees, setups)


def _calibration_slope(means: Floats, predicted: Floats) -> float:
    """Return the slope of the means (C,) on out-of-bag predictions (C,), at least 0.

    A forest shrinks effects by averaging; multiplying by this slope corrects their size.
    """
    return max(0.0, float(np.polyfit(predicted, means, 1)[0])) if np.ptp(predicted) > 0 else 0.0


def grow_trees(inputs: BinnedInputs, bags: Ints, targets: Floats, check: Check) -> tuple[Leaves, Floats]:
    """Grow a regression tree for each bag, and return the leaves and all predictions, shape (T, C).

    `bags` and `targets` have shape (T, C); targets have a variance of about 1. A configuration that is not in a bag
    does not affect its tree.
    """
    trees, setups = bags.shape
    columns, size = inputs.shares.shape
    smallest = MIN_LEAF_SETUPS if setups <= MAX_TREE_SETUPS else MIN_LEAF_SETUPS_OF_MANY
    tree, row = (index.ravel() for index in np.indices((trees, setups)))  # (E,)
    node = tree
    predictions = np.empty((trees, setups))
    low, high = np.zeros((trees, columns), dtype=np.int64), np.full((trees, columns), size)
    ends: list[tuple[Ints, Ints, Floats]] = []
    while len(low):
        check()
        drawn = np.flatnonzero(bags[tree, row])
        drawn_tree, drawn_row = tree[drawn], row[drawn]
        weight, target = bags[drawn_tree, drawn_row], targets[drawn_tree, drawn_row]
        split = _find_splits(inputs.bins[drawn_row], node[drawn], weight, target, size, smallest)
        is_leaf = split.column < 0
        ends.append((low[is_leaf], high[is_leaf], split.mean[is_leaf]))
        at_leaf = is_leaf[node]
        predictions[tree[at_leaf], row[at_leaf]] = split.mean[node[at_leaf]]
        tree, row, node = tree[~at_leaf], row[~at_leaf], node[~at_leaf]
        is_right = inputs.bins[row, split.column[node]] > split.last_bin[node]
        node = 2 * (np.cumsum(~is_leaf) - 1)[node] + is_right
        low, high = split.cut_boxes(low, high)
    return Leaves(trees, *(np.concatenate(parts) for parts in zip(*ends, strict=True))), predictions


@dataclass(frozen=True, slots=True)
class _Splits:
    """Best split of each node of a level."""

    mean: Floats
    """Mean target of the node, shape (K,)."""
    column: Ints
    """Parameter that is split, -1 for a leaf, shape (K,)."""
    last_bin: Ints
    """Last bin of its lower half, shape (K,)."""

    def cut_boxes(self, low: Ints, high: Ints) -> tuple[Ints, Ints]:
        """Return the first bins, and those after the last, of the halves of all nodes that are split."""
        nodes = np.flatnonzero(self.column >= 0)
        low, high = np.repeat(low[nodes], 2, axis=0), np.repeat(high[nodes], 2, axis=0)
        lower_half = 2 * np.arange(len(nodes))
        high[lower_half, self.column[nodes]] = low[lower_half + 1, self.column[nodes]] = self.last_bin[nodes] + 1
        return low, high


def _find_splits(bins: Ints, node: Ints, weight: Ints, target: Floats, size: int, smallest: int) -> _Splits:
    """Return the split of each node that leaves the smallest sum of squares, and leaves of at least `smallest` setups.

    Shapes: bins (E, P), all below `size`; node, weight (above 0) and target (E,).
    """
    nodes, columns = int(node.max()) + 1, bins.shape[1]
    keys = ((node[:, None] * columns + np.arange(columns)) * size + bins).ravel()

    def sums(values: Floats | Ints | None) -> Floats:
        """Return the sum of values up to each bin, shape (K, P, B)."""
        by_column = None if values is None else np.repeat(values, columns)
        return np.bincount(keys, by_column, nodes * columns * size).reshape(nodes, columns, size).cumsum(axis=2)

    setups, weights, targets = sums(None), sums(weight), sums(weight * target)
    total_setups, total_weight, total = setups[..., -1:], weights[..., -1:], targets[..., -1:]
    is_valid = (setups >= smallest) & (total_setups - setups >= smallest)
    gain = np.full(weights.shape, -np.inf)
    np.divide(targets**2, weights, out=gain, where=is_valid)
    gain += np.divide((total - targets) ** 2, total_weight - weights, out=np.zeros(gain.shape), where=is_valid)
    by_node = gain.reshape(nodes, columns * size)
    best = by_node.argmax(axis=1)
    weight_of_node, sum_of_node = total_weight[:, 0, 0], total[:, 0, 0]
    is_split = by_node[np.arange(nodes), best] - sum_of_node**2 / weight_of_node > MIN_GAIN
    return _Splits(sum_of_node / weight_of_node, np.where(is_split, best // size, -1), best % size)


def effect_variances(leaves: Leaves, inputs: BinnedInputs, terms: Sequence[Term], check: Check) -> Floats:
    """Return the variance of the effect of each term, beyond the main effects in it, shape (terms,)."""
    edges = np.column_stack([np.zeros(len(inputs.shares)), inputs.shares.cumsum(axis=1)])  # (P, B + 1)
    each = np.arange(len(edges))
    mass = edges[each, leaves.high] - edges[each, leaves.low]  # share of the configurations in a box's side, (L, P)
    weighted = leaves.value * mass.prod(axis=1) / leaves.trees
    all_bins = np.arange(inputs.shares.shape[1])

    def bins_inside(column: int) -> Floats:
        """Return 1 for bins within the box of a leaf, else 0, shape (L, B)."""
        inside: NDArray[np.bool_] = leaves.low[:, column, None] <= all_bins
        return (inside & (all_bins < leaves.high[:, column, None])).astype(np.float64)

    def main_variance(column: int) -> float:
        shares = inputs.shares[column]
        effect = (weighted / mass[:, column]) @ bins_inside(column)
        return float(shares @ (effect - shares @ effect) ** 2)

    def pair_variance(first: int, second: int) -> float:
        rows, columns = inputs.shares[first], inputs.shares[second]
        weights = weighted / (mass[:, first] * mass[:, second])
        effect = (bins_inside(first) * weights[:, None]).T @ bins_inside(second)
        effect = effect - rows @ effect
        effect = effect - (effect @ columns)[:, None]
        return float(rows @ effect**2 @ columns)

    variances = []
    for term in terms:
        check()
        variances.append(main_variance(*term) if len(term) == 1 else pair_variance(*term))
    return np.array(variances)
