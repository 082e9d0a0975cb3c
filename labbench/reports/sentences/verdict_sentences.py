"""Format the best configuration and its comparison with the others as sentences."""

from __future__ import annotations

from labbench.analysis.answer import Answer
from labbench.analysis.comparison import MAX_SEEDS, Difference
from labbench.analysis.intervals import Interval
from labbench.reports.formatting import (
    estimate_phrase,
    format_change,
    format_factor,
    format_like,
    format_percent,
    seeds_phrase,
    setup_phrase,
)
from labbench.text import clean, format_duration


def best_sentence(answer: Answer) -> str:
    best = answer.best
    assert best is not None, "sentences() checks it"
    sentence = f"best: {setup_phrase(best, answer)}: {clean(answer.metric)} {estimate_phrase(best, answer)}"
    if best.interval.low is None:
        sentence += "; no interval, because no configuration was run with a second seed"
    elif best.n == 1:
        sentence += "; the interval is based on the spread of other configurations"
    if best.diverged:
        sentence += f"; {best.diverged} of its {best.runs} runs {answer.lost}, as did runs of every other configuration"
    return sentence


def selection_sentence(answer: Answer) -> str:
    """Report the winner's held-out result if selection made its mean optimistic (winner's curse)."""
    best = answer.best
    if best is None or answer.held_out is None or answer.rivals < 1:
        return ""
    optimism = (best.interval.mean - answer.held_out) * (1 if answer.goal == "max" else -1)
    held_out = format_like(answer.held_out, best.interval)
    if optimism <= 0 or format_like(best.interval.mean, best.interval) == held_out:
        return ""
    return (
        f"picking the best of {answer.counts.setups} is optimistic; chosen on the other seeds, settings like the "
        f"winner reach {held_out} on a left-out seed, the value to report"
    )


def runner_up_sentence(answer: Answer) -> str:
    second, difference = answer.runner_up, answer.difference
    if second is None or difference is None:
        return "no other configuration has a result" if answer.counts.setups > 1 else ""
    if difference.interval == Interval(0.0, 0.0, 0.0):
        return f"the runner-up ({setup_phrase(second, answer)}) has exactly the same result"
    comparison = f"against the runner-up ({setup_phrase(second, answer)}): {_change_phrase(difference)}"
    if difference.interval.low is None:
        return f"{comparison}: too few seeds to say; run 3 seeds per configuration for a first comparison"
    seeds = f"{difference.pairs} paired seeds" if difference.pairs else _seeds_of_both(answer)
    if difference.clear:
        return f"{comparison}: better{_chance_phrase(difference)}"
    needed = difference.seeds_needed
    advice = f"about {needed} are needed" if needed else f"more than {MAX_SEEDS} are needed, so choose either"
    return f"{comparison}: too close to call with {seeds}; {advice}"


def _change_phrase(difference: Difference) -> str:
    """Format a difference with signs, or a ratio of losses as `2.1 times lower [1.8, 2.5]`."""
    ratio = difference.ratio
    if ratio is None:
        return format_change(difference.interval)
    is_lower = ratio.mean <= 1.0  # a runner-up with a lower mean has diverged runs
    factor, _, limits = format_factor(ratio, "min" if is_lower else "max").partition(" ")
    return f"{factor} times {'lower' if is_lower else 'higher'} {limits}".rstrip()


def _chance_phrase(difference: Difference) -> str:
    if difference.probability is None:
        return ""
    chance = format_percent(min(difference.probability, 0.99))
    if difference.pairs:
        return f"; it beats the runner-up with {chance} of seeds"
    return f"; a new run of it beats a new run of the runner-up {chance} of the time"


def _seeds_of_both(answer: Answer) -> str:
    best, runner_up = (0 if estimate is None else estimate.n for estimate in (answer.best, answer.runner_up))
    return seeds_phrase(best) if best == runner_up else f"{best} and {seeds_phrase(runner_up)}"


def rivals_sentence(answer: Answer) -> str:
    clear = answer.difference is not None and answer.difference.clear
    others = answer.rivals - (0 if answer.difference is None or clear else 1)
    if others < 1:
        return ""
    setups = "configurations are" if others > 1 else "configuration is"
    if clear:  # they rank below the runner-up, but have fewer seeds or a larger spread
        return f"{others} lower-ranked {setups} not clearly worse than the best, for lack of seeds or a larger spread"
    return f"{others} more {setups} not clearly worse than the best with these seeds"


def cheaper_sentence(answer: Answer) -> str:
    cheaper, best = answer.cheaper, answer.best
    if cheaper is None or best is None:
        return ""
    times = f"{format_duration(cheaper.seconds)} per run instead of {format_duration(best.seconds)}"
    return f"faster and not clearly worse: {setup_phrase(cheaper, answer)}: {estimate_phrase(cheaper, answer)}, {times}"


def unsafe_sentence(answer: Answer) -> str:
    unsafe = answer.unsafe
    if unsafe is None:
        return ""
    result = f"{setup_phrase(unsafe, answer)}: {estimate_phrase(unsafe, answer)}"
    return f"better mean, but not selected: {result}, because {unsafe.diverged} of its {unsafe.runs} runs {answer.lost}"
