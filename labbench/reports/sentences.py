"""An `Answer` in sentences."""

from __future__ import annotations

from typing import Any

from labbench.analysis.answer import Answer, Estimate, Interaction, ParameterAnswer, Widening
from labbench.analysis.comparison import MAX_SEEDS, Difference
from labbench.analysis.costs import Basin, Reach
from labbench.analysis.effects import Contrast
from labbench.analysis.intervals import Interval
from labbench.analysis.setup_costs import Efficiency, SetupCosts
from labbench.analysis.table import freeze
from labbench.reports.formatting import (
    Levels,
    decimals_for,
    describe_settings,
    format_change,
    format_fixed,
    format_interval,
    format_mean,
    format_named_setting,
    format_setting_briefly,
    format_two_digits,
    format_value,
    half_width,
    parameter_levels,
    use_minus_sign,
)
from labbench.text import clean, format_duration, format_number, format_setting

MIN_SHARE = 0.01
"""Share of the variance that is worth a mention."""


MODEL_METHODS = ("additive model", "random forest")
"""Methods that leave something unexplained, of which nobody knows whether it is interactions."""


FOREST_HINT = 'interactions are not told apart without scikit-learn, pip install -e ".[forest]" in labbench\'s checkout'


def sentences(answer: Answer) -> list[str]:
    """The verdict, one sentence a line, the most important first."""
    if answer.best is None:
        return [_no_results_sentence(answer), *_missing_runs_sentences(answer)]
    lines = [
        _best_sentence(answer),
        _selection_sentence(answer),
        _runner_up_sentence(answer),
        _rivals_sentence(answer),
        _cheaper_sentence(answer),
        _unsafe_sentence(answer),
        *(_parameter_sentence(parameter, answer) for parameter in answer.parameters),
        *(_interaction_sentence(interaction, parameter_levels(answer)) for interaction in answer.interactions),
        *(_widening_sentence(widening, parameter_levels(answer)) for widening in answer.widenings),
        _variance_sentence(answer),
        _basis_sentence(answer),
        *_missing_runs_sentences(answer),
    ]
    return [line for line in lines if line]


def _setup_phrase(estimate: Estimate, answer: Answer) -> str:
    """A set-up by what varies in it."""
    return describe_settings(estimate.differing, parameter_levels(answer)) or "the only set-up"


def _best_sentence(answer: Answer) -> str:
    best = answer.best
    assert best is not None, "sentences() asks"
    said = f"best: {_setup_phrase(best, answer)}: {clean(answer.metric)} {_estimate_phrase(best)}"
    if best.interval.low is None:
        said += "; no interval, as nothing was run with a second seed"
    elif best.n == 1:
        said += ", its spread taken from the other set-ups"
    if best.diverged:
        said += f"; {best.diverged} of its {best.runs} runs {answer.lost}, as in every set-up some did"
    return said


def _selection_sentence(answer: Answer) -> str:
    """What selection did to the best value, where it shows."""
    best = answer.best
    if best is None or answer.held_out is None or answer.rivals < 1:
        return ""
    flattery = (best.interval.mean - answer.held_out) * (1 if answer.goal == "max" else -1)
    shown = decimals_for(half_width(best.interval))
    if flattery <= 0 or format_fixed(best.interval.mean, shown) == format_fixed(answer.held_out, shown):
        return ""
    chosen = f"it was chosen as the best of {answer.counts.setups}, which flatters"
    return (
        f"{chosen}: on seeds that had no say in the choice, the winner reaches {format_fixed(answer.held_out, shown)}"
    )


def _runner_up_sentence(answer: Answer) -> str:
    second, difference = answer.runner_up, answer.difference
    if second is None or difference is None:
        return "no other set-up has a result to compare it with" if answer.counts.setups > 1 else ""
    if difference.interval == Interval(0.0, 0.0, 0.0):
        return f"the runner-up ({_setup_phrase(second, answer)}) is equal to the last digit"
    said = f"against the runner-up ({_setup_phrase(second, answer)}): {format_change(difference.interval)}"
    if difference.interval.low is None:
        return f"{said}: too few seeds to say; 3 seeds for each set-up would give a first answer"
    seeds = f"{difference.pairs} paired seeds" if difference.pairs else _seeds_of_both(answer)
    if difference.clear:
        return f"{said}: better{_chance_phrase(difference)}"
    needed = difference.seeds_needed
    enough = f"about {needed} would do" if needed else f"more than {MAX_SEEDS} would be needed, so take either"
    return f"{said}: too close to call with {seeds}; {enough}"


