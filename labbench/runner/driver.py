"""The one loop that writes the database while a grid trains: stacks are claimed as the executor asks for them, events
are recorded as they come, and the heartbeat, requests and interruptions are seen to between them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

from labbench.executors import Executor
from labbench.files import discard_snapshots
from labbench.grid import Grid
from labbench.provenance import Provenance
from labbench.records import Event, Failed, Finished, RunRecord, Stack, Status
from labbench.runner.planner import make_stack
from labbench.store.writer import Writer
from labbench.train.active_runs import ActiveRuns

FLUSH_SECONDS = 0.05
BEAT_SECONDS = 2.0
REQUEST_SECONDS = 0.5


class ProgressListener(Protocol):
    """Receive the progress of a grid: its runs, every event in order, and calls as time passes."""

    def begin(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None:
        """Start a grid of these `runs`, of which those that are `due` are trained now."""

    def take(self, event: Event) -> None:
        """Receive an event of one run."""

    def tick(self) -> None:
        """Notice that time has passed; called several times a second."""

    def end(self) -> None:
        """Finish: no event follows."""


@dataclass
class Driver:
    """Feeds the executor with claimed stacks and writes what comes back."""

    writer: Writer
    executor: Executor
    plan: Callable[[Sequence[RunRecord]], Sequence[Stack]]
    listener: ProgressListener
    interruption: Interruption
    source: Provenance
    files: Path
    retries: int
    """How many times a run that failed is tried again."""
    ended: dict[Status, int] = field(default_factory=dict)
    _active: ActiveRuns = field(default_factory=ActiveRuns)
    """The runs that were claimed and have not ended."""
    _stopping: set[str] = field(default_factory=set)
    _failures: dict[str, int] = field(default_factory=dict)
    _to_retry: list[RunRecord] = field(default_factory=list)
    _unwritten: list[Event] = field(default_factory=list)
    _flushed: float = 0.0
    _beaten: float = 0.0
    _asked: float = 0.0

    def train(self, due: Sequence[RunRecord], statuses: Collection[Status]) -> None:
        """Train the runs that are due, and once more those that failed and may be tried again."""
        try:
            while due and not self.interruption.asked:
                self._to_retry = []
                for event in self.executor.execute(self._claimed(self.plan(due), statuses)):
                    self._take(event)
                self._flush()
                due, statuses = self._to_retry, ("queued", "lost", "failed")
        except KeyboardInterrupt:  # asked twice, or by the task itself: at once
            self.interruption.asked = True
            self.executor.close()
        finally:
            self._flush()
            self.writer.requeue(self._active.keys)

    def _claimed(self, stacks: Sequence[Stack], statuses: Collection[Status]) -> Iterator[Stack]:
        """The stacks, each with those of its runs that no other process took, as the executor asks for them."""
        for stack in stacks:
            if self.interruption.asked:
                return
            configs = {run.key: run.config for run in stack.runs}
            claimed = self.writer.claim(
                list(configs),
                task=stack.task,
                configs=configs,
                statuses=statuses,
                source=self.source,
            )
            runs = [replace(run, config=configs[run.key]) for run in claimed]  # not what the database gives back
            if runs:
                self._active.add(runs)
                yield make_stack(
                    runs,
                    task=stack.task,
                    stop=stack.stop,
                    runtime=stack.runtime,
                    files=stack.files,
                    command=stack.command,
                )

    def _take(self, event: Event | None) -> None:
        """One event, or a moment without any: record it, and see to what else is due."""
        if isinstance(event, Finished | Failed):
            event = self._ended(event)
        if event is not None:
            self._active.update(event)
            self._unwritten.append(event)
            self.listener.take(event)
        now = time.monotonic()
        if event is None or now - self._flushed > FLUSH_SECONDS:
            self._flush()
        if now - self._beaten > BEAT_SECONDS:
            self._beaten = now
            self._beat()
        if now - self._asked > REQUEST_SECONDS:
            self._asked = now
            self._answer_requests()
        if self.interruption.take():
            self.executor.interrupt()
        self.listener.tick()

    def _ended(self, event: Finished | Failed) -> Finished | Failed:
        """The end of a run as it is recorded: a run that was told to stop has stopped."""
        if isinstance(event, Finished) and event.status == "queued" and event.run in self._stopping:
            event = replace(event, status="stopped", reason="stopped by a person")
        if isinstance(event, Failed):
            self._failures[event.run] = self._failures.get(event.run, 0) + 1
            if self._failures[event.run] <= self.retries:
                self._to_retry.append(self._active[event.run])
                return event
        status: Status = "failed" if isinstance(event, Failed) else event.status
        self.ended[status] = self.ended.get(status, 0) + 1
        return event

    def _beat(self) -> None:
        """Say that this process lives; a run that somebody took away or deleted meanwhile is let go."""
        for key in set(self._active.keys) - set(self.writer.beat(self._active.keys)):
            self.executor.stop(key)

    def _answer_requests(self) -> None:
        for key, action in self.writer.take_requests(self._active.keys):
            if action == "stop":
                self._stopping.add(key)
                self.executor.stop(key)

    def _flush(self) -> None:
        """Everything since the last flush, in one transaction."""
        events, self._unwritten = self._unwritten, []
        if events:
            self.writer.write(events)
        for event in events:  # only now does nobody need its snapshots any more
            if isinstance(event, Finished) and event.status in ("finished", "diverged"):
                discard_snapshots(self.files, event.run)
        self._flushed = time.monotonic()


class Interruption:
    """Ctrl-C, SIGTERM and SIGHUP while it is open: once asks to stop cleanly, twice raises KeyboardInterrupt."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.asked = False
        self._taken = False

    def take(self) -> bool:
        """True once after the first signal."""
        first, self._taken = self.asked and not self._taken, self.asked
        return first

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if number != signal.SIGHUP:  # nobody is left to read
            os.write(2, b"\nstopping at the next epoch's end; once more stops at once\n")
