"""Format the verdict in plain words, and the numbers of the best configuration and of its rivals, as sentences."""

from __future__ import annotations

from dataclasses import replace

from labbench.analysis.answer import Answer, Estimate
from labbench.analysis.comparison import MAX_SEEDS, Difference
from labbench.analysis.intervals import Interval
from labbench.analysis.tuning.tuned_values import MIN_INTERVAL_SEEDS
from labbench.reports.formatting import (
    chosen_by,
    estimate_phrase,
    format_change,
    format_factor,
    format_interval,
    format_like,
    format_percent,
    format_two_digits,
    half_width,
    is_tuned_on,
    ranking_decimals,
    repetition,
    seeds_phrase,
    setup_phrase,
)
from labbench.text import clean, format_duration

_IDENTICAL = Interval(0.0, 0.0, 0.0)
"""Interval of the difference between two configurations with the same results."""
MIN_ADVICE_SEEDS = 3
"""Smallest number of seeds per configuration for a comparison."""
_SMALLEST_FACTOR = 2.0
"""Smallest ratio of two losses that the verdict states as a factor; smaller ones are percent."""


def verdict_sentences(answer: Answer) -> list[str]:
    """Return the answer in plain words: the best configuration, its lead over the runner-up, and how sure that is."""
    return [line for line in (_best_sentence(answer), _lead_sentence(answer), _certainty_sentence(answer)) if line]


def _best_sentence(answer: Answer) -> str:
    best = answer.best
    assert best is not None, "sentences() checks it"
    choice = f"best by {chosen_by(answer)}" if is_tuned_on(answer) else "best"
    sentence = f"{choice}: {setup_phrase(best, answer)}: {clean(answer.metric)} {_mean_phrase(best, answer)}"
    if best.diverged:
        sentence += f"; {best.diverged} of its {best.runs} runs {answer.lost}, as did runs of every other configuration"
    return sentence


def _mean_phrase(estimate: Estimate, answer: Answer) -> str:
    """Format a mean as `0.978 on average over 3 seeds`."""
    mean = format_mean_like_ranking(estimate, answer)
    if estimate.n == 1:
        return f"{mean} with one {repetition(answer)}"
    if estimate.interval.low is not None and estimate.interval.low == estimate.interval.high:
        return f"{mean} with each of {seeds_phrase(estimate.n, answer)}"
    return f"{mean} on average over {seeds_phrase(estimate.n, answer)}"


def _lead_sentence(answer: Answer) -> str:
    second, difference = answer.runner_up, answer.difference
    if second is None or difference is None:
        return _only_result_sentence(answer)
    if difference.interval == _IDENTICAL:
        return f"by how much: the runner-up ({setup_phrase(second, answer)}) has exactly the same result"
    runner_up = f"the runner-up ({setup_phrase(second, answer)}: {format_mean_like_ranking(second, answer)})"
    if not difference.interval.mean:
        return f"by how much: equal to {runner_up} on average"
    unstable = f", {second.diverged} of whose {second.runs} runs {answer.lost}" if second.diverged else ""
    return f"by how much: {_lead_phrase(difference)} than {runner_up}{unstable}"


def _only_result_sentence(answer: Answer) -> str:
    """Report why no other configuration has a result: its runs diverged, or they have no value."""
    best, counts = answer.best, answer.counts
    assert best is not None, "sentences() checks it"
    others, runs = counts.setups - 1, counts.runs - best.runs
    if not others:
        return ""
    setups = f"the other {others} configurations" if others > 1 else "the other configuration"
    diverged = counts.diverged - best.diverged
    if diverged == runs:
        return f"by how much: every run of {setups} {answer.lost} ({diverged} of {runs})"
    cause = f": {diverged} of {runs} runs {answer.lost}, the others have no value" if diverged else ""
    return f"by how much: {setups} {'have' if others > 1 else 'has'} no result{cause}"


def _lead_phrase(difference: Difference) -> str:
    """Format a difference of means as `0.012 higher`, or a ratio of losses as `2.1 times lower` or `8 % lower`."""
    ratio, change = difference.ratio, difference.interval.mean
    direction = "higher" if change > 0 else "lower"
    if ratio is None or not ratio.mean:
        return f"{format_two_digits(abs(change))} {direction}"
    factor = max(ratio.mean, 1.0 / ratio.mean)
    if factor < _SMALLEST_FACTOR:
        return f"{format_two_digits(100.0 * abs(ratio.mean - 1.0))} % {direction}"
    return f"{format_two_digits(factor)} times {direction}"


def _certainty_sentence(answer: Answer) -> str:
    difference = answer.difference
    if answer.runner_up is None or difference is None or difference.interval == _IDENTICAL:
        return ""
    if difference.interval.low is None:
        return f"how sure: too few {repetition(answer)}s to say; {_first_comparison_phrase(answer)}"
    if difference.clear:
        return f"how sure: clear; luck alone does not explain such a difference{_chance_phrase(difference)}"
    seeds = seeds_phrase(difference.pairs, answer) if difference.pairs else _seeds_of_both(answer)
    return f"how sure: too close to call with {seeds}: the difference may be luck; {_seeds_advice(answer, difference)}"


def _seeds_advice(answer: Answer, difference: Difference) -> str:
    """Return the number of seeds to run; "choose either" only if enough seeds show that it hardly matters."""
    if difference.seeds_needed:
        return f"about {difference.seeds_needed} are needed (power 80 %)"
    if answer.counts.fewest_seeds >= MIN_ADVICE_SEEDS:
        return f"more than {MAX_SEEDS} are needed, so choose either"
    limit = format_two_digits(half_width(replace(difference.interval, mean=0.0)))
    return f"either may be better by up to {limit}; {_first_comparison_phrase(answer)}"


