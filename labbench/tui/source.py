"""What the screens ask of a database, called in thread workers: the state of the table, records of rows.

Each call opens its own reader, a fraction of a millisecond, so that no thread waits for another.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from labbench import filters
from labbench.errors import LabbenchError
from labbench.filters import And, Compare, Filter
from labbench.records import Goal, RunRecord, Status
from labbench.store.reader import Reader
from labbench.tui.columns import is_axis, metric_rank

_LOOK_EVERY_SECONDS = 1.0
ENDED: frozenset[Status] = frozenset({"finished", "diverged", "failed", "stopped"})


@dataclass(frozen=True, slots=True)
class Query:
    """What the runs screen asks for."""

    expression: str = ""
    """A filter."""
    metric: str | None = None
    """The metric in question; None for the one that says most."""
    sort: str | None = None
    """A column; None for the metric's best, best first."""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far all runs are that are not archived."""

    experiments: Sequence[str] = ()
    counts: Mapping[Status, int] = field(default_factory=dict)
    share: float = 1.0
    """Of the work in runs, 0 to 1; a run that is training counts by its epochs."""
    seconds_left: float | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def is_live(self) -> bool:
        return self.counts.get("running", 0) > 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the runs screen shows at one moment, except curves."""

    query: Query
    """As it was asked, with what was left open filled in."""
    keys: Sequence[str] = ()
    """The runs that fit, in order."""
    records: Sequence[RunRecord] = ()
    """Those of them that were asked for, with their summaries."""
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    differing: Sequence[str] = ()
    constant: Mapping[str, Any] = field(default_factory=dict)
    best: str | None = None
    """The run with the best value of the metric."""
    progress: Progress = Progress()


def read_snapshot(path: Path, query: Query, *, wanted: Collection[str], rows: int) -> Snapshot:
    """The present state. `wanted`: keys whose records are needed, beside the first `rows` of the table.

    Raises FilterError, or InputError and StoreError as a reader does.
    """
    if not path.exists():  # somebody may start a grid in another window: the screen waits for it
        return Snapshot(query)
    with Reader(path) as reader:
        shown = filters.parse(query.expression)
        metrics = reader.metrics(shown)
        query = _filled_in(query, metrics)
        keys = reader.keys(shown, sort=query.sort, descending=query.descending)
        return Snapshot(
            query=query,
            keys=keys,
            records=_records(reader, {*wanted, *keys[:rows]}),
            metrics=metrics,
            differing=reader.differing(shown),
            constant=reader.constant(shown),
            best=_best_run(reader, shown, query.metric, metrics),
            progress=_progress(reader),
        )


def _filled_in(query: Query, metrics: Mapping[str, Goal]) -> Query:
    metric = query.metric
    if metric not in metrics:
        metric = min((name for name in metrics if not is_axis(name)), key=metric_rank, default=None)
    if metric is None:
        return replace(query, metric=None, sort=query.sort or "created")
    if query.sort is None:
        return replace(query, metric=metric, sort=f"best({metric})", descending=metrics[metric] == "max")
    return replace(query, metric=metric)


def read_records(path: Path, keys: Collection[str]) -> list[RunRecord]:
    """The runs with these keys, in no particular order."""
    with Reader(path) as reader:
        return _records(reader, keys)


def _records(reader: Reader, keys: Collection[str]) -> list[RunRecord]:
    if not keys:
        return []
    texts = tuple(keys)
    both = Compare("archived", None, "=", (True, False), ("true", "false"))  # naming it lets archived runs in
    return reader.runs(And((Compare("key", None, "=", texts, texts), both)))


def _best_run(reader: Reader, shown: Filter | None, metric: str | None, metrics: Mapping[str, Goal]) -> str | None:
    if metric is None:
        return None
    goal = metrics[metric]
    first = reader.runs(shown, sort=f"best({metric})", descending=goal == "max", limit=1, summaries=[metric])
    has_value = first and metric in first[0].summary and first[0].summary[metric].best(goal)[0] is not None
    return first[0].key if has_value else None


def _progress(reader: Reader) -> Progress:
    """Counts, and while something trains the time left, from what the runs driven by those processes took so far."""
    counts = reader.status_counts()
    total = sum(counts.values())
    ended = sum(count for status, count in counts.items() if status in ENDED)
    share, seconds_left = ended / total if total else 1.0, None
    if counts.get("running"):
        running = reader.runs("status=running", summaries=["epoch"])
        under_way = sum(_share_done(run) for run in running)
        share = (ended + under_way) / total
        began = min((run.started for run in running if run.started is not None), default=None)
        drivers = {(run.host, run.pid) for run in running}
        recent = reader.runs(sort="finished", descending=True, limit=200, summaries=False)
        session = [run for run in recent if (run.host, run.pid) in drivers and run.status in ENDED and run.started]
        began = min([run.started or began or 0.0 for run in session] + [began or 0.0])
        done = len(session) + under_way
        left = sum(count for status, count in counts.items() if status in ("queued", "running", "lost")) - under_way
        if began and done > 0:
            seconds_left = (time.time() - began) * left / done
    return Progress(reader.experiments(), counts, share, seconds_left)


def _share_done(run: RunRecord) -> float:
    epochs = run.config.get("epochs")
    epoch = run.summary.get("epoch")
    if epoch is None or not isinstance(epochs, int | float) or not epochs > 0:
        return 0.0
    return min(1.0, max(0.0, epoch.last / epochs))


def changes(path: Path, stopped: Event) -> Iterator[LabbenchError | None]:
    """Yield None at once and whenever the database has changed, an error when it begins to be unreadable.

    Goes on until `stopped`. Looks once a second: that costs a tenth of a millisecond, and is all that goes on while
    nothing happens.
    """
    seen: int | str | None = None
    while not stopped.is_set():
        if path.exists():
            try:
                with Reader(path) as reader:
                    while not stopped.is_set():
                        if (version := reader.data_version()) != seen:
                            seen = version
                            yield None
                        stopped.wait(_LOOK_EVERY_SECONDS)
            except LabbenchError as error:
                if seen != str(error):  # said once, not every second
                    seen = str(error)
                    yield error
        elif seen is None:
            seen = "missing"
            yield None
        stopped.wait(_LOOK_EVERY_SECONDS)
