"""Format an `Answer` as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labbench.analysis.answer import Answer, Divergence, Estimate, Interaction, ParameterAnswer, Widening
from labbench.analysis.comparison import MAX_SEEDS, Difference
from labbench.analysis.costs import Basin, Reach
from labbench.analysis.effects import Contrast, Effect
from labbench.analysis.intervals import Interval
from labbench.analysis.setup_costs import Efficiency, SetupCosts
from labbench.analysis.table import freeze
from labbench.reports.budget_sentences import budget_sentences
from labbench.reports.formatting import (
    Levels,
    describe_settings,
    format_change,
    format_factor,
    format_gain,
    format_interval,
    format_like,
    format_mean,
    format_named_setting,
    format_setting_briefly,
    format_two_digits,
    format_value,
    parameter_levels,
    ranking_decimals,
    use_minus_sign,
)
from labbench.reports.scope_sentences import experiment_sentence, scale_sentence, scope_sentences
from labbench.reports.tuning_sentences import averages_sentence, tuned_sentences
from labbench.text import clean, format_duration, format_number, format_setting

MIN_SHARE = 0.01
"""Smallest share of the variance that is reported."""


MAX_DIVERGENCES = 3
"""Number of values with diverged runs that are named if there are more of them."""


MODEL_METHODS = ("additive model", "random forest")
"""Methods with an unexplained rest, which may or may not be interactions."""


def sentences(answer: Answer) -> list[str]:
    """Return the verdict as sentences, most important first."""
    if answer.best is None:
        lines = [_no_results_sentence(answer), experiment_sentence(answer), *_missing_runs_sentences(answer)]
        return [line for line in lines if line] + scope_sentences(answer)
    lines = [
        _best_sentence(answer),
        experiment_sentence(answer),
        *tuned_sentences(answer),
        *budget_sentences(answer),
        _selection_sentence(answer),
        _runner_up_sentence(answer),
        _rivals_sentence(answer),
        _cheaper_sentence(answer),
        _unsafe_sentence(answer),
        averages_sentence(answer),
        *(_parameter_sentence(parameter, answer) for parameter in answer.parameters),
        *(_interaction_sentence(interaction, parameter_levels(answer)) for interaction in answer.interactions),
        *(_widening_sentence(widening, parameter_levels(answer)) for widening in answer.widenings),
        _variance_sentence(answer),
        _basis_sentence(answer),
        _limits_sentence(answer),
        scale_sentence(answer),
        *_missing_runs_sentences(answer),
        *scope_sentences(answer),
    ]
    return [line for line in lines if line]


def _setup_phrase(estimate: Estimate, answer: Answer) -> str:
    """Describe a configuration by the settings that vary in the grid."""
    return describe_settings(estimate.differing, parameter_levels(answer)) or "the only configuration"


def _best_sentence(answer: Answer) -> str:
    best = answer.best
    assert best is not None, "sentences() checks it"
    sentence = f"best: {_setup_phrase(best, answer)}: {clean(answer.metric)} {_estimate_phrase(best, answer)}"
    if best.interval.low is None:
        sentence += "; no interval, because no configuration was run with a second seed"
    elif best.n == 1:
        sentence += "; the interval is based on the spread of other configurations"
    if best.diverged:
        sentence += f"; {best.diverged} of its {best.runs} runs {answer.lost}, as did runs of every other configuration"
    return sentence


def _selection_sentence(answer: Answer) -> str:
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


def _runner_up_sentence(answer: Answer) -> str:
    second, difference = answer.runner_up, answer.difference
    if second is None or difference is None:
        return "no other configuration has a result" if answer.counts.setups > 1 else ""
    if difference.interval == Interval(0.0, 0.0, 0.0):
        return f"the runner-up ({_setup_phrase(second, answer)}) has exactly the same result"
    comparison = f"against the runner-up ({_setup_phrase(second, answer)}): {_change_phrase(difference)}"
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
    chance = _format_percent(min(difference.probability, 0.99))
    if difference.pairs:
        return f"; it beats the runner-up with {chance} of seeds"
    return f"; a new run of it beats a new run of the runner-up {chance} of the time"


def _seeds_of_both(answer: Answer) -> str:
    best, runner_up = (0 if estimate is None else estimate.n for estimate in (answer.best, answer.runner_up))
    return _seeds_phrase(best) if best == runner_up else f"{best} and {_seeds_phrase(runner_up)}"


def _rivals_sentence(answer: Answer) -> str:
    clear = answer.difference is not None and answer.difference.clear
    others = answer.rivals - (0 if answer.difference is None or clear else 1)
    if others < 1:
        return ""
    setups = "configurations are" if others > 1 else "configuration is"
    if clear:  # they rank below the runner-up, but have fewer seeds or a larger spread
        return f"{others} lower-ranked {setups} not clearly worse than the best, for lack of seeds or a larger spread"
    return f"{others} more {setups} not clearly worse than the best with these seeds"


def _cheaper_sentence(answer: Answer) -> str:
    cheaper, best = answer.cheaper, answer.best
    if cheaper is None or best is None:
        return ""
    times = f"{format_duration(cheaper.seconds)} per run instead of {format_duration(best.seconds)}"
    return (
        f"faster and not clearly worse: {_setup_phrase(cheaper, answer)}: {_estimate_phrase(cheaper, answer)}, {times}"
    )


def _unsafe_sentence(answer: Answer) -> str:
    unsafe = answer.unsafe
    if unsafe is None:
        return ""
    result = f"{_setup_phrase(unsafe, answer)}: {_estimate_phrase(unsafe, answer)}"
    return f"better mean, but not selected: {result}, because {unsafe.diverged} of its {unsafe.runs} runs {answer.lost}"


def _parameter_sentence(parameter: ParameterAnswer, answer: Answer) -> str:
    contrast = parameter.marginal.contrast
    name = clean(parameter.name)
    if parameter.followers:
        name += f" (with {', '.join(clean(follower) for follower in parameter.followers)})"
    if contrast is None:
        return f"{name}: only one of its values has results" if len(parameter.marginal.effects) > 1 else ""
    values = [effect for effect in parameter.marginal.effects if effect.n]
    clause = (
        _two_values_clause(parameter, contrast, answer)
        if len(values) == 2
        else _many_values_clause(parameter, contrast, answer)
    )
    return f"{name}: {clause}{_diverged_values_clause(parameter, answer)}"


def _two_values_clause(parameter: ParameterAnswer, contrast: Contrast, answer: Answer) -> str:
    ahead, behind = _value_phrase(parameter, contrast.value), _value_phrase(parameter, contrast.against)
    gain = format_gain(contrast.interval, answer.goal, contrast.ratio)
    if parameter.evidence == "none" and contrast.interval.low is not None:
        return f"no significant difference{_average_phrase(answer)} ({ahead} vs {behind}: {gain})"
    better = f"better {ahead}" if _is_switch(parameter) else f"{ahead} ahead of {behind}"
    is_model = answer.shares is not None and answer.shares.method in MODEL_METHODS
    conditional = f"averaged over the configurations that vary it (depends on {clean(parameter.parent or '')})"
    average = "on average" if is_model else conditional if parameter.parent else "averaged over the grid"
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
    top, worst = ordered[0], ordered[-1]
    lowest = f"{format_mean(worst.interval)} at {_value_phrase(parameter, worst.value)}"
    spread = f"{format_mean(top.interval)} at {ahead} to {lowest}"
    if parameter.evidence == "none" and contrast.interval.low is not None:
        chance = _chance_of_gaps_clause(measured)
        return f"no significant difference among its {len(measured)} values (from {spread} on average){chance}"
    gain = format_gain(contrast.interval, answer.goal, contrast.ratio)
    margin = f"ahead of {behind} by {gain}"
    if contrast.interval.low is not None and not contrast.interval.excludes(0.0):
        margin = f"not clearly ahead of {behind} ({gain})"
    return (
        f"best on average at {ahead} ({format_mean(top.interval)}), {margin}"
        + f"; worst at {_value_phrase(parameter, worst.value)} ({format_mean(worst.interval)})"
        + _evidence_phrase(parameter)
        + _alternative_clause(parameter, answer)
        + _best_differs_clause(parameter, contrast, answer)
    )


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
    if parameter.evidence == "weak":
        return " (weak evidence: not significant after correcting for the number of parameters)"
    return " (too few runs for an interval)" if parameter.marginal.p_value is None else ""


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
    return f", but the best configuration uses {_value_phrase(parameter, used)}"


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
    if effect is not None and (span := _format_span(effect.span)):
        return span
    return format_value(value, [effect.value for effect in parameter.marginal.effects])


def _format_span(span: tuple[float, float] | None) -> str:
    """Format the values of a bin, such as `0.0036–0.022`; empty for none and for a single value."""
    if span is None or span[0] == span[1]:
        return ""
    return "–".join(format_setting(float(f"{edge:.2g}")) for edge in span)


def _is_switch(parameter: ParameterAnswer) -> bool:
    """Return True if all values are booleans, as for `batchnorm`."""
    return all(isinstance(effect.value, bool) for effect in parameter.marginal.effects)


def _interaction_sentence(interaction: Interaction, levels: Levels) -> str:
    first, second = interaction.names
    by_best: dict[str, list[str]] = {}
    for value, best in interaction.best:
        by_best.setdefault(format_setting_briefly(second, best, levels), []).append(
            format_setting_briefly(first, value, levels)
        )
    cases = "; ".join(f"{best} for {', '.join(values)}" for best, values in by_best.items())
    share = _format_percent(interaction.importance.mean)
    return f"the best {clean(second)} depends on {clean(first)}: on average {cases} ({share} of the variance)"


def _widening_sentence(widening: Widening, levels: Levels) -> str:
    name = clean(widening.name)
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
    return f"{subject} widens the range of learning rates within 5 % of the best: {rates}"


def _range_phrase(basin: Basin) -> str:
    if basin.low == basin.high:
        return f"only {format_setting(basin.low)}"
    below = " (smallest tried)" if basin.open_below else ""
    above = " (largest tried)" if basin.open_above else ""
    return f"{format_setting(basin.low)}{below} to {format_setting(basin.high)}{above}"


def _variance_sentence(answer: Answer) -> str:
    shares = answer.shares
    if shares is None:
        return ""
    named = [(clean(p.name), p.importance.mean) for p in answer.parameters if p.importance is not None]
    # the rest of a factorial is interactions of three and more parameters, the rest of a model is unknown
    is_model = shares.method in MODEL_METHODS
    interactions, other = (shares.interactions, shares.rest) if is_model else (shares.interactions + shares.rest, 0.0)
    named += [("interactions", interactions), ("other", other)]
    parts = [f"{name} {_format_percent(share)}" for name, share in named if share >= MIN_SHARE]
    if shares.seeds is not None:
        parts.append(f"seeds {_format_percent(shares.seeds)}")
    without = ", ".join(format_named_setting(name, value, parameter_levels(answer)) for name, value in shares.left_out)
    left_out = f" (without {without}: not run in all combinations)" if without else ""
    variance = f"variance of log {clean(answer.metric)}" if answer.scale == "log" else "variance"
    return f"shares of the {variance}{left_out}: {', '.join(parts)}" if parts else ""


def _basis_sentence(answer: Answer) -> str:
    by_settings = [p for p in answer.parameters if p.marginal.basis == "settings"]
    if not by_settings:
        return ""
    return "the intervals of the parameters are based on the variation of effects between settings, not between seeds"


def _limits_sentence(answer: Answer) -> str:
    """Report what was left out because too many parameters vary."""
    limits = []
    if answer.not_analysed:
        shown, n = len(answer.parameters), len(answer.not_analysed)
        limits.append(f"{n} of {shown + n} varying keys are not analysed, those that explain least of the results")
    if answer.shares is not None and answer.shares.paired is not None:
        limits.append(f"interactions were estimated for the {answer.shares.paired} parameters with the largest effects")
    return "; ".join(limits)


def _no_results_sentence(answer: Answer) -> str:
    if answer.counts.runs == 0:
        return f"no run has ended yet, so there are no values of {clean(answer.metric)}"
    if answer.counts.diverged == answer.counts.runs:
        return f"no run has a value of {clean(answer.metric)}: {_diverged_count_phrase(answer)}"
    return f"no run has a value of {clean(answer.metric)} ({_runs_count(answer.counts.runs)})"


def _missing_runs_sentences(answer: Answer) -> list[str]:
    lines, counts, levels = [], answer.counts, parameter_levels(answer)
    if counts.diverged and (answer.best is not None or counts.missing):
        cases = [f"{d.diverged} of {d.runs} with {_divergence_setting(d, levels)}" for d in answer.divergences]
        if len(cases) > MAX_DIVERGENCES + 1:
            cases[MAX_DIVERGENCES:] = [f"and {len(cases) - MAX_DIVERGENCES} more values"]
        where = ", ".join(cases)
        lines.append(f"{_diverged_count_phrase(answer)}{': ' + where if where else ''}")
    pruned = 0 if answer.scope is None else answer.scope.pruned  # the scope reports them
    if counts.missing > pruned:
        missing = f"{_runs_count(counts.missing - pruned)} without {clean(answer.metric)}"
        lines.append(f"left out: {missing} (failed, stopped or not measured)")
    return lines


def _divergence_setting(divergence: Divergence, levels: Levels) -> str:
    if span := _format_span(divergence.span):
        return f"{clean(divergence.name)} {span}"
    return format_named_setting(divergence.name, divergence.value, levels)


def _runs_count(n: int) -> str:
    return f"{n} run{'s' if n != 1 else ''}"


def _diverged_count_phrase(answer: Answer) -> str:
    return f"{answer.counts.diverged} of {answer.counts.runs} runs {answer.lost}"


def _seeds_phrase(n: int) -> str:
    return f"{n} seed{'s' if n != 1 else ''}"


def _format_percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _estimate_phrase(estimate: Estimate, answer: Answer) -> str:
    """Format an estimate as `0.978 [0.974, 0.981] over 3 seeds`."""
    interval = estimate.interval
    if estimate.n > 1 and interval.low == interval.high and interval.low is not None:
        return f"{use_minus_sign(format_number(interval.mean))} with each of {_seeds_phrase(estimate.n)}"
    return f"{format_interval(interval, ranking_decimals(answer))} over {_seeds_phrase(estimate.n)}"


def cost_sentences(answer: Answer, efficiency: Efficiency | None) -> list[str]:
    """Report the configuration that reaches the target fastest, and the cost of the best one.

    Also reports how many configurations never reach the target.
    """
    if efficiency is None or answer.best is None:
        return []
    target = f"{clean(answer.metric)} {format_setting(float(f'{efficiency.target:.4g}'))}"
    if not efficiency.target_given:
        target += " (5 % short of the best)"
    if not efficiency.setups:
        return [f"no configuration reaches {target}"]
    fastest = efficiency.setups[0]
    sentence = f"fastest to {target}: {_cost_setup_phrase(fastest, answer)}: {_steps_phrase(fastest)}"
    best = next((costs for costs in efficiency.setups if freeze(costs.config) == freeze(answer.best.config)), None)
    if best is not None and best is not fastest and best.reached["steps"].median is not None:
        sentence += f"; the best configuration takes {format_setting(round(best.reached['steps'].median))} steps"
    if efficiency.never:
        sentence += f"; {efficiency.never} of {efficiency.total} configurations never reach it"
    return [sentence]


def _cost_setup_phrase(costs: SetupCosts, answer: Answer) -> str:
    return describe_settings(costs.differing, parameter_levels(answer)) or "the only configuration"


def _steps_phrase(costs: SetupCosts) -> str:
    steps = costs.reached["steps"]
    phrase = (
        f"{format_setting(round(steps.median))} steps" if steps.median is not None else "in fewer than half of its runs"
    )
    seconds = costs.reached.get("seconds")
    if seconds is not None and seconds.median:
        phrase += f", {seconds.median:.2g} s of compute"
    return f"{phrase} ({_runs_phrase(steps)})"


def _runs_phrase(steps: Reach) -> str:
    if steps.reached < steps.runs:
        return f"{steps.reached} of {steps.runs} runs reach it"
    return f"median of {steps.runs} runs" if steps.runs > 1 else "one run"
