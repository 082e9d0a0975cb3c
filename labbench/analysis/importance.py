"""Functional ANOVA: share of the variance explained by each parameter, by each pair and by seeds.

On a full factorial the decomposition is exact (Hooker 2007; Hutter, Hoos & Leyton-Brown 2014) for any number of seeds
per cell, because every cell has the same weight. Noise in the means adds to the variance of every term, so its expected
value is subtracted. A grid with holes is reduced to the values that were run with all values of the other parameters.
If less than half of the configurations remain, as in a random search, a random forest is fitted (`forest`), provided
that there are enough configurations; else an additive model, in which interactions count as unexplained.

Shapes: C configurations, K cells of a factorial, T terms (main effects and pairs), D simulated draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np

from labbench.analysis import forest
from labbench.analysis.effects import can_fit_additive, indicator_columns, level_means
from labbench.analysis.intervals import Interval
from labbench.analysis.noise.runs import Noise
from labbench.analysis.table import Check, Floats, Ints, Parameter, Table, never_cancelled

SIMULATION_COUNT = 400
"""Number of simulated draws behind the intervals (parametric bootstrap with a fixed seed)."""
MAX_CELLS_PER_SETUP = 4
"""Largest number of cells per configuration for which a grid is treated as a factorial."""

Term: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Importance:
    """Shares of the variance of a single run, 0 to 1.

    Every value of every parameter has the same weight.
    """

    method: Literal["full factorial", "part of the grid", "random forest", "additive model"]
    main_effects: dict[str, Interval]
    """Share of the main effect, by parameter."""
    pairs: dict[tuple[str, str], Interval]
    """Share of the interaction beyond both main effects, by pair; empty for an additive model."""
    rest: float
    """Share of interactions of three and more parameters; for a model (additive, forest) all that is unexplained."""
    seeds: float | None
    """Share due to seeds; None if no configuration was run with a second seed."""
    setups: int
    """Number of configurations in the analysis."""
    left_out: tuple[tuple[str, Any], ...] = ()
    """Excluded (parameter, value) pairs, which were not run with every value of the other parameters."""
    paired: int | None = None
    """Number of parameters whose interactions were estimated; None for all."""
    factorial: Ints | None = field(default=None, compare=False)
    """Indices of the configurations that are a full factorial, shape (setups,); None for a model."""


def importance(
    table: Table, noise: Noise | None, *, may_ask_forest: bool = True, check: Check = never_cancelled
) -> Importance | None:
    """Decompose the variance of a table in which every configuration has values.

    Returns None if nothing varies. `may_ask_forest` allows a random forest. `check` is called between steps and may
    raise to cancel.
    """
    free = [p for p in table.independent if p.parent is None and len(np.unique(p.codes)) > 1]
    if not free or not float(np.ptp(table.means)) > 0:
        return None
    binned = any(p.spans for p in free)  # configurations in one cell of bins differ
    rows, left_out = (np.zeros(0, dtype=np.int64), ()) if binned else _reduce_to_factorial(free, len(table.setups))
    if 2 * len(rows) >= len(table.setups) and float(np.ptp(table.means[rows])) > 0:
        return _factorial_importance(table, noise, free, rows, left_out)
    if may_ask_forest and len(table.setups) >= forest.MIN_SETUPS and len(table.independent) > 1:
        return _forest_importance(table, noise, check)
    return _additive_importance(table, noise)


def _reduce_to_factorial(parameters: list[Parameter], setups: int) -> tuple[Ints, tuple[tuple[str, Any], ...]]:
    """Drop values until every remaining combination was run.

    Returns the remaining rows and the dropped (parameter, value) pairs. The value with the most missing combinations is
    dropped first. No rows if the grid is too sparse.
    """
    shape = tuple(len(p.levels) for p in parameters)
    if math.prod(shape) > MAX_CELLS_PER_SETUP * setups:
        return np.zeros(0, dtype=np.int64), ()
    filled = np.zeros(shape, dtype=np.bool_)
    filled[tuple(p.codes for p in parameters)] = True
    levels_left = [np.arange(size) for size in shape]
    dropped: list[tuple[str, Any]] = []
    while not filled[np.ix_(*levels_left)].all():
        part = filled[np.ix_(*levels_left)]
        empty = [1.0 - part.mean(axis=tuple(a for a in range(part.ndim) if a != axis)) for axis in range(part.ndim)]
        # keep at least two values of a parameter while another parameter has more
        axis = max(range(part.ndim), key=lambda a: (len(levels_left[a]) > 2, float(empty[a].max())))
        if len(levels_left[axis]) <= 2:
            return np.zeros(0, dtype=np.int64), ()
        worst = int(empty[axis].argmax())
        dropped.append((parameters[axis].name, parameters[axis].levels[levels_left[axis][worst]]))
        levels_left[axis] = np.delete(levels_left[axis], worst)
    inside = np.all([np.isin(p.codes, levels) for p, levels in zip(parameters, levels_left, strict=True)], axis=0)
    rows = np.flatnonzero(inside)
    tried = [(p.name, p.levels[code]) for p in parameters for code in np.unique(p.codes)]
    return rows, tuple(entry for entry in dropped if entry in tried)


@dataclass(frozen=True, slots=True)
class _Factorial:
    """Cells of a full factorial: one for each combination of values."""

    names: list[str]
    """Names of the parameters, in the order of the axes."""
    shape: tuple[int, ...]
    """Number of values of each parameter."""
    means: Floats
    """Mean of each cell, shape (K,)."""
    variances: Floats
    """Noise variance of the mean of each cell, shape (K,)."""

    @property
    def terms(self) -> list[Term]:
        """Main effects, then pairs."""
        return [*((name,) for name in self.names), *combinations(self.names, 2)]

    def denoised_parts(self, heights: Floats, noise_level: float) -> Floats:
        """Return the variance of each term, then the total, shape (D, T + 1), for heights (D, K)."""
        axes = [tuple(self.names.index(name) for name in term) for term in self.terms]
        raw = _decompose_variance(heights.reshape(-1, *self.shape), axes)
        degrees = [math.prod(self.shape[a] - 1 for a in term) for term in axes]
        expected = np.array([*degrees, len(self.means) - 1.0]) * (noise_level / len(self.means))
        return raw - expected


def _factorial_importance(
    table: Table, noise: Noise | None, free: list[Parameter], rows: Ints, left_out: tuple[tuple[str, Any], ...]
) -> Importance:
    cells = _average_cells(table, noise, free, rows)
    children = {p.name: _child_variance(table, noise, p) for p in table.independent if p.parent is not None}
    runs = 0.0 if noise is None else float(noise.total.raw[rows].mean())
    level = float(cells.variances.mean())
    parts = cells.denoised_parts(cells.means[None], level)[0]
    total = max(float(parts[-1]), float(parts[:-1].clip(0).sum())) + sum(children.values()) + runs
    simulated = None
    if noise is not None and level > 0:
        simulated = _simulate_shares(cells, noise.unshared.total_df, children=sum(children.values()), runs=runs)
    shares = {
        term: _share_interval(float(v) / total, None if simulated is None else simulated[:, i])
        for i, (term, v) in enumerate(zip(cells.terms, parts[:-1], strict=True))
    }
    mains = {name: shares[name,] for name in cells.names}
    mains |= {name: Interval(v / total) for name, v in children.items()}
    pairs = {(term[0], term[1]): share for term, share in shares.items() if len(term) == 2}
    explained = sum(share.mean for share in (*mains.values(), *pairs.values())) + runs / total
    whole = len(rows) == len(table.setups)
    return Importance(
        method="full factorial" if whole else "part of the grid",
        main_effects=mains,
        pairs=pairs,
        rest=float(max(0.0, 1.0 - explained)),
        seeds=None if noise is None else runs / total,
        setups=len(rows),
        left_out=left_out,
        factorial=rows,
    )


def _average_cells(table: Table, noise: Noise | None, free: list[Parameter], rows: Ints) -> _Factorial:
    """Average the configurations of each cell."""
    coded = [np.unique(p.codes[rows], return_inverse=True)[1] for p in free]
    shape = tuple(int(codes.max()) + 1 for codes in coded)
    cell = np.ravel_multi_index(tuple(coded), shape)
    members = np.bincount(cell)
    return _Factorial(
        names=[p.name for p in free],
        shape=shape,
        means=np.bincount(cell, weights=table.means[rows]) / members,
        variances=np.bincount(cell, weights=_variance_of_means(table, noise)[rows]) / members**2,
    )


def _simulate_shares(cells: _Factorial, df: float, *, children: float, runs: float) -> Floats:
    """Return the shares of the terms in simulated factorials, shape (D, T).

    Args:
        cells: Measured cells.
        df: Degrees of freedom of the noise variance.
        children: Variance that conditional parameters add to the total.
        runs: Variance due to seeds.
    """
    generator = np.random.default_rng(0)
    scale = np.sqrt(df / generator.chisquare(df, size=(SIMULATION_COUNT, 1)))
    deviations = generator.standard_normal((SIMULATION_COUNT, len(cells.means)))
    draws = cells.means + deviations * np.sqrt(cells.variances) * scale
    # noise of the measured means plus noise of the draw
    parts = cells.denoised_parts(draws, 2.0 * float(cells.variances.mean()))
    totals = np.maximum(parts[:, -1:], 0.0) + children + runs * scale**2
    return np.asarray(parts[:, :-1] / totals)


def _decompose_variance(heights: Floats, terms: list[tuple[int, ...]]) -> Floats:
    """Return the variance of each term of the functional ANOVA, then the total (Hooker 2007).

    The result has shape (D, T + 1). `heights` has shape (D, levels of parameter 0, levels of parameter 1, ...); a term
    is one parameter index or two.
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
    """Return the noise variance of each mean, shape (C,), without effects of seeds shared by all configurations."""
    return np.zeros(len(table.setups)) if noise is None else noise.unshared.raw / noise.counts


