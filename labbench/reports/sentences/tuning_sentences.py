"""Format comparisons of tuned values as sentences, with their estimand."""

from __future__ import annotations

from labbench.analysis.answer import Answer
from labbench.analysis.tuning.tuned_values import MIN_INTERVAL_SEEDS, TunedComparison, TunedValue
from labbench.reports.formatting import (
    format_gain,
    format_interval,
    format_setting_briefly,
    is_tuned_on,
    parameter_levels,
    tuned_decimals,
)
from labbench.text import clean


def tuned_sentences(answer: Answer) -> list[str]:
    """Compare the first two values of each parameter, each at its own best setting."""
    return [_comparison_sentence(comparison, answer) for comparison in answer.tuned]


def _comparison_sentence(comparison: TunedComparison, answer: Answer) -> str:
    first, second = comparison.values[:2]
    assert second.behind is not None, "it is not the first value"
    gain = format_gain(second.behind, answer.goal, second.ratio)
    levels, decimals = parameter_levels(answer), tuned_decimals(comparison, answer)
    names = [format_setting_briefly(comparison.name, value.value, levels) for value in (first, second)]
    means = [format_interval(value.interval, decimals).partition(" ")[0] for value in (first, second)]
    if second.behind.low is None:
        first_mean, second_mean = means
        relation = f"{names[0]} reached {first_mean} and {names[1]} {second_mean}; too few seeds to say which is better"
    elif comparison.clear:
        relation = f"{names[0]} is better than {names[1]} by {gain} ({' against '.join(means)})"
    else:
        relation = f"{names[0]} and {names[1]} are too close to call ({' against '.join(means)}: {gain})"
    separated = None if comparison.clear else _nearest_separated(comparison)
    if separated is not None and separated.behind is not None:
        name = format_setting_briefly(comparison.name, separated.value, levels)
        relation += (
            f"; {names[0]} is better than {name} by {format_gain(separated.behind, answer.goal, separated.ratio)}"
        )
    others = len(comparison.values) - 2 - (separated is not None)
    more = f"; {others} more value{'s' if others > 1 else ''} in the table" if others else ""
    return f"{clean(comparison.name)}, each value at its best setting: {relation}{more}"


def _nearest_separated(comparison: TunedComparison) -> TunedValue | None:
    """Return the best value whose difference from the first one has an interval without 0."""
    values = comparison.values[2:]
    return next((value for value in values if value.behind is not None and value.behind.excludes(0.0)), None)


def _settings_count(n: int) -> str:
    return f"{n} setting{'s' if n != 1 else ''}"


def estimand_sentence(answer: Answer) -> str:
    """Describe what the results of tuned values estimate, and how; "" without such a comparison."""
    if not answer.tuned:
        return ""
    seeds = answer.tuned[0].seeds
    sentence = (
        f'"at its best setting": for each value, the other settings are chosen with {seeds - 1} of the {seeds} seeds '
        "and the result is taken from the remaining seed; every seed takes its turn, and the results are averaged"
    )
    if seeds < MIN_INTERVAL_SEEDS:
        sentence += f"; no interval under {MIN_INTERVAL_SEEDS} seeds"
    left_out = max(sum(value.left_out for value in comparison.values) for comparison in answer.tuned)
    if left_out:
        sentence += f"; {_settings_count(left_out)} with diverged runs or without these seeds are not chosen from"
    return sentence


def averages_sentence(answer: Answer) -> str:
    """Label the averages over the grid that follow, if tuned values are compared too."""
    if not answer.tuned:
        return ""
    averages = "the next lines are averages over all settings, also over settings that nobody would choose"
    if not is_tuned_on(answer):
        return averages
    return f"{averages}, and compare values by {clean(answer.metric)} itself, so choose nothing by them"
