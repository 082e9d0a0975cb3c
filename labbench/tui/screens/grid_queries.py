"""What the grid screen asks of a database: the numbers of the heat map, what has failed, how fast it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labbench import text
from labbench.filters import parser
from labbench.filters.parser import And, Comparison, Filter
from labbench.metrics import quality_metrics
from labbench.records import Goal, RunRecord
from labbench.store.reader import Reader
from labbench.tui.screens.heatmap import MetricHeatMap

_MAX_FAILURES = 200
_MAX_HEAT_VALUES = 24
"""Of a key that the heat map takes by itself."""
_MAX_HEAT_ROWS = 12
"""Of small multiples that nobody asked for."""


@dataclass(frozen=True, slots=True)
class GridState:
    """What the screen shows of the runs that fit."""

    metrics: Mapping[str, Goal] = field(default_factory=dict)
    differing: Sequence[str] = ()
    runs: int = 0
    heat: MetricHeatMap | None = None
    failed: Sequence[RunRecord] = ()
    """What needs a person: failed, lost, diverged, stopped."""
    live: Sequence[RunRecord] = ()
    """What is training now."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """Optimizer steps so far of each of those."""
    at: float = 0.0
    """When that was read: seconds of a clock that never jumps."""


def read_grid_state(reader: Reader, expression: str, metric: str | None, wanted: Sequence[str]) -> GridState:
    """The present state; `wanted` are the config keys of the heat map, as far as somebody has chosen them."""
    shown = parser.present_code(parser.parse(expression))
    metrics = reader.metrics(shown)
    differing = reader.differing(shown)
    names = quality_metrics(metrics)
    chosen = metric if metric in names else names[0] if names else None
    keys = _choose_heat_keys(reader, shown, differing, wanted) if chosen else ()
    heat = None
    if chosen is not None and keys:
        heat = MetricHeatMap(
            keys, chosen, metrics[chosen], reader.values(["status", f"best({chosen})"], shown, by=keys)
        )
    live = reader.runs(_with_status(shown, "running"), limit=_MAX_FAILURES)
    steps = {run.key: max((one.last_step for one in run.summary.values()), default=0) for run in live}
    failed = []
    for status in ("failed", "lost", "diverged", "stopped"):
        failed += reader.runs(
            _with_status(shown, status), sort="finished", descending=True, limit=_MAX_FAILURES, summaries=False
        )
    return GridState(metrics, differing, reader.count(shown), heat, failed, live, steps, time.monotonic())


def _with_status(shown: Filter | None, status: str) -> Filter:
    condition = Comparison("status", None, "=", (status,), (status,))
    return condition if shown is None else And((shown, condition))


def _choose_heat_keys(
    reader: Reader, shown: Filter | None, differing: Sequence[str], wanted: Sequence[str]
) -> tuple[str, ...]:
    """Rows, columns, multiples: as chosen; else numbers with many values across, and words down, as they fit."""
    chosen = tuple(key for key in wanted if key in differing)
    if len(chosen) >= 2 or (chosen and len(differing) == 1):
        return chosen
    candidates = [key for key in differing if key != "seed"] or list(differing)
    if not candidates:
        return ()
    values: dict[str, set[str]] = {key: set() for key in candidates}
    for settings in {row[1] for row in reader.values([], shown, by=candidates)}:
        for key, value in zip(candidates, json.loads(settings), strict=False):
            values[key].add(json.dumps(value))
    numeric = {key for key in candidates if all(value[0] in "-0123456789" for value in values[key] - {"null"})}
    few = [key for key in candidates if len(values[key]) <= _MAX_HEAT_VALUES] or candidates
    across = max(few, key=lambda key: (key in numeric, len(values[key])))
    down = sorted((key for key in few if key != across), key=lambda key: key in numeric)
    if down[1:] and len(values[down[0]]) * len(values[down[1]]) <= _MAX_HEAT_ROWS:
        return down[0], across, down[1]
    return (down[0], across) if down else (across,)


def steps_per_second(before: GridState, now: GridState) -> float | None:
    """Run-steps a second between two readings; None where they are too near or nothing goes on in both."""
    seconds = now.at - before.at
    common = before.steps.keys() & now.steps.keys()
    if seconds < 0.2 or not common:
        return None
    return max(0, sum(now.steps[key] - before.steps[key] for key in common)) / seconds


def machine_facts(state: GridState, run_steps: float | None) -> list[str]:
    """What trains, how fast, and how busy the machine is, as far as the runs tell."""
    if not state.live:
        return []
    devices = sorted({f"{run.host or '?'} {run.device or ''}".strip() for run in state.live})
    drivers = {(run.host, run.pid) for run in state.live}
    facts = [f"{len(state.live)} training on {text.clean(', '.join(devices[:3]))}"]
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
    """The last line of a run's traceback, or why it ended; of an error of ours, which is told in words, the first."""
    lines = (run.traceback or "").strip().splitlines()
    words = run.error if run.error and lines and lines[0].startswith(run.error) else None
    return text.clean((words or (lines[-1] if lines else run.error or run.reason or "")).strip())


def read_importance(path: Path, expression: str, metric: str) -> list[tuple[str, float]]:
    """The share of the variance that each parameter explains by itself, the largest first."""
    from labbench.analysis import observe, why  # numpy and more, half a second

    with Reader(path) as reader:
        goal = reader.goal(metric)
        runs = reader.runs(parser.present_code(parser.parse(expression)), summaries=[metric])
        answer = why(observe(runs, metric, goal), metric, goal)
    return [(one.name, one.importance.mean) for one in answer.parameters if one.importance is not None]
