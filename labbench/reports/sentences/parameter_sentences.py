"""Format the effects of parameters, their interactions and usable learning rates as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labbench.analysis.answer import Answer, Interaction, ParameterAnswer, Widening
from labbench.analysis.costs import Basin
from labbench.analysis.effects import Contrast, Effect
from labbench.analysis.intervals import Interval
from labbench.analysis.table import freeze
from labbench.reports.formatting import (
    chosen_by,
    describe_settings,
    effect_decimals,
    format_gain,
    format_mean,
    format_named_setting,
    format_percent,
    format_setting_briefly,
    format_span,
    format_two_digits,
    format_value,
    is_tuned_on,
    parameter_levels,
)
from labbench.text import clean, format_setting

MODEL_METHODS = ("additive model", "random forest")
"""Methods with an unexplained rest, which may or may not be interactions."""
_TOO_FEW_RUNS = "too few runs to say which is better"


def parameter_sentence(parameter: ParameterAnswer, answer: Answer) -> str:
    contrast = parameter.marginal.contrast
    name = clean(parameter.name)
    if parameter.followers:
        name += f" (with {', '.join(clean(follower) for follower in parameter.followers)})"
    if contrast is None:
        return _only_value_sentence(name, parameter, answer)
    values = [effect for effect in parameter.marginal.effects if effect.n]
    clause = (
        _two_values_clause(parameter, contrast, answer)
        if len(values) == 2
        else _many_values_clause(parameter, contrast, answer)
    )
    return f"{name}: {clause}{_diverged_values_clause(parameter, answer)}"


def _only_value_sentence(name: str, parameter: ParameterAnswer, answer: Answer) -> str:
    effects = parameter.marginal.effects
    measured = [effect for effect in effects if effect.n]
    if len(effects) < 2 or not measured:
        return ""
    only = _value_phrase(parameter, measured[0].value)
    return f"{name}: only {only} has results{_diverged_values_clause(parameter, answer)}"


def _two_values_clause(parameter: ParameterAnswer, contrast: Contrast, answer: Answer) -> str:
    ahead, behind = _value_phrase(parameter, contrast.value), _value_phrase(parameter, contrast.against)
    gain = format_gain(contrast.interval, answer.goal, contrast.ratio)
    if parameter.evidence == "none" and contrast.interval.low is not None:
        return f"no clear difference{_average_phrase(answer)} ({ahead} vs {behind}: {gain})"
    if contrast.interval.low is None:
        return f"{_means_phrase(parameter, contrast, answer)}{_average_phrase(answer)}; {_TOO_FEW_RUNS}"
    better = f"better {ahead}" if _is_switch(parameter) else f"{ahead} is better than {behind}"
    is_model = answer.shares is not None and answer.shares.method in MODEL_METHODS
    conditional = f"averaged over the configurations that vary it (depends on {clean(parameter.parent or '')})"
    average = "on average" if is_model else conditional if parameter.parent else "averaged over all settings"
    return (
        f"{better} by {gain} {average}"
        + _evidence_phrase(parameter)
        + _alternative_clause(parameter, answer)
        + _best_differs_clause(parameter, contrast, answer)
    )


def _many_values_clause(parameter: ParameterAnswer, contrast: Contrast, answer: Answer) -> str:
    ahead, behind = _value_phrase(parameter, contrast.value), _value_phrase(parameter, contrast.against)
    measured = [effect for effect in parameter.marginal.effects if effect.n]
    ordered = sorted(measured, key=lambda effect: effect.interval.mean, reverse=answer.goal == "max")
    decimals = effect_decimals(parameter)
    top, worst = (format_mean(effect.interval, decimals) for effect in (ordered[0], ordered[-1]))
    worst_value = _value_phrase(parameter, ordered[-1].value)
    spread = f"{top} at {ahead} to {worst} at {worst_value}"
    if parameter.evidence == "none" and contrast.interval.low is not None:
        chance = _chance_of_gaps_clause(measured)
        return f"no clear difference among its {len(measured)} values (from {spread} on average){chance}"
    if contrast.interval.low is None:
        return f"from {spread}{_average_phrase(answer)}; {_TOO_FEW_RUNS}"
    gain = format_gain(contrast.interval, answer.goal, contrast.ratio)
    margin = f"ahead of {behind} by {gain}"
    if contrast.interval.low is not None and not contrast.interval.excludes(0.0):
        margin = f"not clearly ahead of {behind} ({gain})"
    return (
        f"best on average at {ahead} ({top}), {margin}"
        + f"; worst at {worst_value} ({worst})"
        + _evidence_phrase(parameter)
        + _alternative_clause(parameter, answer)
        + _best_differs_clause(parameter, contrast, answer)
    )


def _means_phrase(parameter: ParameterAnswer, contrast: Contrast, answer: Answer) -> str:
    """Format the two best means as `0.91 at adam, 0.89 at sgd`."""
    means = {freeze(effect.value): effect.interval for effect in parameter.marginal.effects}
    decimals = effect_decimals(parameter)
    return ", ".join(
        f"{format_mean(means[freeze(value)], decimals)} {_place_phrase(parameter, value)}"
        for value in (contrast.value, contrast.against)
    )


def _place_phrase(parameter: ParameterAnswer, value: Any) -> str:
    phrase = _value_phrase(parameter, value)
    return phrase if _is_switch(parameter) else f"at {phrase}"


def _chance_of_gaps_clause(effects: Sequence[Effect]) -> str:
    """Return a remark if intervals do not overlap although the values do not differ significantly."""
    intervals = [effect.interval for effect in effects]
    lows = [interval.low for interval in intervals if interval.low is not None]
    highs = [interval.high for interval in intervals if interval.high is not None]
    if not lows or not highs or max(lows) <= min(highs):
        return ""
    pairs = len(effects) * (len(effects) - 1) // 2
    return f"; among {pairs} pairs, intervals that do not overlap are no evidence by themselves"


def _average_phrase(answer: Answer) -> str:
    """Return " on average" if there are other parameters, under which the values may still differ."""
    return " on average" if len(answer.parameters) > 1 else ""


def _evidence_phrase(parameter: ParameterAnswer) -> str:
    is_weak = parameter.evidence == "weak"
    return " (weak evidence: with so many parameters, one may look like this by luck)" if is_weak else ""


def _alternative_clause(parameter: ParameterAnswer, answer: Answer) -> str:
    alternative = parameter.close_alternative
    if alternative is None or parameter.evidence == "none":
        return ""
    phrase = _value_phrase(parameter, alternative.value)
    if _is_switch(parameter):
        phrase = f"a configuration {phrase}"
    if alternative.differing:
        phrase += f" at {describe_settings(alternative.differing, parameter_levels(answer))}"
    gap = format_two_digits(alternative.gap)
    if alternative.ratio is not None:
        gap = f"a factor of {format_setting(float(f'{alternative.ratio:.3g}'))}"
    return f", but {phrase} comes within {gap} of the best"


def _best_differs_clause(parameter: ParameterAnswer, contrast: Contrast, answer: Answer) -> str:
    """Report the best configuration's value if another is best on average."""
    if answer.best is None or parameter.numeric or any(effect.span for effect in parameter.marginal.effects):
        return ""
    used = answer.best.config.get(parameter.name)
    if freeze(used) == freeze(contrast.value):
        return ""
    return f"; nevertheless the best configuration is one {_use_phrase(parameter, used)}"


