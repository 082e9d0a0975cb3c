"""Progress of a grid on stderr: one line redrawn in a terminal, or a plain line every few seconds in a log."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from labbench.executors.command import BACKGROUND_ENDED
from labbench.files import database_command
from labbench.grid import Grid
from labbench.metrics import Goal, default_goal, is_quality, metric_rank
from labbench.records import EngineNote, Event, Failed, Finished, Points, RunRecord, Started, Submitted
from labbench.runner.driver import Stage
from labbench.runner.estimate import TimeLeft
from labbench.runner.search.rung_progress import RungProgress
from labbench.text import clean, fit_to_width, format_count, format_duration, format_number, progress_bar

DRAW_SECONDS = 0.1
LINE_SECONDS = 5.0
MAX_NODES = 3
"""Most nodes of a cluster in the line."""
MAX_CAUSE = 200
"""Most characters of a line of output in a report."""
_NUMBER = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")
RATE_SECONDS = 5.0
"""Seconds of the window over which run-steps per second are measured."""


class GridProgress:
    """Progress of a training grid, computed from its events: counts of runs and the best value."""

    def __init__(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None:
        self.total = len(due)
        self.before = count_runs_before(runs, due)
        """Number of runs that need no training in this call, by a description."""
        self.taken = 0
        """Number of due runs that another process has claimed."""
        self.running: set[str] = set()
        self.places: dict[str, str] = {}
        """Node and device of each run that a cluster trains, "" before its start."""
        self._engine_notes: dict[str, list[str]] = {}
        """Messages about the engine of each run that has not failed, by key."""
        self.ends: dict[str, str] = {}
        """Final status of each ended run, by key."""
        self.steps = 0
        self._bests: dict[str, float] = {}
        """Best finite value of `metric` so far, by run."""
        self.metric: str | None = first_metric(grid)
        self._is_metric_declared = self.metric is not None
        self._known_metrics: set[str] = set()
        self._goals: dict[str, Goal] = {
            **({grid.stop.metric: grid.stop.goal} if grid.stop else {}),
            **grid.metrics,
            **({grid.search.metric: grid.search.goal} if grid.search else {}),
        }
        self.names: dict[str, str] = {}
        self.rung: RungProgress | None = None
        """Current rung of a search."""
        self._epochs: dict[str, Any] = {}
        self._first_epoch: dict[str, float] = {}
        """Number of epochs after which each run begins in this call."""
        self._step: dict[str, int] = {}
        self._share: dict[str, float] = {}
        self._add_runs(due)

    def _add_runs(self, runs: Sequence[RunRecord]) -> None:
        self.names |= {run.key: run.name for run in runs}
        self._epochs |= {run.key: run.config.get("epochs") for run in runs}
        self._step |= {run.key: run.boundary for run in runs}
        self._share |= {run.key: self._share.get(run.key, 0.0) for run in runs}

    def begin_stage(self, stage: Stage) -> None:
        """Begin a stage, whose runs may be new ones."""
        self._add_runs(stage.due)
        self.rung = None if stage.search is None else RungProgress(stage.search)

    def leave_out(self, keys: Collection[str]) -> None:
        """Leave out due runs, which another process has claimed."""
        self.taken += len(keys)
        self.total -= len(keys)
        for key in keys:
            self._share.pop(key, None)

    def take(self, event: Event) -> None:
        """Update the progress with an event."""
        if self.rung is not None:
            self.rung.take(event)
        match event:
            case Submitted(run=run):
                self.places[run] = ""
            case Started(run=run, host=host, device=device):
                self.running.add(run)
                if run in self.places:
                    self.places[run] = f"{host} {device}"
                if self.ends.pop(run, None) is not None:  # a retry
                    self._step[run] = 0
                    self._bests.pop(run, None)
            case Points(run=run):
                self._measure(event)
            case EngineNote(text=text):
                self._engine_notes.setdefault(event.run, []).extend(text.splitlines())
            case Finished(run=run, status="queued"):
                self.running.discard(run)
            case Finished(run=run, status=status):
                self._end(run, status)
            case Failed(run=run):
                self._engine_notes.pop(run, None)
                self._end(run, "failed")

    def _end(self, run: str, status: str) -> None:
        self.running.discard(run)
        self.ends[run] = status
        self._share[run] = 1.0

    def _measure(self, points: Points) -> None:
        last = max(points.steps, default=0)
        self.steps += max(0, last - self._step[points.run])
        self._step[points.run] = max(last, self._step[points.run])
        if points.metric == "epoch" and (epochs := self._epochs[points.run]):
            first = self._first_epoch.setdefault(points.run, max(0.0, points.values[0] - 1))
            self._share[points.run] = min(1.0, (points.values[-1] - first) / max(1, epochs - first))
        if points.metric not in self._known_metrics and not self._is_metric_declared:
            self._known_metrics.add(points.metric)
            self._prefer(points.metric)
        if points.metric == self.metric:
            self._compare(points.run, points.values)

    def _prefer(self, metric: str) -> None:
        """Report the best value of `metric` from now on if it ranks before the current metric."""
        if is_quality(metric) and (self.metric is None or metric_rank(metric) < metric_rank(self.metric)):
            self.metric, self._bests = metric, {}

    def _compare(self, run: str, values: Sequence[float]) -> None:
        finite = [value for value in values if math.isfinite(value)]
        earlier = [self._bests[run]] if run in self._bests else []
        if finite or earlier:
            self._bests[run] = self._pick_best([*earlier, *finite])

    def _pick_best(self, values: Iterable[float]) -> float:
        assert self.metric is not None
        goal = self._goals.get(self.metric) or default_goal(self.metric)
        return max(values) if goal == "max" else min(values)

    @property
    def best(self) -> tuple[float, str] | None:
        """Best value of `metric` so far, and the name of its run; diverged runs have none."""
        bests = {run: value for run, value in self._bests.items() if self.ends.get(run) != "diverged"}
        if not bests:
            return None
        best = self._pick_best(bests.values())
        return best, self.names[next(run for run, value in bests.items() if value == best)]

    @property
    def engine_notes(self) -> Mapping[str, int]:
        """Number of runs by message about their engine; failed runs have not trained."""
        return Counter(note for notes in self._engine_notes.values() for note in notes)

    @property
    def nodes(self) -> list[str]:
        """Nodes and devices of a cluster on which runs are running."""
        return sorted({self.places[run] for run in self.running & self.places.keys()})

    @property
    def ended(self) -> int:
        return len(self.ends)

    def count(self, status: str) -> int:
        """Return the number of runs that ended with this status."""
        return list(self.ends.values()).count(status)

    @property
    def share(self) -> float:
        """Completed fraction of this call's work, 0 to 1, including the epochs of unfinished runs.

        For a search, the completed fraction of its planned epochs.
        """
        if self.rung is not None:
            return self.rung.share
        return sum(self._share.values()) / max(1, self.total)


def count_runs_before(runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> dict[str, int]:
    """Return the number of runs that are not due, by a description such as `done before`."""
    descriptions = {
        "running": "running in another process", "finished": "done before", "diverged": "done before",
        "queued": "queued",
    }  # fmt: skip
    keys = {run.key for run in due}
    others = {run.key: run for run in runs if run.key not in keys}
    return Counter(
        "running without a driver" if run.without_driver else descriptions.get(run.status, f"{run.status} before")
        for run in others.values()
    )


def first_metric(grid: Grid) -> str | None:
    """Return the first metric that a grid names, in `[search]`, `[metrics]` or `[stop]`."""
    named = [grid.search.metric] if grid.search else []
    named += [*grid.metrics, *([grid.stop.metric] if grid.stop else [])]
    return next(iter(named), None)


def progress_line(progress: GridProgress, *, rate: float, left: float | None) -> str:
    """Format the progress in one line.

    Example: `37/120 runs · 2 running · 1 failed · 4,210 run-steps/s · 1m04s left · best …`. `rate` is in run-steps per
    second, `left` in seconds.
    """
    runs = f"{progress.ended}/{progress.total} runs" if progress.rung is None else progress.rung.describe()
    nodes = [*map(clean, progress.nodes[:MAX_NODES]), *["…"] * (len(progress.nodes) > MAX_NODES)]
    parts = [runs, f"{len(progress.running)} running" + (f" on {', '.join(nodes)}" if nodes else "")]
    parts += [f"{count} {status}" for status in ("failed", "diverged") if (count := progress.count(status))]
    if progress.taken:
        parts.append(f"{progress.taken} in another process")
    if progress.steps:  # commands report none
        parts.append(f"{rate:,.0f} run-steps/s")
    if left is not None:
        parts.append(f"{format_duration(left)} left")
    if progress.best is not None and progress.metric is not None:
        value, name = progress.best
        parts.append(f"best {clean(progress.metric)} {format_number(value)} ({clean(name)})")
    return " · ".join(parts)


def engine_lines(notes: Mapping[str, int]) -> list[str]:
    """Return the lines that report engines, such as `24 runs trained alone, because ...`."""
    return [f"{format_count(count, 'run')} {clean(note)}" for note, count in notes.items()]


def failure_cause(failure: Failed) -> str:
    """Return the message of a failure, with the last line of its traceback or output if that says more."""
    last = next((line.strip() for line in reversed(failure.traceback.splitlines()) if line.strip()), "")
    says_more = last and last not in failure.message and failure.message not in last
    return f"{failure.message}: {last[:MAX_CAUSE]}" if says_more else failure.message


class TerminalProgress:
    """Writes the progress of a grid to stderr."""

    def __init__(self, database: Path, stream: IO[str] | None = None) -> None:
        self._command = database_command(database)
        self.stream = stream or sys.stderr
        self._is_closed = False
        self._noted_background = False
        self._failures: Counter[str] = Counter()
        """Number of failures by the first run, name and key, with the same cause."""
        self._first_runs: dict[str, str] = {}
        """First run that failed by cause, without the numbers in it."""
        self._interval = DRAW_SECONDS if self.stream.isatty() else LINE_SECONDS
        self._drawn = 0.0
        self._time_left = TimeLeft()
        self._rates: deque[tuple[float, int]] = deque()
        self.progress: GridProgress | None = None

    def begin(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None:
        """Start a grid with all its `runs` and the runs `due` for training."""
        self.progress = GridProgress(grid, runs, due)
        before = "".join(f", {count} {description}" for description, count in self.progress.before.items())
        if due:
            self._write(f"{clean(grid.name)}: {format_count(len(due), 'run')} to train{before}\n")

    def begin_stage(self, stage: Stage) -> None:
        """Report a rung of a search."""
        assert self.progress is not None
        self.progress.begin_stage(stage)
        if stage.search is not None:
            self._write(f"{self._erase()}{stage.search.title}: {format_count(len(stage.due), 'run')} to train\n")

    def leave_out(self, keys: Collection[str]) -> None:
        """Leave out due runs, which another process has claimed."""
        assert self.progress is not None
        self.progress.leave_out(keys)

    def take(self, event: Event) -> None:
        """Count an event; report a failure immediately, unless one with the same cause was reported before."""
        assert self.progress is not None
        self.progress.take(event)
        if isinstance(event, Failed):
            cause = failure_cause(event)
            run = f"{clean(self.progress.names[event.run])} ({event.run})"
            first_run = self._first_runs.setdefault(_NUMBER.sub("#", cause), run)
            self._failures[first_run] += 1
            if first_run == run and self._failures[first_run] == 1:
                self._write(f"{self._erase()}failed: {run}: {clean(cause)}\n")
        if isinstance(event, Finished) and event.reason == BACKGROUND_ENDED and not self._noted_background:
            self._noted_background = True
            name = self.progress.names[event.run]
            self._write(
                f"{self._erase()}note: the command of {clean(name)} ({event.run}) ended before a process that it had "
                f"started in the background, which was then ended, too: {self._command} show {event.run}\n"
            )

    def tick(self) -> None:
        """Redraw the line if the interval has passed."""
        now = time.monotonic()
        if now - self._drawn >= self._interval:
            self._drawn = now
            self._draw(now)

    def end(self) -> None:
        """Draw the final line, and report the engine of runs; in a terminal also ring the bell."""
        assert self.progress is not None
        self._draw(time.monotonic())
        if self.stream.isatty():
            self._write("\n\a")
        for run, count in self._failures.items():
            if count > 1:
                self._write(f"{count} runs failed alike, the first: {run}\n")
        for line in engine_lines(self.progress.engine_notes):
            self._write(f"{line}\n")

    def _draw(self, now: float) -> None:
        assert self.progress is not None
        self._rates.append((now, self.progress.steps))
        while now - self._rates[0][0] > RATE_SECONDS and len(self._rates) > 2:
            self._rates.popleft()
        (then, steps), share = self._rates[0], self.progress.share
        rate = (self.progress.steps - steps) / (now - then) if now > then else 0.0
        line = progress_line(self.progress, rate=rate, left=self._time_left.estimate(now, share))
        if self.stream.isatty():
            cells = os.get_terminal_size(self.stream.fileno()).columns - 1
            self._write(f"{self._erase()}{fit_to_width(f'{progress_bar(share, 12)} {line}', cells).rstrip()}")
        else:
            self._write(f"{line}\n")

    def _erase(self) -> str:
        return "\r\x1b[K" if self.stream.isatty() else ""

    def _write(self, text: str) -> None:
        if self._is_closed:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # the terminal was closed, for instance by a lost connection; the training continues
            self._is_closed = True
