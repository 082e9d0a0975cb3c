"""Noise of means over many configurations, such as those of the levels of a parameter.

A seed may have another effect under each level: initial weights that suit Adam suit it with every dropout. Then the
runs of one seed and level vary together, and their mean varies more than that of independent runs, or less if the seed
has the same effect under all levels. The level means of each seed show by how much: the mean square of the interaction
of level and seed is the error term of a repeated-measures analysis of variance whose subjects are the seeds (Winer,
Brown & Michels 1991, chapter 4). From it follows the correlation of the runs of one seed and level, and from that the
variance of any combination, also where configurations have unequal numbers of runs.

Shapes: C configurations, V values (one per configuration and seed), S seeds, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from labbench.analysis.intervals import VarianceEstimate
from labbench.analysis.noise.runs import Noise, independent_rows
from labbench.analysis.table import ROUNDING_TOLERANCE, Floats, Ints

MIN_RATIO = 0.1
"""Smallest ratio: with few seeds, level means can vary alike by chance, most of all counts such as an accuracy."""


@dataclass(frozen=True, slots=True)
class LevelNoise:
    """Noise of combinations of the means of levels; made by `learn_level_noise`."""

    runs: Noise
    levels: Ints
    """Index of the level of each configuration, shape (C,)."""
    correlation: float = 0.0
    """Correlation of the runs of one seed and level, without the shift of the seed; negative if levels vary alike."""
    ratio: float = 1.0
    """Variance of the level means, relative to that of independent runs, without the shifts of seeds."""
    df: float | None = None
    """Degrees of freedom of `ratio`; None if it is not estimated."""
    sphericity: float = 1.0
    """Number of independent differences between levels that are worth as much as all of them, as a share of all.

    Below 1 if the seed has similar effects under some levels and others under the rest (Greenhouse & Geisser 1959).
    """

    def variance_of_combination(self, weights: Floats) -> VarianceEstimate:
        """Return the variance of `weights @ means` for weights (C,) that are combinations of the levels' weights.

        For weights (K, C), the sum of K variances.
        """
        runs = self.runs.variance_of_combination(weights)
        if self.df is None:
            return runs
        shared = runs.variance * runs.shared
        independent = runs.variance - shared
        together = self.correlation * float(_squares_together(self.runs, np.atleast_2d(weights), self.levels).sum())
        # equal in a full grid; elsewhere, runs that vary alike by chance say little about the others
        total = max(self.ratio * independent, independent + together) + shared
        return replace(
            runs, variance=total, df=min(self.df, runs.df), shared=shared / total if total > 0 else runs.shared
        )


def learn_level_noise(noise: Noise, weights: Floats, levels: Ints) -> LevelNoise:
    """Return the noise of the levels whose means are `weights @ means`, for weights (L, C) and `levels` (C,).

    The ratio is estimated from the deviations of each level's mean from their common mean, seed by seed, so that
    neither the shift of a seed nor a level whose runs vary much more than the others counts.
    """
    variances = _pooled_variances(noise, weights)
    varying = variances > 0
    if np.count_nonzero(varying) < 2:
        return LevelNoise(noise, levels)
    precision = 1.0 / variances[varying]
    centred = weights[varying] - precision / precision.sum() @ weights[varying]
    return learn_noise_of(noise, centred, levels, len(centred) - 1)


def learn_noise_of(noise: Noise, rows: Floats, levels: Ints, n_independent: int) -> LevelNoise:
    """Return the noise of K combinations of means (K, C), in which shifts of seeds cancel out.

    `n_independent` of them are linearly independent. Configurations with a single run tell nothing of how the runs of a
    seed vary together, and do not count.
    """
    variances = _pooled_variances(noise, rows)
    rows, variances = rows[variances > 0], variances[variances > 0]
    n_independent = min(n_independent, len(rows))
    counted = (np.abs(rows) > ROUNDING_TOLERANCE).any(axis=0) & (noise.counts > 1)
    if noise.shifts is None or np.count_nonzero(counted) <= len(rows):
        return LevelNoise(noise, levels)  # one configuration per level: nothing is averaged
    df = n_independent * (_number_of_seeds(noise, rows) - 1.0)
    if df < 1.0 - 1e-9:
        return LevelNoise(noise, levels)
    deviations = _deviations(noise, rows) / np.sqrt(variances)[:, None]
    ratio = max(MIN_RATIO, float((deviations**2).sum()) / len(deviations))
    together = float((_squares_together(noise, np.where(counted, rows, 0.0), levels) / variances).mean())
    correlation = (ratio - 1.0) / together if together > 1e-9 else 0.0  # 0: no level has two runs of one seed
    sphericity = min(1.0, independent_rows(deviations) / n_independent)
    return LevelNoise(noise, levels, correlation, ratio, max(1.0, sphericity * df), sphericity)


def _squares_together(noise: Noise, rows: Floats, levels: Ints) -> Floats:
    """Return the variance of K combinations if the runs of each seed and level were one run, for rows (K, C).

    Without the variance that they have as independent runs. The result has shape (K,).
    """
    weights = rows * np.sqrt(noise.unshared.pooled) / noise.counts
    n_seeds = int(noise.seed.max()) + 1
    _, group = np.unique(levels[noise.owner] * n_seeds + noise.seed, return_inverse=True)
    alone = (weights**2 * noise.counts).sum(axis=1)
    together = np.array([(np.bincount(group, row[noise.owner]) ** 2).sum() for row in weights])
    return np.asarray(together - alone)


def _pooled_variances(noise: Noise, rows: Floats) -> Floats:
    """Return the variance of K combinations of the means of independent runs, shape (K,), for rows (K, C).

    Of the configurations with several runs, and pooled over each stratum, because a configuration's own variance would
    follow its deviations. 0 for rounding errors.
    """
    factors = np.where(noise.counts > 1, noise.unshared.pooled / noise.counts, 0.0)
    return np.asarray(np.where(np.abs(rows) > ROUNDING_TOLERANCE, rows, 0.0) ** 2 @ factors)


def _number_of_seeds(noise: Noise, rows: Floats) -> float:
    """Return the number of seeds that are worth as much as those of K combinations, which count unequally."""
    squares = np.where(noise.counts > 1, (rows**2).sum(axis=0) / noise.counts**2, 0.0)
    by_seed = np.bincount(noise.seed, squares[noise.owner])
    return float(by_seed.sum() ** 2 / (by_seed**2).sum()) if by_seed.any() else 0.0


def _deviations(noise: Noise, rows: Floats) -> Floats:
    """Return what each seed adds to K combinations of means, for rows (K, C).

    The result has shape (K, seeds of these configurations). The values of each configuration are scaled so that their
    variance is that of single runs (MacKinnon & White 1985, HC2), because configurations may lack seeds.
    """
    counts = noise.counts[noise.owner]
    used = (counts > 1) & (rows != 0).any(axis=0)[noise.owner]
    owner, counts = noise.owner[used], counts[used]
    _, seed = np.unique(noise.seed[used], return_inverse=True)
    scaled = noise.residuals[used] / (counts * np.sqrt(1.0 - 1.0 / counts))
    return np.array([np.bincount(seed, row[owner] * scaled) for row in rows])