def _use_phrase(parameter: ParameterAnswer, value: Any) -> str:
    phrase = _value_phrase(parameter, value)
    return phrase if _is_switch(parameter) else f"with {phrase}"


def _diverged_values_clause(parameter: ParameterAnswer, answer: Answer) -> str:
    diverged = [effect for effect in parameter.marginal.effects if not effect.n and effect.diverged]
    values = ", ".join(_value_phrase(parameter, effect.value) for effect in diverged)
    return f"; every run {answer.lost} at {values}" if diverged else ""


def _value_phrase(parameter: ParameterAnswer, value: Any) -> str:
    """Format a value of a parameter for a sentence that starts with the parameter's name."""
    if isinstance(value, bool) and _is_switch(parameter):
        return "with it" if value else "without it"
    if value is None:
        return "not set"
    effect = next((effect for effect in parameter.marginal.effects if freeze(effect.value) == freeze(value)), None)
    if effect is not None and (span := format_span(effect.span)):
        return span
    return format_value(value, [effect.value for effect in parameter.marginal.effects])


def _is_switch(parameter: ParameterAnswer) -> bool:
    """Return True if all values are booleans, as for `batchnorm`."""
    return all(isinstance(effect.value, bool) for effect in parameter.marginal.effects)


def interaction_sentence(interaction: Interaction, answer: Answer) -> str:
    (first, second), levels = interaction.names, parameter_levels(answer)
    by_best: dict[str, list[str]] = {}
    for value, best in interaction.best:
        by_best.setdefault(format_setting_briefly(second, best, levels), []).append(
            format_setting_briefly(first, value, levels)
        )
    cases = "; ".join(f"{best} for {', '.join(values)}" for best, values in by_best.items())
    share = _share_phrase(interaction.importance)
    by = f" by {chosen_by(answer)}" if is_tuned_on(answer) else ""
    share += f" of the differences in {clean(answer.metric)}" if by else " of the differences"
    return f"the best {clean(second)}{by} depends on {clean(first)}: on average {cases} ({share})"


def _share_phrase(share: Interval) -> str:
    """Format a share with its interval, as `49 % [46 %, 52 %]`."""
    if share.low is None or share.high is None:
        return format_percent(share.mean)
    return f"{format_percent(share.mean)} [{format_percent(share.low)}, {format_percent(share.high)}]"


def widening_sentence(widening: Widening, answer: Answer) -> str:
    name, levels = clean(widening.name), parameter_levels(answer)
    best = f"best {chosen_by(answer)}" if is_tuned_on(answer) else "best"
    if isinstance(widening.wide_value, bool):
        wide, narrow = ("with it", "without it") if widening.wide_value else ("without it", "with it")
        subject = name if widening.wide_value else f"no {name}"
    else:
        wide, narrow = (
            f"with {format_setting_briefly(widening.name, v, levels)}"
            for v in (widening.wide_value, widening.narrow_value)
        )
        subject = format_named_setting(widening.name, widening.wide_value, levels)
    rates = f"{_range_phrase(widening.wide)} {wide}, {_range_phrase(widening.narrow)} {narrow}"
    return f"{subject} widens the range of learning rates within 5 % of the {best}: {rates}"


def _range_phrase(basin: Basin) -> str:
    if basin.low == basin.high:
        return f"only {format_setting(basin.low)}"
    below = " (smallest tried)" if basin.open_below else ""
    above = " (largest tried)" if basin.open_above else ""
    return f"{format_setting(basin.low)}{below} to {format_setting(basin.high)}{above}"
