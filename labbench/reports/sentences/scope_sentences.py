"""Format the scope of an `Answer` as sentences: its experiment, the runs and keys left out, values and intervals."""

from __future__ import annotations

from collections.abc import Sequence

from labbench.analysis.answer import Answer
from labbench.analysis.selection import SEED, Scope, Tuning
from labbench.metrics import counts_by_last, is_of_test_data
from labbench.reports.formatting import format_two_digits, repetition
from labbench.text import clean, format_setting


def experiment_sentence(answer: Answer) -> str:
    """Name the experiment if others measured the metric too, or the experiments that were pooled."""
    scope = answer.scope
    if scope is None or not scope.experiments:
        return ""
    if len(scope.experiments) > 1:
        return f"pooled experiments: {_names(scope.experiments)}"
    if not scope.other_experiments:
        return ""
    newest = f"the newest of {1 + len(scope.other_experiments)} with {clean(answer.metric)}"
    return f"experiment {clean(scope.experiments[0])}, {newest}; the filter experiment=NAME selects others"


def scope_sentences(answer: Answer) -> list[str]:
    """Report runs and keys that were left out, the keys of the seeds, and the meaning of values and intervals."""
    scope = answer.scope
    if scope is None:
        return []
    lines = [
        _left_out_sentence(scope),
        _continued_sentence(scope),
        _pruned_sentence(scope),
        _commits_sentence(scope),
        f"seeds: {_names(scope.seed_keys)}" if scope.seed_keys not in ((), (SEED,)) else "",
        _keys_sentence(scope),
        _not_set_sentence(answer, scope),
        _values_sentence(answer, scope),
        _early_bests_sentence(answer, scope),
        test_data_sentence(answer),
        _intervals_sentence(answer),
    ]
    return [line for line in lines if line]


def scale_sentence(answer: Answer) -> str:
    """Report that logarithms were analysed, and the meaning of the numbers."""
    if answer.scale != "log" or answer.span is None:
        return ""
    low, high = (format_setting(float(f"{value:.2g}")) for value in answer.span)
    return (
        f"{clean(answer.metric)} goes from {low} to {high}, so factors are compared, not differences, and averages are "
        "geometric means: that of 0.01 and 1 is 0.1 (--linear compares differences)"
    )


def _left_out_sentence(scope: Scope) -> str:
    counts = {
        "of older code (--all-code includes them)": scope.older_code,
        "of another version of the code (--all-code includes them)": scope.other_code,
        "of another task": scope.other_tasks,
        "of further processes of a distributed job": scope.other_ranks,
    }
    parts = [f"{n} run{'s' if n > 1 else ''} {reason}" for reason, n in counts.items() if n]
    return f"left out: {', '.join(parts)}" if parts else ""


def _continued_sentence(scope: Scope) -> str:
    """Report why runs of fewer epochs are not compared with their continuations."""
    if not scope.continued:
        return ""
    runs = f"{scope.continued} run{'s' if scope.continued > 1 else ''}"
    return (
        f"left out: {runs} of fewer epochs that others continue: they are the first part of the same training, so "
        "`epochs` does not count as varied (the filter epochs=N selects them)"
    )


def _pruned_sentence(scope: Scope) -> str:
    """Report the runs that are not compared because a search stopped them early or chose its finalists by them."""
    if scope.choosing:
        return (
            f"only configurations that a search trained with new seeds are compared, on these seeds; it chose them by "
            f"{scope.choosing} other run{'s' if scope.choosing > 1 else ''}, whose values are optimistic, "
            f"{scope.pruned} of them stopped early (the filter status=finished includes the rest)"
        )
    if not scope.pruned:
        return _new_seeds_sentence(scope)
    runs = f"{scope.pruned} run{'s' if scope.pruned > 1 else ''}"
    return (
        f"{runs} stopped early by a search {'are' if scope.pruned > 1 else 'is'} not compared, because other runs were "
        "trained for more epochs; averages over the grid are over the configurations that survived, a biased sample"
    )


def _new_seeds_sentence(scope: Scope) -> str:
    """Report that some configurations were chosen by their values among the compared runs."""
    if not scope.new_seeds:
        return ""
    runs = f"{scope.new_seeds} run{'s' if scope.new_seeds > 1 else ''}"
    return (
        f"{runs} with new seeds are of configurations that a search chose by the other runs, whose values are "
        "optimistic; the filter tag=new-seed compares these configurations on new seeds alone"
    )


