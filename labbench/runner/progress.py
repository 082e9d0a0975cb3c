"""What a person sees on stderr while a grid trains: one line that moves, or a plain line every few seconds in a log."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import IO

from labbench.grid import Grid
from labbench.metrics import is_quality, metric_rank
from labbench.records import Event, Failed, Finished, Goal, Points, RunRecord, Started, default_goal
from labbench.text import clean, fit_to_width, format_duration, format_number, progress_bar

DRAW_SECONDS = 0.1
LINE_SECONDS = 5.0
RATE_SECONDS = 5.0
"""The window over which run-steps a second are measured."""


class GridProgress:
    """What is known of a grid that trains, gathered from its events: no clock and no terminal in here."""

    def __init__(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None:
        self.total = len(due)
        self.before = len(runs) - len(due)
        """Runs of the grid that need no training now."""
        self.running: set[str] = set()
        self.ends: dict[str, str] = {}
        """How each run ended that has ended, by key."""
        self.steps = 0
        self.best: tuple[float, str] | None = None
        """Value and run of the best value so far of `metric`."""
        self.metric: str | None = next(iter(grid.metrics), grid.stop.metric if grid.stop else None)
        self._is_metric_declared = self.metric is not None
        self._goals: dict[str, Goal] = {**({grid.stop.metric: grid.stop.goal} if grid.stop else {}), **grid.metrics}
        self.names = {run.key: run.name for run in due}
        self._epochs = {run.key: run.config.get("epochs") for run in due}
        self._step = dict.fromkeys(self.names, 0)
        self._share = dict.fromkeys(self.names, 0.0)

    def take(self, event: Event) -> None:
        match event:
            case Started(run=run):
                self.running.add(run)
                self.ends.pop(run, None)  # it is tried again
                self._step[run] = 0
            case Points(run=run):
                self._measure(event)
            case Finished(run=run, status="queued"):
                self.running.discard(run)
            case Finished(run=run, status=status):
                self._end(run, status)
            case Failed(run=run):
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
            self._share[points.run] = min(1.0, points.values[-1] / epochs)
        if not self._is_metric_declared:
            self._prefer(points.metric)
        if points.metric == self.metric:
            self._compare(points.run, points.values)

    def _prefer(self, metric: str) -> None:
        """Follow `metric` if it says more of a run than the one that is followed."""
        if is_quality(metric) and (self.metric is None or metric_rank(metric) < metric_rank(self.metric)):
            self.metric, self.best = metric, None

    def _compare(self, run: str, values: Iterable[float]) -> None:
        assert self.metric is not None
        pick = max if self._goal(self.metric) == "max" else min
        finite = [value for value in values if math.isfinite(value)]
        if finite and (self.best is None or pick(*finite, self.best[0]) != self.best[0]):
            self.best = pick(finite), self.names[run]

    def _goal(self, metric: str) -> Goal:
        return self._goals.get(metric) or default_goal(metric)

    @property
    def ended(self) -> int:
        return len(self.ends)

    def count(self, status: str) -> int:
        """How many runs ended so."""
        return list(self.ends.values()).count(status)

    @property
    def share(self) -> float:
        """The part of this call's work that is done, 0 to 1, counting epochs of unfinished runs."""
        return sum(self._share.values()) / max(1, self.total)


def progress_line(journal: GridProgress, *, rate: float, left: float | None) -> str:
    """How it goes, in one line: `37/120 runs · 2 running · 1 failed · 4,210 run-steps/s · 1m04s left · best …`."""
    parts = [f"{journal.ended}/{journal.total} runs", f"{len(journal.running)} running"]
    parts += [f"{count} {status}" for status in ("failed", "diverged") if (count := journal.count(status))]
    if journal.steps:  # commands report none
        parts.append(f"{rate:,.0f} run-steps/s")
    if left is not None:
        parts.append(f"{format_duration(left)} left")
    if journal.best is not None and journal.metric is not None:
        value, name = journal.best
        parts.append(f"best {clean(journal.metric)} {format_number(value)} ({clean(name)})")
    return " · ".join(parts)


class TerminalProgress:
    """Draws the journal of a grid on stderr."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self._gone = False
        self._drawn = 0.0
        self._began = time.monotonic()
        self._rates: deque[tuple[float, int]] = deque()
        self.journal: GridProgress | None = None

    def begin(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None:
        self.journal = GridProgress(grid, runs, due)
        before = f", {self.journal.before} done before" if self.journal.before else ""
        self._write(f"{clean(grid.name)}: {len(due)} runs to train{before}\n")

    def take(self, event: Event) -> None:
        assert self.journal is not None
        self.journal.take(event)
        if isinstance(event, Failed):
            name = self.journal.names[event.run]
            self._write(f"{self._erase()}failed: {clean(name)} ({event.run}): {clean(event.message)}\n")

    def tick(self) -> None:
        """Draw again if it is time."""
        now = time.monotonic()
        if now - self._drawn >= (DRAW_SECONDS if self.stream.isatty() else LINE_SECONDS):
            self._drawn = now
            self._draw(now)

    def end(self) -> None:
        self._draw(time.monotonic())
        if self.stream.isatty():
            self._write("\n\a")  # whoever went for a coffee hears it

    def _draw(self, now: float) -> None:
        assert self.journal is not None
        self._rates.append((now, self.journal.steps))
        while now - self._rates[0][0] > RATE_SECONDS and len(self._rates) > 2:
            self._rates.popleft()
        (then, steps), share = self._rates[0], self.journal.share
        rate = (self.journal.steps - steps) / (now - then) if now > then else 0.0
        left = (now - self._began) * (1 - share) / share if 0.005 < share < 1 else None
        line = progress_line(self.journal, rate=rate, left=left)
        if self.stream.isatty():
            cells = os.get_terminal_size(self.stream.fileno()).columns - 1
            self._write(f"{self._erase()}{fit_to_width(f'{progress_bar(share, 12)} {line}', cells).rstrip()}")
        else:
            self._write(f"{line}\n")

    def _erase(self) -> str:
        return "\r\x1b[K" if self.stream.isatty() else ""

    def _write(self, text: str) -> None:
        if self._gone:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # the terminal is gone (a lost connection): the training is not
            self._gone = True
