"""Measure the coverage of the intervals that account for tuning: python bench/tuning_coverage.py (a few minutes).

Simulates grids with known means and compares the interval of each tuned value, and of the difference of two of them,
with the mean on new seeds of the setting that tuning picks with one seed fewer. That mean is computed from 40,000
further simulated grids. For comparison: Student's t over the left-out values, which ignores their correlation.

Shapes: C candidates of a value, k seeds.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.distributions import t_quantile
from labbench.analysis.intervals import Interval
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import Observation, Table, tabulate
from labbench.analysis.tuning.tuned_values import compare_all_tuned, pick_without_each_seed

Floats = NDArray[np.float64]
SEEDS = (3, 5)
TRUTH_GRIDS = 40_000
OTHER_MEANS = np.random.default_rng(3).permutation(12) / 11.0
"""Mean score of each candidate, in the problems with scores, shape (12,)."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of one value of a parameter."""

    means: Floats
    """True mean of each candidate, shape (C,)."""
    spreads: Floats
    """Standard deviation of single runs of each candidate, shape (C,)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Candidates of two values, with what is common to them."""

    values: tuple[Candidates, Candidates]
    shared: float = 0.0
    """Standard deviation of the shifts of seeds that are common to all candidates."""
    own: float = 0.0
    """Standard deviation of further shifts of seeds, which are common to the candidates of each value."""
    diverged: float = 0.0
    """Share of the runs that diverge."""
    correlation: float | None = None
    """Correlation of the noise of a run's score, for the choice of a setting, with the noise of its value; None: the
    value is the score. Scores have the spreads of the values, and other means (`OTHER_MEANS`)."""


def _candidates(means: object, spreads: object = 1.0) -> Candidates:
    centre = np.asarray(means, dtype=np.float64)
    return Candidates(centre, np.broadcast_to(np.asarray(spreads, dtype=np.float64), centre.shape))


def make_problems() -> dict[str, Problem]:
    """Return the simulated problems by name."""
    null, near, behind = np.zeros(12), np.linspace(0.0, 1.0, 12), np.linspace(-0.2, 0.9, 12)
    log_normal = np.exp(0.8 * np.random.default_rng(5).standard_normal((2, 12)))
    rates = np.array([0.0, 3.0, 6.0, 9.0, 12.0, 12.5]), np.array([1.0, 4.0, 8.0, 11.0, 10.0, 2.0])
    return {
        "null": Problem((_candidates(null), _candidates(null))),
        "null, 100 settings each": Problem((_candidates(np.zeros(100)), _candidates(np.zeros(100)))),
        "near ties": Problem((_candidates(near), _candidates(behind))),
        "learning rates": Problem((_candidates(rates[0]), _candidates(rates[1]))),
        "far apart": Problem((_candidates(30.0 * near), _candidates(25.0 * near))),
        "spreads 1 and 3": Problem((_candidates(null), _candidates(null, 3.0))),
        "spreads 1 and 3 mixed": Problem((_candidates(null, np.resize([1.0, 3.0], 12)),) * 2),
        "many spreads": Problem((_candidates(near, log_normal[0]), _candidates(near, log_normal[1]))),
        "3 and 40 settings": Problem((_candidates(np.zeros(3)), _candidates(np.zeros(40)))),
        "3 and 40, near ties": Problem((_candidates([0.0, 0.5, 1.0]), _candidates(np.linspace(-1.0, 1.0, 40)))),
        "half shared by seeds": Problem((_candidates(null), _candidates(null)), shared=1.0),
        "half shared, near ties": Problem((_candidates(near), _candidates(behind)), shared=1.0),
        "half is seed and value": Problem((_candidates(near), _candidates(behind)), own=1.0),
        "0.9 is seed and value": Problem((_candidates(near), _candidates(behind)), own=3.0),
        "0.9, learning rates": Problem((_candidates(rates[0]), _candidates(rates[1])), own=3.0),
        "10 % diverged": Problem((_candidates(near), _candidates(behind)), diverged=0.1),
        **{
            f"other metric, r = {r}": Problem((_candidates(near), _candidates(behind)), correlation=r)
            for r in (0.0, 0.5, 1.0)
        },
    }


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of simulated grids in which an interval contains the true value, and mean widths."""

    value: float
    """Coverage of the intervals of the two tuned values."""
    difference: float
    """Coverage of the interval of their difference."""
    student: float
    """Coverage of Student's t interval of the difference."""
    width: float
    """Mean width of the difference's interval."""
    grids: int
    """Number of grids with both values."""


def true_mean(candidates: Candidates, seeds: int, *, has_scores: bool = False) -> float:
    """Return the expected mean of the candidate that is picked with `seeds - 1` seeds, by scores if there are any."""
    generator = np.random.default_rng(7)
    noise = generator.standard_normal((TRUTH_GRIDS, len(candidates.means)))
    picks = (
        (OTHER_MEANS if has_scores else candidates.means) + candidates.spreads * noise / np.sqrt(seeds - 1)
    ).argmax(axis=1)
    return float(candidates.means[picks].mean())


