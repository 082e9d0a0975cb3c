"""Read the runs that an answer is about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from labbench.analysis.selection import At, KeyOptions, Network, Selection, Tuning, select_runs
from labbench.errors import InputError
from labbench.filters.parser import And, Comparison, Filter, present_code, uses_key
from labbench.metrics import Goal, counts_by_last, unknown_metric
from labbench.records import RunRecord
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
    """Value of a run that counts, of both metrics with `tune_on`; None: its best one, or the last one of a metric that
    is best untrained."""
    linear: bool = False
    """True to compare differences also if losses span more than a decade."""
    tune_on: str | None = None
    """Metric for choosing configurations; None: the metric of the answer itself."""


def read_selection(
    reader: Reader, run_filter: Filter | None, metric: str, options: SelectionOptions | None = None
) -> Selection:
    """Return the selected ones of the matching runs, with their summaries of `metric` and of compute time.

    Raises:
        InputError: A key of the options is in no config, configurations cannot be chosen by `options.tune_on`, or no
            network was measured with both metrics.
    """
    options = options or SelectionOptions()
    tuning_goal = _find_tuning_goal(reader, metric, options.tune_on)
    summaries = [metric, "time/compute_s", *([] if tuning_goal is None else [options.tune_on or metric])]
    all_code = options.all_code or uses_key(run_filter, "older_code")
    selection = select_runs(
        reader.runs(run_filter if all_code else present_code(run_filter), summaries=summaries),
        metric,
        pooled=options.pooled or uses_key(run_filter, "experiment"),
        all_code=all_code,
        keys=options.keys,
        at="last" if tuning_goal is not None else options.at or ("last" if counts_by_last(metric) else "best"),
    )
    if options.tune_on is not None and tuning_goal is not None:
        selection = _with_tuning(reader, selection, metric, Tuning(options.tune_on, tuning_goal), options.at)
    older = 0 if all_code else reader.count(of_experiments(selection, _with(run_filter, _OLDER)))
    scope = replace(selection.scope, older_code=older, linear=options.linear)
    sampling = None if scope.pruned else read_sampling(reader, selection.runs)
    return replace(selection, scope=scope, sampling=sampling)


def _find_tuning_goal(reader: Reader, metric: str, tune_on: str | None) -> Goal | None:
    """Return the goal of the metric for choosing configurations; None if it is `metric` itself. Raises InputError."""
    if tune_on is None or tune_on == metric:
        return None
    goals = reader.metrics()
    if tune_on not in goals:
        raise unknown_metric(tune_on, goals)
    if goals[tune_on] == "none":
        raise InputError(
            f"--tune-on {tune_on}: neither high nor low values of it are better; declare its goal with `define`"
        )
    return goals[tune_on]


def _with_tuning(reader: Reader, selection: Selection, metric: str, tuning: Tuning, at: At | None) -> Selection:
    """Return the selection with a tuning metric, and the values of both metrics of one network per run.

    Raises:
        InputError: No network was measured with both metrics, and `at` is "best".
    """
    measured = [run for run in selection.runs if run.status == "finished" and metric in run.summary]
    is_curve = any(run.summary[metric].n > 1 for run in measured)
    at = at or ("last" if counts_by_last(tuning.metric) else None)
    if at == "last" or (at == "best" and not is_curve):
        return _chosen_by(selection, tuning, "last" if at == "last" else "restored")
    pairs = reader.paired_points([run.key for run in measured], metric, tuning.metric, tuning.goal)
    if not is_curve:
        by_key = {run.key: run for run in measured}
        pairs = {key: pair for key, pair in pairs.items() if pair.step or _ends_at(by_key[key], tuning.metric) == 0}
        return replace(_chosen_by(selection, tuning, "measured step"), pairs=pairs)
    if measured and not pairs:
        if at == "best":
            raise InputError(
                f"--best: `{metric}` and `{tuning.metric}` were never measured at the same step, so no network has "
                "both; --last compares their last values"
            )
        return _chosen_by(selection, tuning, "last")
    return replace(_chosen_by(selection, tuning, "best step"), pairs=pairs)


def _chosen_by(selection: Selection, tuning: Tuning, network: Network) -> Selection:
    return replace(selection, scope=replace(selection.scope, tuning=replace(tuning, network=network)))


def _ends_at(run: RunRecord, metric: str) -> int | None:
    """Return the last step of a metric.

    A result at step 0 of a run with later steps is a result without a step, as MLflow records it.
    """
    return run.summary[metric].last_step if metric in run.summary else None


_OLDER = Comparison("older_code", None, "=", (True,), ("true",))


def of_experiments(selection: Selection, run_filter: Filter | None) -> Filter | None:
    """Return the filter restricted to the experiments of a selection."""
    names = selection.scope.experiments
    return _with(run_filter, Comparison("experiment", None, "=", names, names)) if names else run_filter


def _with(run_filter: Filter | None, term: Filter) -> Filter:
    return term if run_filter is None else And((run_filter, term))
