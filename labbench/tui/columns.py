"""The columns of the runs table: which there are, and what each says about a run. Records in, text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labbench import text
from labbench.records import Goal, RunRecord, default_goal

_WIDEST = 28
_WIDEST_NAME = 48


@dataclass(slots=True)
class Column:
    """One column: its title, what it sorts by, and the text of a run's cell.

    It is as wide as what it has shown so far: it grows, but never jumps back while somebody scrolls.
    """

    title: str
    sort: str | None
    """What the store sorts by: `name`, a config key, `best(val/loss)`; None where it cannot."""
    cell: Callable[[RunRecord], str]
    numeric: bool = True
    """Aligned at the decimal point, title to the right; otherwise both to the left."""
    words: bool = False
    """What it holds is known only when it is seen: a cell that is no number makes it a column of text."""
    descending_first: bool = False
    """Sorted for the first time, the largest value comes first."""
    is_best: bool = False
    """It holds the best values of the metric on the chart."""
    widest: int = _WIDEST
    before_point: int = 0
    behind_point: int = 0
    longest: int = 0

    def learn(self, runs: Iterable[RunRecord]) -> None:
        """Grow to the cells of these runs."""
        for run in runs:
            cell = self.cell(run)
            if self.words and cell and cell[0] not in "-0123456789":
                self.numeric = False
            if self.numeric:
                whole, rest = text.split_at_point(cell)
                self.before_point = max(self.before_point, len(whole))
                self.behind_point = max(self.behind_point, len(rest))
            self.longest = max(self.longest, text.width(cell))

    def grow_to(self, other: Column) -> None:
        """Be at least as wide as another column."""
        self.before_point = max(self.before_point, other.before_point)
        self.behind_point = max(self.behind_point, other.behind_point)
        self.longest = max(self.longest, other.longest)

    @property
    def width(self) -> int:
        """Cells the column takes, without the gap to its neighbour."""
        content = max(self.longest, self.before_point + self.behind_point)
        return max(text.width(self.title), min(content, self.widest))

    def fitted(self, run: RunRecord) -> str:
        """The run's cell in exactly `width` cells."""
        cell = self.cell(run)
        if not self.numeric:
            return text.fit(cell, self.width)
        whole, rest = text.split_at_point(cell)
        return text.fit(whole + rest.ljust(self.behind_point), self.width, right=True)

    def heading(self) -> str:
        """The title in exactly `width` cells."""
        return text.fit(self.title, self.width, right=self.numeric)


def run_columns(differing: Sequence[str], metric: str | None, metrics: Mapping[str, Goal]) -> list[Column]:
    """The columns beside a run's status: its name, the metric on the chart, the settings that differ, its time.

    Then the best values of the other metrics, those that say how good a run is (val, test) before the rest.
    """
    columns = [Column("name", "name", lambda run: text.clean(run.name), numeric=False, widest=_WIDEST_NAME)]
    if metric is not None:
        columns += _metric_columns(metric, metrics.get(metric) or default_goal(metric))
    columns += [_setting_column(key) for key in differing]
    others = sorted((name for name in metrics if name != metric and not is_axis(name)), key=metric_rank)
    columns += [_best_column(name, metrics[name], title=text.clean(name)) for name in others]
    columns.append(Column("took", "seconds", lambda run: text.duration(run.seconds)))
    columns.append(Column("age", "started", _age, descending_first=True))
    return columns


def is_axis(metric: str) -> bool:
    """Whether a metric says how far a run is, not how well it does."""
    return metric in ("epoch", "samples") or metric.startswith(("time/", "system/"))


def metric_rank(metric: str) -> tuple[int, bool, str]:
    """Sorts metrics by how much they say of a run: validation, test, training, then the rest; losses first."""
    order = ("val", "test", "train")
    first = metric.lower().replace("_", "/").split("/")[0]
    return (order.index(first) if first in order else len(order)), "loss" not in metric.lower(), metric


def _metric_columns(metric: str, goal: Goal) -> list[Column]:
    return [
        Column(text.clean(metric), f"last({metric})", _last_of(metric), descending_first=goal == "max"),
        replace(_best_column(metric, goal, title="best"), is_best=True),
        Column("@", None, _best_step_of(metric, goal)),
    ]


def _best_column(metric: str, goal: Goal, *, title: str) -> Column:
    def cell(run: RunRecord) -> str:
        summary = run.summary.get(metric)
        return "" if summary is None else text.number(summary.best(goal)[0])

    return Column(title, f"best({metric})", cell, descending_first=goal == "max")


def _last_of(metric: str) -> Callable[[RunRecord], str]:
    def cell(run: RunRecord) -> str:
        summary = run.summary.get(metric)
        return "" if summary is None else text.number(summary.last)

    return cell


def _best_step_of(metric: str, goal: Goal) -> Callable[[RunRecord], str]:
    def cell(run: RunRecord) -> str:
        summary = run.summary.get(metric)
        step = None if summary is None else summary.best(goal)[1]
        return "" if step is None else str(step)

    return cell


def _setting_column(key: str) -> Column:
    def cell(run: RunRecord) -> str:
        return show_setting(run.config[key]) if key in run.config else ""

    return Column(text.clean(key), key, cell, words=True)


def show_setting(value: Any) -> str:
    """A config value in a narrow cell: booleans as ✓ and –."""
    if isinstance(value, bool):
        return "✓" if value else "–"
    return text.setting(value)


def _age(run: RunRecord) -> str:
    since = run.started if run.started is not None else run.created
    return text.age(time.time() - since) if since else ""