def _chance_phrase(difference: Difference) -> str:
    if difference.probability is None:
        return ""
    run = "with the same seed a run of it" if difference.pairs else "a new run of it"
    return f", and {run} beats one of the other {_format_percent(min(difference.probability, 0.99))} of the time"


def _seeds_of_both(answer: Answer) -> str:
    one, other = (0 if estimate is None else estimate.n for estimate in (answer.best, answer.runner_up))
    return _seeds_phrase(one) if one == other else f"{one} and {_seeds_phrase(other)}"


def _rivals_sentence(answer: Answer) -> str:
    clear = answer.difference is not None and answer.difference.clear
    others = answer.rivals - (0 if answer.difference is None or clear else 1)
    if others < 1:
        return ""
    setups = f"set-up{'s' if others > 1 else ''}"
    if clear:  # one that is known worse, of a single seed or of runs that scatter more
        return f"yet {others} {setups} behind the runner-up, known less well, cannot be told from the best"
    return f"{others} more {setups} cannot be told from the best with these seeds"


def _cheaper_sentence(answer: Answer) -> str:
    cheaper, best = answer.cheaper, answer.best
    if cheaper is None or best is None:
        return ""
    times = f"{format_duration(cheaper.seconds)} a run instead of {format_duration(best.seconds)}"
    return f"not clearly worse and faster: {_setup_phrase(cheaper, answer)}: {_estimate_phrase(cheaper)}, {times}"


def _unsafe_sentence(answer: Answer) -> str:
    unsafe = answer.unsafe
    if unsafe is None:
        return ""
    said = f"passed over: {_setup_phrase(unsafe, answer)}: {_estimate_phrase(unsafe)}"
    return f"{said}, but {unsafe.diverged} of its {unsafe.runs} runs {answer.lost}"


def _parameter_sentence(parameter: ParameterAnswer, answer: Answer) -> str:
    contrast = parameter.marginal.contrast
    name = clean(parameter.name)
    if parameter.followers:
        name += f" (with {', '.join(clean(follower) for follower in parameter.followers)})"
    if contrast is None:
        return f"{name}: only one of its values has results" if len(parameter.marginal.effects) > 1 else ""
    values = [effect for effect in parameter.marginal.effects if effect.n]
    said = (
        _two_values_clause(parameter, contrast, answer)
        if len(values) == 2
        else _many_values_clause(parameter, contrast, answer)
    )
    return f"{name}: {said}{_diverged_values_clause(parameter, answer)}"