def draw_values(problem: Problem, seeds: int, generator: np.random.Generator) -> tuple[list[Floats], list[Floats]]:
    """Return values and scores of each value's candidates, (C, k) each; NaN for a diverged run."""
    shifts = problem.shared * generator.standard_normal(seeds)
    results, scores = [], []
    for each in problem.values:
        noise = generator.standard_normal((len(each.means), seeds))
        values = each.means[:, None] + each.spreads[:, None] * noise + shifts
        if problem.own:
            values += problem.own * generator.standard_normal(seeds)
        values[generator.random(values.shape) < problem.diverged] = np.nan
        results.append(values)
        scores.append(values)
        if problem.correlation is not None:
            noise = problem.correlation * noise + np.sqrt(1.0 - problem.correlation**2) * generator.standard_normal(
                noise.shape
            )
            scores[-1] = OTHER_MEANS[:, None] + each.spreads[:, None] * noise
    return results, scores


def make_table(results: list[Floats], scores: list[Floats]) -> Table:
    """Return the results as a grid of a categorical parameter and the number of the candidate."""
    return tabulate(
        Observation(
            {"model": "ab"[v], "setting": c},
            seed,
            float(value),
            diverged=bool(np.isnan(value)),
            score=None if scores[v] is values else float(scores[v][c, seed]),
        )
        for v, values in enumerate(results)
        for c, row in enumerate(values)
        for seed, value in enumerate(row)
    )


def measure_tuned(problem: Problem, *, seeds: int, grids: int, stream: int = 0) -> Coverage:
    """Simulate grids and measure the intervals of two tuned values; `stream` selects the random numbers.

    A candidate with a diverged run is no candidate, so the true means are those of the remaining ones.
    """
    generator = np.random.default_rng((seeds, stream))
    expected = [true_mean(each, seeds, has_scores=problem.correlation is not None) for each in problem.values]
    tallies = []
    for _ in range(grids):
        results, scores = draw_values(problem, seeds, generator)
        stable = [np.isfinite(values).all(axis=1) for values in results]
        table = make_table(results, scores)
        comparisons = compare_all_tuned(table, learn_noise(table.with_values()), "max", ["model"])
        if not comparisons:
            continue
        truths = expected
        if problem.diverged:
            remaining = [Candidates(v.means[s], v.spreads[s]) for v, s in zip(problem.values, stable, strict=True)]
            truths = [true_mean(each, seeds) for each in remaining]
        by_value = {each.value: each.interval for each in comparisons[0].values}
        first, second = comparisons[0].values
        sign = 1.0 if first.value == "a" else -1.0
        assert second.behind is not None, "it is behind the first value"
        truth = sign * (truths[0] - truths[1])
        left_out = [_left_out(*both, mask) for *both, mask in zip(results, scores, stable, strict=True)]
        student = _student(sign * (left_out[0] - left_out[1]))
        hits = [not by_value[name].excludes(mean) for name, mean in zip("ab", truths, strict=True)]
        width = (second.behind.high or 0.0) - (second.behind.low or 0.0)
        tallies.append([float(np.mean(hits)), not second.behind.excludes(truth), not student.excludes(truth), width])
    return Coverage(*np.mean(tallies, axis=0).tolist(), grids=len(tallies))


def _left_out(values: Floats, scores: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Return the left-out value of each seed, shape (k,), for values and scores (C, k) and a mask (C,)."""
    return np.asarray(values[mask][pick_without_each_seed(scores[mask]), np.arange(values.shape[1])])


def _student(differences: Floats) -> Interval:
    """Return Student's t interval of the mean of differences (k,)."""
    k, mean = len(differences), float(differences.mean())
    half = t_quantile(0.975, k - 1) * float(differences.std(ddof=1)) / np.sqrt(k)
    return Interval(mean, mean - half, mean + half)


def print_tuned(grids: int) -> None:
    print("Values at their own best setting: coverage of 95 % intervals (and width, in standard deviations)")
    print(f"{'problem':26}{'seeds':>6}{'value':>9}{'difference':>17}{'student t':>12}{'grids':>8}")
    for stream, (name, problem) in enumerate(make_problems().items()):
        for seeds in SEEDS:
            c = measure_tuned(problem, seeds=seeds, grids=grids, stream=stream)
            difference = f"{c.difference:.3f} ({c.width:.1f})"
            print(f"{name:26}{seeds:6}{c.value:9.3f}{difference:>17}{c.student:12.3f}{c.grids:8}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=500, help="simulated grids per row (default 500)")
    options = parser.parse_args()
    started = time.perf_counter()
    print_tuned(options.grids)
    print(f"\n{options.grids} grids per row, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
