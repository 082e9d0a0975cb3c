"""The table of the best runs at the end of `labbench run`, and notes on what it leaves out."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from labbench.cli.output import echo
from labbench.cli.showing.columns import metric_columns, run_columns
from labbench.cli.text_tables import TextColumn, print_table
from labbench.configs import differing_keys
from labbench.files import database_command
from labbench.filters.completion import quote_word
from labbench.metrics import Goal, default_goal
from labbench.records import RunRecord
from labbench.text import clean, format_count

MAX_BEST_RUNS = 5
"""Number of best runs in the table."""
MIN_LOSSES = 10
"""Minimum number of training losses to report that a run never became better than at its start."""
_MAX_NAMES = 3
_SETTING_RANK, _STEP_RANK, _SEED_RANK = 1, 2, 3
"""Ranks of columns: the seed is left out first, the settings that the grid varies last."""


def print_best_runs(
    runs: Sequence[RunRecord], metric: str, goals: Mapping[str, Goal], axes: Sequence[str], db: Path
) -> None:
    """Print the best runs on stdout, and on stderr how many others there are, and the columns left out.

    `axes` are the keys that the grid varies, whose settings come first.
    """
    program, ranked = database_command(db), sort_by_best(runs, metric, goals[metric])
    best = ranked[:MAX_BEST_RUNS]
    n_left_out = print_table(best_columns(best, metric, goals, setting_keys(runs, axes)))
    notes = [f"the best {len(best)} of {len(runs)} runs by {clean(metric)}"] if len(best) < len(runs) else []
    if n_left_out:
        notes.append(f"{format_count(n_left_out, 'column')} left out of this width")
    if notes and best:
        experiment = shlex.quote(f"experiment={quote_word(best[0].experiment)}")
        echo(f"{'; '.join(notes)}; all: {program} ls {experiment}{' --wide' if n_left_out else ''}", err=True)
    echo(f"next: {program}  (terminal interface), or {program} plot {shlex.quote(metric)} --group KEY", err=True)


def sort_by_best(runs: Sequence[RunRecord], metric: str, goal: Goal) -> list[RunRecord]:
    """Return the runs that have a best value of the metric, best first."""
    bests = {run.key: run.best(metric, goal) for run in runs}
    sign = -1.0 if goal == "max" else 1.0
    ranked = [(sign * best, index, run) for index, run in enumerate(runs) if (best := bests.get(run.key)) is not None]
    return [run for *_, run in sorted(ranked, key=lambda row: row[:2])]


def setting_keys(runs: Sequence[RunRecord], axes: Sequence[str]) -> list[str]:
    """Return the keys in which the runs differ: keys of `axes` in their order, other keys, and the seed."""
    order = {key: index for index, key in enumerate(axes)}
    keys = differing_keys(run.config for run in runs)
    return sorted(keys, key=lambda key: (key == "seed", order.get(key, len(order))))


def best_columns(
    runs: Sequence[RunRecord], metric: str, goals: Mapping[str, Goal], keys: Collection[str]
) -> list[TextColumn]:
    """Return the columns of the table: identity, the metric, and the settings of these keys."""
    identity = run_columns(runs, goals, names=[])
    measured = metric_columns(runs, metric, goals.get(metric) or default_goal(metric))
    measured = [replace(column, rank=_STEP_RANK if column.name == "at step" else 0) for column in measured]
    settings = run_columns(runs, goals, names=list(keys))[len(identity) :]
    ranks = {"seed": _SEED_RANK}
    return [
        *identity,
        *measured,
        *(replace(column, rank=ranks.get(column.name, _SETTING_RANK)) for column in settings),
    ]


def untrained_note(runs: Sequence[RunRecord]) -> str | None:
    """Return a note on finished runs whose training loss was never lower than at their first step.

    None if there are none.
    """
    finished = [run for run in runs if run.status == "finished" and "train/loss" in run.summary]
    untrained = [run for run in finished if _never_improved(run)]
    if not untrained:
        return None
    names = ", ".join(clean(run.name) for run in untrained[:_MAX_NAMES])
    more = len(untrained) - _MAX_NAMES
    listed = f"{names} and {more} more" if more > 0 else names
    rate = "its learning rate" if len(untrained) == 1 else "their learning rate"
    verb = f"{len(untrained)} of {format_count(len(finished), 'run')}"
    return f"{verb} never got below the first training loss; {rate} may be too high: {listed}"


def _never_improved(run: RunRecord) -> bool:
    """Return True if the lowest training loss is the first of many; a loss of 0 cannot become lower."""
    loss = run.summary["train/loss"]
    return loss.n >= MIN_LOSSES and loss.min_step == 0 and loss.min != 0