def _two_values_clause(parameter: ParameterAnswer, contrast: Contrast, answer: Answer) -> str:
    ahead, behind = _value_phrase(parameter, contrast.value), _value_phrase(parameter, contrast.against)
    gain = _format_gain(contrast, answer)
    if parameter.evidence == "none" and contrast.interval.low is not None:
        return f"no difference found{_average_phrase(answer)} ({ahead} against {behind}: {gain})"
    better = f"better {ahead}" if _is_switch(parameter) else f"{ahead} ahead of {behind}"
    modelled = answer.shares is not None and answer.shares.method in MODEL_METHODS
    whole = f"averaged over the set-ups that vary it, by their {clean(parameter.parent or '')}"
    averaged = "on average" if modelled else whole if parameter.parent else "averaged over the grid"
    said = f"{better} by {gain} {averaged}"
    return (
        said
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
        return f"no difference found among its {len(measured)} values (from {spread} on average)"
    margin = f"ahead of {behind} by {_format_gain(contrast, answer)}"
    if contrast.interval.low is not None and not contrast.interval.excludes(0.0):
        margin = f"though {behind} is too close to call ({_format_gain(contrast, answer)})"
    said = f"best on average at {ahead} ({format_mean(top.interval)}), {margin}"
    said += f"; worst at {_value_phrase(parameter, worst.value)} ({format_mean(worst.interval)})"
    return (
        said
        + _evidence_phrase(parameter)
        + _alternative_clause(parameter, answer)
        + _best_differs_clause(parameter, contrast, answer)
    )


def _average_phrase(answer: Answer) -> str:
    """Two set-ups may differ in a parameter that makes no difference on average over the others."""
    return " on average" if len(answer.parameters) > 1 else ""


def _evidence_phrase(parameter: ParameterAnswer) -> str:
    if parameter.evidence == "weak":
        return " (weak evidence: among several parameters, one may look like this by chance)"
    return " (in these runs; too few to say more)" if parameter.marginal.p_value is None else ""


def _alternative_clause(parameter: ParameterAnswer, answer: Answer) -> str:
    closing = parameter.close_alternative
    if closing is None or parameter.evidence == "none":
        return ""
    who = _value_phrase(parameter, closing.value)
    if _is_switch(parameter):
        who = f"a set-up {who}"
    if closing.differing:
        who += f" at {describe_settings(closing.differing, parameter_levels(answer))}"
    return f", but {who} comes within {format_two_digits(closing.gap)} of the best"


def _best_differs_clause(parameter: ParameterAnswer, contrast: Contrast, answer: Answer) -> str:
    """The best set-up need not use the value that is best on average."""
    if answer.best is None or parameter.numeric or any(effect.span for effect in parameter.marginal.effects):
        return ""
    used = answer.best.config.get(parameter.name)
    return (
        "" if freeze(used) == freeze(contrast.value) else f", yet the best set-up uses {_value_phrase(parameter, used)}"
    )


def _diverged_values_clause(parameter: ParameterAnswer, answer: Answer) -> str:
    gone = [effect for effect in parameter.marginal.effects if not effect.n and effect.diverged]
    values = ", ".join(_value_phrase(parameter, effect.value) for effect in gone)
    return f"; every run {answer.lost} at {values}" if gone else ""


def _value_phrase(parameter: ParameterAnswer, value: Any) -> str:
    """A value of a parameter in a sentence that has named it."""
    if isinstance(value, bool) and _is_switch(parameter):
        return "with it" if value else "without it"
    if value is None:
        return "not set"
    effect = next((effect for effect in parameter.marginal.effects if freeze(effect.value) == freeze(value)), None)
    if effect is not None and effect.span is not None and effect.span[0] != effect.span[1]:
        low, high = (format_setting(float(f"{edge:.2g}")) for edge in effect.span)
        return f"{low}–{high}"
    return format_value(value, [effect.value for effect in parameter.marginal.effects])


def _is_switch(parameter: ParameterAnswer) -> bool:
    """On or off, as batchnorm is; a parameter of mixed values is not, though true be one of them."""
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
        who = name if widening.wide_value else f"no {name}"
    else:
        wide, narrow = (
            f"with {format_setting_briefly(widening.name, v, levels)}"
            for v in (widening.wide_value, widening.narrow_value)
        )
        who = format_named_setting(widening.name, widening.wide_value, levels)
    rates = f"{_range_phrase(widening.wide)} {wide}, {_range_phrase(widening.narrow)} {narrow}"
    return f"{who} widens the usable learning rates: within 5 % of the best {rates}"


def _range_phrase(basin: Basin) -> str:
    if basin.low == basin.high:
        return f"at {format_setting(basin.low)} alone"
    beyond = " (the largest tried)" if basin.open_above else ""
    below = " (the smallest tried)" if basin.open_below else ""
    return f"from {format_setting(basin.low)}{below} to {format_setting(basin.high)}{beyond}"


def _variance_sentence(answer: Answer) -> str:
    shares = answer.shares
    if shares is None:
        return ""
    named = [(p.name, p.importance.mean) for p in answer.parameters if p.importance is not None]
    parts = [f"{clean(name)} {_format_percent(share)}" for name, share in named if share >= MIN_SHARE]
    # interactions of three and more are interactions too; an additive model cannot tell them from anything else
    modelled = shares.method in MODEL_METHODS
    together, other = (shares.interactions, shares.rest) if modelled else (shares.interactions + shares.rest, 0.0)
    parts += [f"{n} {_format_percent(s)}" for n, s in (("interactions", together), ("other", other)) if s >= MIN_SHARE]
    if shares.seeds is not None:
        parts.append(f"seeds {_format_percent(shares.seeds)}")
    without = ", ".join(format_named_setting(name, value, parameter_levels(answer)) for name, value in shares.left_out)
    left_out = f" (without {without}: not there for all)" if without else ""
    unsaid = f": {FOREST_HINT}" if shares.wants_forest and other >= MIN_SHARE else ""
    return f"of the variance{left_out}: {', '.join(parts)}{unsaid}" if parts else ""


def _basis_sentence(answer: Answer) -> str:
    by_settings = [p for p in answer.parameters if p.marginal.basis == "settings"]
    if not by_settings:
        return ""
    return "the intervals of the parameters rest on how alike an effect is in different settings, not on seeds"


def _no_results_sentence(answer: Answer) -> str:
    if answer.counts.runs == 0:
        return f"no run has ended yet, so nothing is known of {clean(answer.metric)}"
    if answer.counts.diverged == answer.counts.runs:
        return f"no run has a value of {clean(answer.metric)}: {_diverged_count_phrase(answer)}"
    return f"no run has a value of {clean(answer.metric)} ({answer.counts.runs} looked at)"


def _missing_runs_sentences(answer: Answer) -> list[str]:
    lines, counts, levels = [], answer.counts, parameter_levels(answer)
    if counts.diverged and (answer.best is not None or counts.missing):
        where = ", ".join(
            f"{d.diverged} of {d.runs} with {format_named_setting(d.name, d.value, levels)}" for d in answer.divergences
        )
        lines.append(f"{_diverged_count_phrase(answer)}{': ' + where if where else ''}")
    if counts.missing:
        lines.append(f"left out: {counts.missing} without {clean(answer.metric)} (failed, stopped or not measured)")
    return lines


def _diverged_count_phrase(answer: Answer) -> str:
    return f"{answer.counts.diverged} of {answer.counts.runs} runs {answer.lost}"


def _seeds_phrase(n: int) -> str:
    return f"{n} seed{'s' if n != 1 else ''}"


def _format_percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _format_gain(contrast: Contrast, answer: Answer) -> str:
    """How far ahead, positive where the goal is min too; a number that may go below 0 keeps its sign."""
    i = contrast.interval
    if answer.goal == "min":
        low, high = (None, None) if i.low is None or i.high is None else (-i.high, -i.low)
        i = Interval(-i.mean, low, high)
    return format_interval(i) if i.low is None or i.low > 0 else format_change(i)


def _estimate_phrase(estimate: Estimate) -> str:
    """`0.978 [0.974, 0.981] over 3 seeds`."""
    interval = estimate.interval
    if estimate.n > 1 and interval.low == interval.high and interval.low is not None:
        return f"{use_minus_sign(format_number(interval.mean))} with each of {_seeds_phrase(estimate.n)}"
    return f"{format_interval(interval)} over {_seeds_phrase(estimate.n)}"


def cost_sentences(answer: Answer, spent: Efficiency | None) -> list[str]:
    """Who gets to the target first, what the best set-up takes, and who never gets there."""
    if spent is None or answer.best is None:
        return []
    target = f"{clean(answer.metric)} {format_setting(float(f'{spent.target:.4g}'))}"
    if not spent.target_given:
        target += " (5 % short of the best)"
    if not spent.setups:
        return [f"no set-up gets to {target}"]
    first = spent.setups[0]
    said = f"quickest to {target}: {_cost_setup_phrase(first, answer)}: {_steps_phrase(first)}"
    best = next((one for one in spent.setups if freeze(one.config) == freeze(answer.best.config)), None)
    if best is not None and best is not first and best.reached["steps"].median is not None:
        said += f"; the best set-up takes {format_setting(best.reached['steps'].median)} steps"
    if spent.never:
        said += f"; {spent.never} of {spent.total} set-ups never get there"
    return [said]


def _cost_setup_phrase(spending: SetupCosts, answer: Answer) -> str:
    return describe_settings(spending.differing, parameter_levels(answer)) or "the only set-up"


def _steps_phrase(spending: SetupCosts) -> str:
    steps = spending.reached["steps"]
    said = f"{format_setting(steps.median)} steps" if steps.median is not None else "in fewer than half of its runs"
    seconds = spending.reached.get("seconds")
    if seconds is not None and seconds.median:
        said += f", {seconds.median:.2g} s of its own computing"
    return f"{said} ({_runs_phrase(steps)})"


def _runs_phrase(steps: Reach) -> str:
    if steps.reached < steps.runs:
        return f"{steps.reached} of {steps.runs} runs get there"
    return f"median of {steps.runs} runs" if steps.runs > 1 else "one run"