def _first_comparison_phrase(answer: Answer) -> str:
    if answer.counts.has_seeds:
        return f"run {MIN_ADVICE_SEEDS} seeds per configuration for a first comparison"
    return f"make {MIN_ADVICE_SEEDS} runs per configuration with different seeds, and record each seed in the config"


def numbers_sentence(answer: Answer) -> str:
    """Return the means of the best configuration and the runner-up, and their difference, with intervals."""
    best, second, difference = answer.best, answer.runner_up, answer.difference
    if best is None:
        return ""
    if best.interval.low is None:
        if not answer.counts.has_seeds:
            return "no intervals, because no configuration has two runs that differ in their numbers"
        return "no intervals, because no configuration was run with a second seed"
    decimals = ranking_decimals(answer)
    parts = [f"best {format_interval(best.interval, decimals)}"]
    if second is not None and difference is not None and difference.interval != _IDENTICAL:
        parts.append(f"runner-up {format_interval(second.interval, decimals)}")
        same = f"the same {difference.pairs} seeds" if difference.pairs else _seeds_of_both(answer)
        parts.append(f"{_change_phrase(difference)} over {same}")
    sentence = f"in numbers, with 95 % intervals: {', '.join(parts)}"
    if any(comparison.seeds >= MIN_INTERVAL_SEEDS for comparison in answer.tuned):
        sentence += "; the lines above also allow for the choice of the other settings, so their intervals differ"
    if best.n == 1:
        sentence += "; the interval of the best is based on the spread of other configurations"
    return sentence


def format_mean_like_ranking(estimate: Estimate, answer: Answer) -> str:
    """Format a mean with the decimals of the table of configurations."""
    mean, _, _ = format_interval(estimate.interval, ranking_decimals(answer)).partition(" ")
    return mean


def selection_sentence(answer: Answer) -> str:
    """Report the winner's held-out result if selection made its mean optimistic (winner's curse)."""
    best = answer.best
    if best is None or answer.held_out is None or answer.rivals < 1:
        return ""
    optimism = (best.interval.mean - answer.held_out.mean) * (1 if answer.goal == "max" else -1)
    mean = format_like(answer.held_out.mean, best.interval)
    if optimism <= 0 or format_like(best.interval.mean, best.interval) == mean:
        return ""
    held_out = mean if answer.held_out.low is None else format_interval(answer.held_out, ranking_decimals(answer))
    return (
        f"the best of {answer.counts.setups} is partly lucky: settings chosen in the same way without one seed reach "
        f"{held_out} on that seed on average; report this value"
    )


def _change_phrase(difference: Difference) -> str:
    """Format a difference with signs, or a ratio of losses as `2.1 times lower [1.8, 2.5]`."""
    ratio = difference.ratio
    if ratio is None:
        return f"difference {format_change(difference.interval)}"
    factor, _, limits = format_factor(ratio, "min" if ratio.mean <= 1.0 else "max").partition(" ")
    return f"{factor} times {'lower' if ratio.mean <= 1.0 else 'higher'} {limits}".rstrip()


def _chance_phrase(difference: Difference) -> str:
    if difference.probability is None:
        return ""
    chance = format_percent(min(difference.probability, 0.99))
    if difference.pairs:
        return f"; it beats the runner-up with {chance} of seeds"
    return f"; a new run of it beats a new run of the runner-up {chance} of the time"


def _seeds_of_both(answer: Answer) -> str:
    best, runner_up = (0 if estimate is None else estimate.n for estimate in (answer.best, answer.runner_up))
    return seeds_phrase(best, answer) if best == runner_up else f"{best} and {seeds_phrase(runner_up, answer)}"


def rivals_sentence(answer: Answer) -> str:
    clear = answer.difference is not None and answer.difference.clear
    others = answer.rivals - (0 if answer.difference is None or clear else 1)
    if others < 1:
        return ""
    setups = "configurations" if others > 1 else "configuration"
    if clear:  # they rank below the runner-up, but have fewer seeds or a larger spread
        return f"{others} lower-ranked {setups} may be as good: too few seeds, or too different results, to tell"
    return f"{others} more {setups} may be as good as the best: too close to call with these {repetition(answer)}s"


def cheaper_sentence(answer: Answer) -> str:
    cheaper, difference, best = answer.cheaper, answer.cheaper_difference, answer.best
    if cheaper is None or difference is None or best is None:
        return ""
    times = f"{format_duration(cheaper.seconds)} per run instead of {format_duration(best.seconds)}"
    result = f"{estimate_phrase(cheaper, answer)}, {_largest_loss_phrase(difference, answer)}"
    return f"faster and hardly worse: {setup_phrase(cheaper, answer)}: {result}, {times}"


def _largest_loss_phrase(difference: Difference, answer: Answer) -> str:
    """Format the limit of the difference on the side of the best configuration: `at most 0.012 worse (95 %)`."""
    if difference.ratio is not None and difference.ratio.low:
        return f"at most {format_two_digits(100.0 * (1.0 / difference.ratio.low - 1.0))} % worse (95 %)"
    limit = difference.interval.high if answer.goal == "max" else difference.interval.low
    return f"at most {format_two_digits(abs(limit or 0.0))} worse (95 %)"


def unsafe_sentence(answer: Answer) -> str:
    unsafe = answer.unsafe
    if unsafe is None:
        return ""
    result = f"{setup_phrase(unsafe, answer)}: {estimate_phrase(unsafe, answer)}"
    return f"better mean, but not selected: {result}, because {unsafe.diverged} of its {unsafe.runs} runs {answer.lost}"
