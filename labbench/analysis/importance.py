"""Functional ANOVA: which share of the variance each parameter explains, alone and in pairs, and what seeds leave.

On a full factorial the decomposition is exact (Hooker 2007; Hutter, Hoos & Leyton-Brown 2014), whatever the number of
seeds per cell: every cell counts the same. The noise of the means would pass for variance of every term; its expected
part is taken off. A grid with holes is reduced to the values that were tried with everything else. Where that leaves
less than half, as in a random search, a random forest is asked (`forest`) where scikit-learn is installed and set-ups
are enough; else an additive model of all parameters: what it cannot say (interactions) counts as unexplained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np

from labbench.analysis import forest
from labbench.analysis.effects import can_fit_additive, indicator_columns, level_means
from labbench.analysis.intervals import Interval
from labbench.analysis.noise import Noise
from labbench.analysis.table import Floats, Ints, Parameter, Table

SIMULATION_COUNT = 400
"""Simulated repetitions behind the intervals; their random numbers are fixed."""
MAX_CELLS_PER_SETUP = 4
"""A grid of more cells than this times its set-ups is no factorial."""

Term: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Importance:
    """Shares of the variance of a single run, when every value of every parameter counts the same."""

    method: Literal["full factorial", "part of the grid", "random forest", "additive model"]
    main_effects: dict[str, Interval]
    """By parameter: its own share, averaged over the others."""
    pairs: dict[tuple[str, str], Interval]
    """By pair: what the two do together beyond the sum of each; empty for an additive model."""
    rest: float
    """Interactions of three and more; for a model (additive, forest) all that it leaves unexplained."""
    seeds: float | None
    """What is left between runs that differ by their seed alone; None where no set-up has two."""
    setups: int
    """How many set-ups it was computed from."""
    left_out: tuple[tuple[str, Any], ...] = ()
    """Values (parameter, value) that were not tried with everything else."""
    wants_forest: bool = False
    """With scikit-learn the interactions could be told too."""


def importance(table: Table, noise: Noise | None, *, may_ask_forest: bool | None = None) -> Importance | None:
    """Decompose the variance of a table whose set-ups all have values; None where nothing varies.

    `may_ask_forest` None means where scikit-learn is installed.
    """
    free = [p for p in table.independent if p.parent is None and len(np.unique(p.codes)) > 1]
    if not free or not float(np.ptp(table.means)) > 0:
        return None
    binned = any(p.spans for p in free)  # set-ups in one cell of bins are not alike
    rows, left_out = (np.zeros(0, dtype=np.int64), ()) if binned else _reduce_to_factorial(free, len(table.setups))
    if 2 * len(rows) >= len(table.setups):
        return _factorial_importance(table, noise, free, rows, left_out)
    enough = len(table.setups) >= forest.MIN_SETUPS and len(table.independent) > 1
    if enough and (forest.is_available() if may_ask_forest is None else may_ask_forest):
        return _forest_importance(table, noise)
    return replace(_additive_importance(table, noise), wants_forest=enough)


def _reduce_to_factorial(parameters: list[Parameter], setups: int) -> tuple[Ints, tuple[tuple[str, Any], ...]]:
    """The set-ups that remain once the values that miss most partners are dropped, until none misses any."""
    shape = tuple(len(p.levels) for p in parameters)
    if math.prod(shape) > MAX_CELLS_PER_SETUP * setups:
        return np.zeros(0, dtype=np.int64), ()
    filled = np.zeros(shape, dtype=np.bool_)
    filled[tuple(p.codes for p in parameters)] = True
    kept = [np.arange(size) for size in shape]
    dropped: list[tuple[str, Any]] = []
    while not filled[np.ix_(*kept)].all():
        part = filled[np.ix_(*kept)]
        empty = [1.0 - part.mean(axis=tuple(a for a in range(part.ndim) if a != axis)) for axis in range(part.ndim)]
        # a parameter keeps two values as long as another one can give way
        axis = max(range(part.ndim), key=lambda a: (len(kept[a]) > 2, float(empty[a].max())))
        if len(kept[axis]) <= 2:
            return np.zeros(0, dtype=np.int64), ()
        worst = int(empty[axis].argmax())
        dropped.append((parameters[axis].name, parameters[axis].levels[kept[axis][worst]]))
        kept[axis] = np.delete(kept[axis], worst)
    inside = np.all([np.isin(p.codes, levels) for p, levels in zip(parameters, kept, strict=True)], axis=0)
    rows = np.flatnonzero(inside)
    tried = [(p.name, p.levels[code]) for p in parameters for code in np.unique(p.codes)]
    return rows, tuple(entry for entry in dropped if entry in tried)


def _factorial_importance(
    table: Table, noise: Noise | None, free: list[Parameter], rows: Ints, left_out: tuple[tuple[str, Any], ...]
) -> Importance:
    coded = [np.unique(p.codes[rows], return_inverse=True)[1] for p in free]
    shape = tuple(int(codes.max()) + 1 for codes in coded)
    cell = np.ravel_multi_index(tuple(coded), shape)
    members = np.bincount(cell)
    cells = np.bincount(cell, weights=table.means[rows]) / members
    names = [p.name for p in free]
    terms: list[Term] = [(name,) for name in names] + list(combinations(names, 2))
    axes = [tuple(names.index(name) for name in term) for term in terms]
    children = {p.name: _child_variance(table, noise, p) for p in table.independent if p.parent is not None}
    runs = 0.0 if noise is None else float(noise.total.raw[rows].mean())
    of_cells = np.bincount(cell, weights=_variance_of_means(table, noise)[rows]) / members**2

    def parts(heights: Floats, noise_level: float) -> Floats:
        """(draws, terms + 1): variance of each term, then the total, for (draws, cells) heights."""
        found = _decompose_variance(heights.reshape(-1, *shape), axes)
        degrees = [math.prod(shape[a] - 1 for a in term) for term in axes]
        expected = np.array([*degrees, len(cells) - 1.0]) * (noise_level / len(cells))
        return found - expected

    level = float(of_cells.mean())
    found = parts(cells[None], level)[0]
    total = max(float(found[-1]), float(found[:-1].clip(0).sum())) + sum(children.values()) + runs
    simulated = None
    if noise is not None and level > 0:
        generator = np.random.default_rng(0)
        scale = np.sqrt(
            noise.unshared.total_df / generator.chisquare(noise.unshared.total_df, size=(SIMULATION_COUNT, 1))
        )
        draws = cells + generator.standard_normal((SIMULATION_COUNT, len(cells))) * np.sqrt(of_cells) * scale
        pieces = parts(draws, 2.0 * level)  # the noise of the grid and that of the draw
        totals = np.maximum(pieces[:, -1:], 0.0) + sum(children.values()) + runs * scale**2
        simulated = pieces[:, :-1] / totals
    shares = [
        _share_interval(float(v) / total, None if simulated is None else simulated[:, i])
        for i, v in enumerate(found[:-1])
    ]
    alone = dict(zip(names, shares, strict=False)) | {name: Interval(v / total) for name, v in children.items()}
    pairs = {(term[0], term[1]): share for term, share in zip(terms[len(names) :], shares[len(names) :], strict=True)}
    told = sum(share.mean for share in (*alone.values(), *pairs.values())) + runs / total
    whole = len(rows) == len(table.setups)
    return Importance(
        method="full factorial" if whole else "part of the grid",
        main_effects=alone,
        pairs=pairs,
        rest=float(max(0.0, 1.0 - told)),
        seeds=None if noise is None else runs / total,
        setups=len(rows),
        left_out=left_out,
    )


def _decompose_variance(heights: Floats, terms: list[tuple[int, ...]]) -> Floats:
    """(draws, terms + 1) variances: of each main effect and each pair's interaction, and of everything.

    `heights` is (draws, levels of the first parameter, levels of the second, ...); a term names one or two of these.
    """
    centred = heights - heights.mean(axis=tuple(range(1, heights.ndim)), keepdims=True)
    mains = [
        centred.mean(axis=tuple(a for a in range(1, heights.ndim) if a != axis), keepdims=True)
        for axis in range(1, heights.ndim)
    ]
    effects = []
    for term in terms:
        others = tuple(a for a in range(1, heights.ndim) if a - 1 not in term)
        effect = mains[term[0]] if len(term) == 1 else centred.mean(axis=others, keepdims=True)
        effects.append(effect - mains[term[0]] - mains[term[1]] if len(term) == 2 else effect)
    return np.stack([(each**2).reshape(len(heights), -1).mean(axis=1) for each in (*effects, centred)], axis=1)


def _variance_of_means(table: Table, noise: Noise | None) -> Floats:
    """(set-ups,): the noise that differs between set-ups; what a seed does to all of them alike cancels."""
    return np.zeros(len(table.setups)) if noise is None else noise.unshared.raw / noise.counts


def _child_variance(table: Table, noise: Noise | None, child: Parameter) -> float:
    """Variance that a parameter which exists in part of the grid adds to the whole of it."""
    means = level_means(table, child)
    if len(means.levels) < 2:
        return 0.0
    weights = means.weights - means.weights.mean(axis=0)
    found = float(((weights @ table.means) ** 2).mean())
    expected = 0.0 if noise is None else noise.variance_of_combination(weights).variance / len(weights)
    return float(child.present().mean()) * max(0.0, found - expected)


def _share_interval(share: float, simulated: Floats | None) -> Interval:
    """A share between 0 and 1, and the middle 95 % of the simulated ones."""
    clipped = float(min(max(share, 0.0), 1.0))
    if simulated is None:
        return Interval(clipped)
    low, high = np.quantile(simulated, [0.025, 0.975]).clip(0.0, 1.0)
    return Interval(clipped, min(float(low), clipped), max(float(high), clipped))


def _additive_importance(table: Table, noise: Noise | None) -> Importance:
    """Each parameter's part of what an additive least-squares fit explains; one at a time where data are too few.

    A part is the covariance of a parameter's effect with the whole fit, so that parts add up also where parameters are
    correlated, as in a grid with holes, and one that does nothing gets nothing (Pratt 1987; Li et al. 2010,
    doi:10.1021/jp9096919). The noise in it has as many degrees of freedom as the parameter.
    """
    n = len(table.setups)
    blocks = [indicator_columns(p, np.arange(n)) for p in table.independent]
    effects = _effect_matrices(blocks)
    degrees = np.array([float(np.trace(effect)) for effect in effects])
    left = table.means - table.means.mean() - sum(effect @ table.means for effect in effects)
    variance, df = float(_variance_of_means(table, noise).mean()), 0.0 if noise is None else noise.unshared.total_df
    if can_fit_additive(table):
        df = n - 1.0 - float(degrees.sum())
        variance = float(left @ left) / df
    together = df > 0 and np.allclose(degrees, [np.linalg.matrix_rank(block - block.mean(axis=0)) for block in blocks])
    if not together:
        effects = [_effect_matrices([block])[0] for block in blocks]
    expected = np.array([float(np.trace(effect)) for effect in effects]) * variance / n
    found = (_explained_variances(effects, table.means[:, None], together=together)[:, 0] - expected).clip(0.0)
    runs, total = _seed_and_total_variance(table, noise)
    total = max(total, float(found.sum()) + runs)
    shares = [Interval(float(part) / total) for part in found]
    if together:
        generator = np.random.default_rng(0)
        scale = math.sqrt(variance) * np.sqrt(df / generator.chisquare(df, size=SIMULATION_COUNT))
        drawn = (table.means - left)[:, None] + generator.standard_normal((n, SIMULATION_COUNT)) * scale
        # a draw holds its own noise, and the fit that it was drawn around that of the grid
        simulated = (_explained_variances(effects, drawn, together=True) - 2.0 * expected[:, None]) / total
        shares = [_share_interval(share.mean, draws) for share, draws in zip(shares, simulated, strict=True)]
    alone = dict(zip((p.name for p in table.independent), shares, strict=True))
    told = sum(share.mean for share in shares) + runs / total
    seeds = None if noise is None else runs / total
    return Importance("additive model", alone, {}, float(max(0.0, 1.0 - told)), seeds, n)


def _effect_matrices(blocks: list[Floats]) -> list[Floats]:
    """(set-ups, set-ups) for each block of columns: from the heights to its centred effect in a fit of all of them."""
    design = np.column_stack([np.ones(len(blocks[0])), *blocks])
    solution = np.linalg.pinv(design, rcond=1e-10)
    effects, first = [], 1
    for block in blocks:
        centred = block - block.mean(axis=0)
        effects.append(centred @ solution[first : first + block.shape[1]])
        first += block.shape[1]
    return effects


def _explained_variances(effects: list[Floats], heights: Floats, *, together: bool) -> Floats:
    """(parameters, draws): what each effect explains of (set-ups, draws) heights, in one fit or each in its own."""
    found = np.stack([effect @ heights for effect in effects])  # (parameters, set-ups, draws)
    fit = found.sum(axis=0) if together else found
    return np.asarray((found * fit).mean(axis=1))


def _seed_and_total_variance(table: Table, noise: Noise | None) -> tuple[float, float]:
    """The variance that seeds alone make, and all of it, of a single run."""
    runs = 0.0 if noise is None else float(noise.total.raw.mean())
    return runs, max(float(table.means.var(ddof=1)) - float(_variance_of_means(table, noise).mean()), 0.0) + runs


def _forest_importance(table: Table, noise: Noise | None) -> Importance:
    """Each parameter's and each pair's part of what a random forest has learnt; it gives no intervals."""
    found = forest.decompose_variance(table)
    runs, total = _seed_and_total_variance(table, noise)
    told = sum(found.main_effects.values()) + sum(found.pairs.values())
    total = max(total, told + runs)
    return Importance(
        method="random forest",
        main_effects={name: Interval(variance / total) for name, variance in found.main_effects.items()},
        pairs={names: Interval(variance / total) for names, variance in found.pairs.items()},
        rest=float(max(0.0, 1.0 - (told + runs) / total)),
        seeds=None if noise is None else runs / total,
        setups=len(table.setups),
    )