def _commits_sentence(scope: Scope) -> str:
    if scope.commits < 2:
        return ""
    return f"the runs were made at {scope.commits} git commits; differences between them may come from the code"


def _keys_sentence(scope: Scope) -> str:
    parts = []
    if scope.run_keys:
        parts.append(f"{_names(scope.run_keys)}, which identify a run (--keep KEY keeps one)")
    if scope.ignored:
        parts.append(f"{_names(scope.ignored)}, as requested")
    return f"keys left out: {'; '.join(parts)}" if parts else ""


def _not_set_sentence(answer: Answer, scope: Scope) -> str:
    independent = {parameter.name for parameter in answer.parameters if parameter.parent is None}
    parts = [f"{clean(name)} in {n} run{'s' if n > 1 else ''}" for name, n in scope.not_set if name in independent]
    if not parts:
        return ""
    return f'"not set" is analysed like a value, because it is not known what such runs used: {", ".join(parts)}'


def _values_sentence(answer: Answer, scope: Scope) -> str:
    if answer.best is None:
        return ""
    metric = clean(answer.metric)
    if scope.tuning is not None:
        return _tuning_values_sentence(metric, scope.tuning)
    if scope.at == "last":
        reason = ", because an untrained network may have the best one (--best uses the best)"
        return f"each run counts with its last {metric}{reason if counts_by_last(answer.metric) else ''}"
    best, side = ("lowest", "below") if answer.goal == "min" else ("highest", "above")
    sentence = f"each run counts with its best {metric}, the {best} of the whole run"
    if not scope.bests.optimism:
        return f"{sentence} (--last uses its last value)"
    distance = format_two_digits(scope.bests.optimism)
    return f"{sentence}, which is optimistic: on average {distance} {side} its last value (--last uses its last value)"


def _tuning_values_sentence(metric: str, tuning: Tuning) -> str:
    """Report the values that choose and judge configurations, and the network that they belong to."""
    chosen_by = clean(tuning.metric)
    chosen = f"configurations are chosen by the {tuning.at} {chosen_by} of each run"
    counts = {
        "best step": f"{chosen}, and each run counts with its {metric} of the same step",
        "measured step": (
            f"{metric} was measured once per run, so configurations are chosen by the {chosen_by} of the same network: "
            f"of that step, or else the last one (--best chooses by the best {chosen_by}, for scripts that test "
            "restored best weights)"
        ),
        "last": f"{chosen}, and each run counts with its last {metric}",
        "restored": f"{chosen}, as if {metric}, measured once, were of these weights, restored from the best step",
    }
    return counts[tuning.network]


def _early_bests_sentence(answer: Answer, scope: Scope) -> str:
    """Warn if most runs count with a value from the start of their training."""
    if answer.best is None or scope.at == "last" or not scope.bests.mostly_early:
        return ""
    return (
        f"warning: the best {clean(answer.metric)} of {scope.bests.early} of {scope.bests.runs} runs lies in the first "
        "tenth of their steps, so this compares hardly trained networks; --last compares the last values"
    )


def test_data_sentence(answer: Answer) -> str:
    """Warn if configurations are chosen by their results on test data."""
    tuning = None if answer.scope is None else answer.scope.tuning
    chosen_by = answer.metric if tuning is None else tuning.metric
    if answer.counts.setups < 2 or answer.best is None or not is_of_test_data(chosen_by):
        return ""
    return (
        f"warning: the configurations are compared and tuned by {clean(chosen_by)} itself, so the test data are not "
        f"unseen any more; choose by a validation metric (--tune-on METRIC), and report {clean(answer.metric)} of the "
        "chosen configuration"
    )


def _intervals_sentence(answer: Answer) -> str:
    if answer.best is None or answer.best.interval.low is None:
        return ""
    n = answer.best.selected_among
    among = "the finalists" if answer.scope is not None and answer.scope.choosing else f"{n} that could have won"
    selection = f"; that of the best is wider, because it was picked among {among}" if n > 1 else ""
    repetitions = f"{repetition(answer)}s"
    return (
        f"an interval [low, high] holds the mean of very many {repetitions} in 95 of 100 cases{selection}; other data "
        "may give other results"
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(clean, names))