def _child_variance(table: Table, noise: Noise | None, child: Parameter) -> float:
    """Return the variance that a conditional parameter adds to the whole grid, weighted by where it exists."""
    means = level_means(table, child)
    if len(means.levels) < 2:
        return 0.0
    weights = means.weights - means.weights.mean(axis=0)
    raw = float(((weights @ table.means) ** 2).mean())
    expected = 0.0 if noise is None else noise.variance_of_combination(weights).variance / len(weights)
    return float(child.present().mean()) * max(0.0, raw - expected)


def _share_interval(share: float, simulated: Floats | None) -> Interval:
    """Return a share with the middle 95 % of simulated shares (D,), clipped to 0 and 1."""
    clipped = float(min(max(share, 0.0), 1.0))
    if simulated is None:
        return Interval(clipped)
    low, high = np.quantile(simulated, [0.025, 0.975]).clip(0.0, 1.0)
    return Interval(clipped, min(float(low), clipped), max(float(high), clipped))


def _additive_importance(table: Table, noise: Noise | None) -> Importance:
    """Return the shares explained by an additive least-squares fit.

    With too few data, each parameter has its own fit. A share is the covariance of a parameter's effect with the whole
    fit, so that shares add up for correlated parameters too, as in a grid with holes, and a parameter without effect
    gets 0 (Pratt 1987; Li et al. 2010, doi:10.1021/jp9096919). The noise in a share has as many degrees of freedom as
    the parameter.
    """
    n = len(table.setups)
    blocks = [indicator_columns(p, np.arange(n)) for p in table.independent]
    effects = _effect_matrices(blocks)
    degrees = np.array([float(np.trace(effect)) for effect in effects])
    residuals = table.means - table.means.mean() - sum(effect @ table.means for effect in effects)
    variance, df = float(_variance_of_means(table, noise).mean()), 0.0 if noise is None else noise.unshared.total_df
    if can_fit_additive(table):
        df = n - 1.0 - float(degrees.sum())
        variance = float(residuals @ residuals) / df
    together = df > 0 and np.allclose(degrees, [np.linalg.matrix_rank(block - block.mean(axis=0)) for block in blocks])
    if not together:
        effects = [_effect_matrices([block])[0] for block in blocks]
    expected = np.array([float(np.trace(effect)) for effect in effects]) * variance / n
    parts = (_explained_variances(effects, table.means[:, None], together=together)[:, 0] - expected).clip(0.0)
    runs, total = _seed_and_total_variance(table, noise)
    total = max(total, float(parts.sum()) + runs)
    shares = [Interval(float(part) / total) for part in parts]
    if together:
        generator = np.random.default_rng(0)
        scale = math.sqrt(variance) * np.sqrt(df / generator.chisquare(df, size=SIMULATION_COUNT))
        draws = (table.means - residuals)[:, None] + generator.standard_normal((n, SIMULATION_COUNT)) * scale
        # noise enters twice: in the fit that draws are centred on, and in the draws themselves
        simulated = (_explained_variances(effects, draws, together=True) - 2.0 * expected[:, None]) / total
        shares = [_share_interval(share.mean, drawn) for share, drawn in zip(shares, simulated, strict=True)]
    mains = dict(zip((p.name for p in table.independent), shares, strict=True))
    explained = sum(share.mean for share in shares) + runs / total
    seeds = None if noise is None else runs / total
    return Importance("additive model", mains, {}, float(max(0.0, 1.0 - explained)), seeds, n)


