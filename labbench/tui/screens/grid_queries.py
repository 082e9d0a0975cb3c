"""Queries of the grid screen: heat map, failures, running runs and speed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labbench import text
from labbench.configs import canonical_json
from labbench.filters import parser
from labbench.filters.parser import And, Comparison, Filter
from labbench.metrics import Goal, default_metric, ranking_metrics
from labbench.records import NEW_SEED_TAG, RunRecord
from labbench.store.reader import Reader
from labbench.tui.screens.heatmap import MetricHeatMap

_MAX_FAILURES = 200
_MAX_HEAT_VALUES = 24
"""Maximum values of a config key that is chosen automatically."""
_MAX_HEAT_ROWS = 12
"""Maximum rows of small multiples that are chosen automatically."""


@dataclass(frozen=True, slots=True)
class GridState:
    """State of the grid screen for the matching runs."""

    metrics: Mapping[str, Goal] = field(default_factory=dict)
    differing: Sequence[str] = ()
    runs: int = 0
    experiments: Sequence[str] = ()
    """Experiments of the matching runs, oldest first."""
    experiment: str | None = None
    """Experiment of the heat map, which never mixes several."""
    heat: MetricHeatMap | None = None
    failed: Sequence[RunRecord] = ()
    """Failed, lost, diverged and stopped runs."""
    live: Sequence[RunRecord] = ()
    """Running runs."""
    funnel: Sequence[tuple[int, int]] = ()
    """Epochs of the rungs of a search, each with the number of runs that trained up to it; empty without a search."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """Optimizer steps so far of each running run, by key."""
    read_at: float = 0.0
    """Time of reading, in seconds of the monotonic clock."""


def read_grid_state(
    reader: Reader, expression: str, metric: str | None, preferred: Sequence[str], experiment: str | None
) -> GridState:
    """Return the current state.

    `preferred` are the config keys chosen by the user for the heat map, `experiment` is the chosen experiment, by
    default the newest.

    Raises FilterError for an invalid filter.
    """
    matching = parser.present_code(parser.parse(expression))
    experiments = reader.experiments(matching)
    if experiment not in experiments:
        experiment = experiments[-1] if experiments else None
    condition = of_experiment(matching, experiment)
    metrics = reader.metrics(condition)
    differing = reader.differing(condition)
    names = ranking_metrics(metrics)
    chosen = metric if metric in names else default_metric(metrics, reader.declared_goals()) if names else None
    keys = _choose_heat_keys(reader, condition, differing, preferred) if chosen else ()
    heat = None
    if chosen is not None and keys:
        values = reader.values(["status", f"best({chosen})"], condition, by=keys)
        heat = MetricHeatMap(keys, chosen, metrics[chosen], values, reader.continuations())
    live = reader.runs(_with_status(matching, "running"), limit=_MAX_FAILURES)
    steps = {run.key: max((summary.last_step for summary in run.summary.values()), default=0) for run in live}
    return GridState(
        metrics=metrics,
        differing=differing,
        runs=reader.count(condition),
        experiments=experiments,
        experiment=experiment,
        heat=heat,
        failed=_read_failures(reader, matching),
        live=live,
        funnel=_read_funnel(reader, condition),
        steps=steps,
        read_at=time.monotonic(),
    )


def _read_funnel(reader: Reader, condition: Filter | None) -> list[tuple[int, int]]:
    """Return the epochs at which a search has pruned runs and the last one, each with the runs that got so far.

    Runs with new seeds, which begin after the last rung, are left out.
    """
    if not reader.count(_with_status(condition, "pruned")):
        return []
    runs = [run for run in reader.runs(condition, summaries=["epoch"]) if NEW_SEED_TAG not in run.tags]
    epochs = {run.key: run.summary["epoch"].last if "epoch" in run.summary else 0.0 for run in runs}
    rungs = {epochs[run.key] for run in runs if run.status == "pruned"} | {max(epochs.values())}
    return [(int(rung), sum(epoch >= rung for epoch in epochs.values())) for rung in sorted(rungs)]


def funnel_facts(state: GridState) -> list[str]:
    """Return a bar with the runs of a search left at each rung, as text."""
    if not state.funnel:
        return []
    most = max(runs for _, runs in state.funnel)
    parts = [f"epoch {epoch} {text.progress_bar(runs / most, 8).rstrip()} {runs}" for epoch, runs in state.funnel]
    return [f"runs left  {'  '.join(parts)}"]


def _read_failures(reader: Reader, matching: Filter | None) -> list[RunRecord]:
    """Return the runs that ended without a result, by status, the latest first."""
    return [
        run
        for status in ("failed", "lost", "diverged", "stopped")
        for run in reader.runs(
            _with_status(matching, status), sort="finished", descending=True, limit=_MAX_FAILURES, summaries=False
        )
    ]


def of_experiment(condition: Filter | None, experiment: str | None) -> Filter | None:
    """Return the filter restricted to one experiment."""
    if experiment is None:
        return condition
    restriction = Comparison("experiment", None, "=", (experiment,), (experiment,))
    return restriction if condition is None else And((condition, restriction))


def _with_status(condition: Filter | None, status: str) -> Filter:
    restriction = Comparison("status", None, "=", (status,), (status,))
    return restriction if condition is None else And((condition, restriction))


def _choose_heat_keys(
    reader: Reader, condition: Filter | None, differing: Sequence[str], preferred: Sequence[str]
) -> tuple[str, ...]:
    """Return the keys of rows, columns and multiples: the preferred ones, else a default choice.

    By default the numeric key with most values is the columns, and keys of words are rows and multiples.
    """
    chosen = tuple(key for key in preferred if key in differing)
    if len(chosen) >= 2 or (chosen and len(differing) == 1):
        return chosen
    candidates = [key for key in differing if key != "seed"] or list(differing)
    if not candidates:
        return ()
    values: dict[str, set[str]] = {key: set() for key in candidates}
    for settings in {row[1] for row in reader.values([], condition, by=candidates)}:
        for key, value in zip(candidates, json.loads(settings), strict=False):
            values[key].add(canonical_json(value))
    numeric = {key for key in candidates if all(value[0] in "-0123456789" for value in values[key] - {"null"})}
    fitting = [key for key in candidates if len(values[key]) <= _MAX_HEAT_VALUES] or candidates
    columns = max(fitting, key=lambda key: (key in numeric, len(values[key])))
    rows = sorted((key for key in fitting if key != columns), key=lambda key: key in numeric)
    if rows[1:] and len(values[rows[0]]) * len(values[rows[1]]) <= _MAX_HEAT_ROWS:
        return rows[0], columns, rows[1]
    return (rows[0], columns) if rows else (columns,)


def steps_per_second(before: GridState, now: GridState) -> float | None:
    """Return run-steps per second between two readings; None if they are too close or share no running run."""
    seconds = now.read_at - before.read_at
    common = before.steps.keys() & now.steps.keys()
    if seconds < 0.2 or not common:
        return None
    return max(0, sum(now.steps[key] - before.steps[key] for key in common)) / seconds


def machine_facts(state: GridState, run_steps: float | None) -> list[str]:
    """Return the number of running runs, their speed and the utilization of the machine, as text."""
    if not state.live:
        return []
    devices = sorted({run.machine or "?" for run in state.live})
    drivers = {(run.host, run.pid) for run in state.live}
    facts = [f"{len(state.live)} running on {text.clean(', '.join(devices[:3]))}"]
    if len(drivers) > 1:
        facts.append(f"{len(drivers)} processes")
    if run_steps is not None:
        facts.append(f"{run_steps:,.0f} run-steps/s")
    for metric, name in (("system/cpu_percent", "cpu"), ("system/gpu0_percent", "gpu")):
        shares = [run.summary[metric].last for run in state.live if metric in run.summary]
        if shares:
            facts.append(f"{name} {max(shares):.0f} %")
    return facts


def failure_summary(run: RunRecord) -> str:
    """Return the last line of a run's traceback, or the reason it ended; for an error of labbench, its message.

    For a run that a cluster trains, its node, device and job.
    """
    if run.status == "running" and run.executor is not None:
        return text.clean(run.place)
    lines = (run.traceback or "").strip().splitlines()
    message = run.error if run.error and lines and lines[0].startswith(run.error) else None
    return text.clean((message or (lines[-1] if lines else run.error or run.reason or "")).strip())


def read_importance(
    path: Path, expression: str, experiment: str | None, metric: str, check: Callable[[], None] = lambda: None
) -> list[tuple[str, float]]:
    """Return the fraction of the variance that each parameter explains by itself, largest first.

    `check` is called between steps and may raise to cancel.

    Raises FilterError for an invalid filter.
    """
    from labbench.analysis import explain  # imports numpy and the analysis, half a second
    from labbench.reports.selected_runs import read_selection

    with Reader(path) as reader:
        goal = reader.goal(metric)
        selection = read_selection(reader, of_experiment(parser.parse(expression), experiment), metric)
        answer = explain(selection, metric, goal, check=check)
    return [
        (parameter.name, parameter.importance.mean)
        for parameter in answer.parameters
        if parameter.importance is not None
    ]
