"""Format an `Answer` as sentences."""

from __future__ import annotations

from labbench.analysis.answer import Answer, Divergence
from labbench.reports.budget_sentences import budget_sentences
from labbench.reports.formatting import (
    INTERACTIONS,
    Levels,
    format_named_setting,
    format_percent,
    format_span,
    luck_phrase,
    parameter_levels,
    repetition,
)
from labbench.reports.sentences.parameter_sentences import (
    MODEL_METHODS,
    interaction_sentence,
    parameter_sentence,
    widening_sentence,
)
from labbench.reports.sentences.scope_sentences import experiment_sentence, scale_sentence, scope_sentences
from labbench.reports.sentences.tuning_sentences import averages_sentence, estimand_sentence, tuned_sentences
from labbench.reports.sentences.verdict_sentences import (
    cheaper_sentence,
    numbers_sentence,
    rivals_sentence,
    selection_sentence,
    unsafe_sentence,
    verdict_sentences,
)
from labbench.text import clean

MIN_SHARE = 0.01
"""Smallest share of the variance that is reported."""


GLOSSARY_SENTENCE = "docs/why.md explains the words, with examples, and every interval"


MAX_DIVERGENCES = 3
"""Number of values with diverged runs that are named if there are more of them."""


def sentences(answer: Answer) -> list[str]:
    """Return the verdict in plain words, then its numbers and details, as sentences."""
    return [*verdict(answer), *details(answer)]


def short_sentences(answer: Answer) -> list[str]:
    """Return the verdict, and one sentence per parameter: its values at their best settings, else on average."""
    tuned = {comparison.name: line for comparison, line in zip(answer.tuned, tuned_sentences(answer), strict=True)}
    lines = [tuned.get(parameter.name) or parameter_sentence(parameter, answer) for parameter in answer.parameters]
    return [line for line in (*verdict(answer), experiment_sentence(answer), *lines) if line]


def verdict(answer: Answer) -> list[str]:
    """Return the answer in plain words: up to three sentences."""
    return [_no_results_sentence(answer)] if answer.best is None else verdict_sentences(answer)


def details(answer: Answer) -> list[str]:
    """Return the sentences below the verdict, most important first."""
    if answer.best is None:
        lines = [experiment_sentence(answer), *_missing_runs_sentences(answer)]
        return [line for line in lines if line] + scope_sentences(answer)
    lines = [
        experiment_sentence(answer),
        *tuned_sentences(answer),
        *budget_sentences(answer),
        numbers_sentence(answer),
        selection_sentence(answer),
        rivals_sentence(answer),
        cheaper_sentence(answer),
        unsafe_sentence(answer),
        averages_sentence(answer),
        *(parameter_sentence(parameter, answer) for parameter in answer.parameters),
        *(interaction_sentence(interaction, answer) for interaction in answer.interactions),
        *(widening_sentence(widening, answer) for widening in answer.widenings),
        _variance_sentence(answer),
        _basis_sentence(answer),
        _limits_sentence(answer),
        scale_sentence(answer),
        estimand_sentence(answer),
        *_missing_runs_sentences(answer),
        _copies_sentence(answer),
        *scope_sentences(answer),
        GLOSSARY_SENTENCE,
    ]
    return [line for line in lines if line]


def _variance_sentence(answer: Answer) -> str:
    shares = answer.shares
    if shares is None:
        return ""
    named = [(clean(p.name), p.importance.mean) for p in answer.parameters if p.importance is not None]
    # the rest of a factorial is interactions of three and more parameters, the rest of a model is unknown
    is_model = shares.method in MODEL_METHODS
    interactions, other = (shares.interactions, shares.rest) if is_model else (shares.interactions + shares.rest, 0.0)
    named += [(INTERACTIONS, interactions), ("unexplained", other)]
    parts = [f"{name} {format_percent(share)}" for name, share in named if share >= MIN_SHARE]
    if shares.seeds is not None:
        parts.append(f"{luck_phrase(answer)} {format_percent(shares.seeds)}")
    without = ", ".join(format_named_setting(name, value, parameter_levels(answer)) for name, value in shares.left_out)
    left_out = f" (without {without}: not run in all combinations)" if without else ""
    metric = f"log {clean(answer.metric)}" if answer.scale == "log" else clean(answer.metric)
    return f"differences in {metric} come from{left_out}: {', '.join(parts)}" if parts else ""


def _basis_sentence(answer: Answer) -> str:
    by_settings = [p for p in answer.parameters if p.marginal.basis == "settings"]
    if not by_settings:
        return ""
    return (
        "the intervals of the parameters are based on the variation of effects between settings, not between "
        f"{repetition(answer)}s"
    )


def _limits_sentence(answer: Answer) -> str:
    """Report what was left out because too many parameters vary."""
    limits = []
    if answer.not_analysed:
        n = len(answer.not_analysed)
        n_varying = n + len(answer.parameters)
        limits.append(f"{n} of {n_varying} varying keys are not analysed, those that explain least of the results")
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


def _copies_sentence(answer: Answer) -> str:
    copies = answer.counts.copies
    if not copies:
        return ""
    subject = f"{copies} runs are copies" if copies > 1 else "1 run is a copy"
    return (
        f"{subject} of another one: same settings, same numbers, no seed recorded, so they count once and show no "
        "spread; train with different seeds, and record each seed in the config"
    )


def _divergence_setting(divergence: Divergence, levels: Levels) -> str:
    if span := format_span(divergence.span):
        return f"{clean(divergence.name)} {span}"
    return format_named_setting(divergence.name, divergence.value, levels)


def _runs_count(n: int) -> str:
    return f"{n} run{'s' if n != 1 else ''}"


def _diverged_count_phrase(answer: Answer) -> str:
    return f"{answer.counts.diverged} of {answer.counts.runs} runs {answer.lost}"