def _effect_matrices(blocks: list[Floats]) -> list[Floats]:
    """Return one matrix (C, C) per block of columns.

    It maps means (C,) to the block's centred effect in a joint fit.
    """
    design = np.column_stack([np.ones(len(blocks[0])), *blocks])
    solution = np.linalg.pinv(design, rcond=1e-10)
    effects, first = [], 1
    for block in blocks:
        centred = block - block.mean(axis=0)
        effects.append(centred @ solution[first : first + block.shape[1]])
        first += block.shape[1]
    return effects


def _explained_variances(effects: list[Floats], heights: Floats, *, together: bool) -> Floats:
    """Return the variance of heights (C, D) that each effect explains, shape (parameters, D).

    `together` is True for one fit of all parameters, False for one fit per parameter.
    """
    fitted = np.stack([effect @ heights for effect in effects])  # (parameters, C, D)
    fit = fitted.sum(axis=0) if together else fitted
    return np.asarray((fitted * fit).mean(axis=1))


def _seed_and_total_variance(table: Table, noise: Noise | None) -> tuple[float, float]:
    """Return the variance of a single run that is due to seeds, and its total variance."""
    runs = 0.0 if noise is None else float(noise.total.raw.mean())
    return runs, max(float(table.means.var(ddof=1)) - float(_variance_of_means(table, noise).mean()), 0.0) + runs


def _forest_importance(table: Table, noise: Noise | None, check: Check) -> Importance:
    """Return the shares that a random forest attributes to parameters and pairs, without intervals."""
    parts = forest.decompose_variance(table, check)
    runs, total = _seed_and_total_variance(table, noise)
    explained = sum(parts.main_effects.values()) + sum(parts.pairs.values())
    total = max(total, explained + runs)
    return Importance(
        method="random forest",
        main_effects={name: Interval(variance / total) for name, variance in parts.main_effects.items()},
        pairs={names: Interval(variance / total) for names, variance in parts.pairs.items()},
        rest=float(max(0.0, 1.0 - (explained + runs) / total)),
        seeds=None if noise is None else runs / total,
        setups=len(table.setups),
        paired=forest.MAX_PAIRED if len(parts.main_effects) > forest.MAX_PAIRED else None,
    )
