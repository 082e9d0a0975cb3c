"""Read the runs that an answer is about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from labbench.analysis.selection import At, KeyOptions, Selection, Tuning, select_runs
from labbench.errors import InputError
from labbench.filters.parser import And, Comparison, Filter, present_code, uses_key
from labbench.metrics import counts_by_last, unknown_metric
from labbench.reports.config_draws import read_sampling
from labbench.store.reader import Reader


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """Options of a selection; the terminal interface uses the defaults."""

    pooled: bool = False
    """Select all experiments with the task of the newest run; implied by a filter that uses `experiment`."""
    all_code: bool = False
    """Select runs of all versions of the code; implied by a filter that uses `older_code`."""
    keys: KeyOptions = field(default_factory=KeyOptions)
    at: At | None = None
    """Value of a run that counts; None: its best one, or the last one of a metric that is best untrained."""
    linear: bool = False
    """True to compare differences also if losses span more than a decade."""
    tune_on: str | None = None
    """Metric for choosing configurations; None: the metric of the answer itself."""


def read_selection(
    reader: Reader, run_filter: Filter | None, metric: str, options: SelectionOptions | None = None
) -> Selection:
    """Return the selected ones of the matching runs, with their summaries of `metric` and of compute time.

    Raises:
        InputError: A key of the options is in no config, or configurations cannot be chosen by `options.tune_on`.
    """
    options = options or SelectionOptions()
    tuning = _find_tuning(reader, metric, options.tune_on)
    summaries = [metric, "time/compute_s", *([] if tuning is None else [tuning.metric])]
    all_code = options.all_code or uses_key(run_filter, "older_code")
    selection = select_runs(
        reader.runs(run_filter if all_code else present_code(run_filter), summaries=summaries),
        metric,
        pooled=options.pooled or uses_key(run_filter, "experiment"),
        all_code=all_code,
        keys=options.keys,
        at=options.at or _value_that_counts(metric, tuning),
    )
    older = 0 if all_code else reader.count(of_experiments(selection, _with(run_filter, _OLDER)))
    scope = replace(selection.scope, older_code=older, linear=options.linear, tuning=tuning)
    sampling = None if scope.pruned else read_sampling(reader, selection.runs)
    return replace(selection, scope=scope, sampling=sampling)


def _find_tuning(reader: Reader, metric: str, tune_on: str | None) -> Tuning | None:
    """Return the metric for choosing configurations; None if it is `metric` itself. Raises InputError."""
    if tune_on is None or tune_on == metric:
        return None
    goals = reader.metrics()
    if tune_on not in goals:
        raise unknown_metric(tune_on, goals)
    if goals[tune_on] == "none":
        raise InputError(
            f"--tune-on {tune_on}: neither high nor low values of it are better; declare its goal with `define`"
        )
    return Tuning(tune_on, goals[tune_on], "last" if counts_by_last(tune_on) else "best")


def _value_that_counts(metric: str, tuning: Tuning | None) -> At:
    """Return the value of a run that counts: the best one, unless it would be another choice by the metric itself."""
    return "last" if counts_by_last(metric) or tuning is not None else "best"


_OLDER = Comparison("older_code", None, "=", (True,), ("true",))


def of_experiments(selection: Selection, run_filter: Filter | None) -> Filter | None:
    """Return the filter restricted to the experiments of a selection."""
    names = selection.scope.experiments
    return _with(run_filter, Comparison("experiment", None, "=", names, names)) if names else run_filter


def _with(run_filter: Filter | None, term: Filter) -> Filter:
    return term if run_filter is None else And((run_filter, term))
