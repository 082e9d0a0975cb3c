"""The driver: the only process that writes to the database while a grid trains.

It claims a stack when the executor takes it and records the events. Between events it updates the heartbeat and handles
requests and interruptions.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from labbench.errors import LabbenchError
from labbench.executors import Executor
from labbench.files import discard_checkpoints, discard_older_checkpoints
from labbench.grid import Grid
from labbench.params.param import Params
from labbench.records import AT_RUNG, Boundary, Event, Failed, Finished, RunRecord, Stack, Status, Submitted
from labbench.runner.interruption import Interruption
from labbench.runner.planner import make_stack
from labbench.runner.script_stopping import ScriptStopping
from labbench.runner.stack_queue import EpochTimes, StackQueue
from labbench.store.event_recorder import EventRecorder
from labbench.store.reader import Reader
from labbench.system.provenance import Provenance
from labbench.train.active_runs import ActiveRuns

FLUSH_SECONDS = 0.05
BEAT_SECONDS = 2.0
REQUEST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SearchStage:
    """Stage of a search, for a progress display; costs are epochs, summed over runs, or numbers of runs."""

    title: str
    """Such as `rung 2 of 4 (epoch 6)`."""
    runs: int
    """Number of runs that are compared."""
    due: int
    """Number of these that have not reached the rung."""
    spent: float
    """Cost of the search so far."""
    cost: float
    """Cost of the whole search."""
    full_cost: int
    """Cost of the grid without a search."""
    unit: str = "epoch"
    """Unit of the costs: an epoch, or a run of a command."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Runs to train before anything else is decided."""

    due: Sequence[RunRecord]
    statuses: Collection[Status]
    """Statuses in which the runs are claimed."""
    pause_after: int | None = None
    """Epochs after which they return to the queue; None: they train all their epochs."""
    search: SearchStage | None = None
    """None outside of a search."""
    held: Sequence[RunRecord] = ()
    """Runs of the jobs that the executor is attached to."""


class ProgressListener(Protocol):
    """Interface of a progress display."""

    def begin(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None:
        """Called once, with all runs of the grid and those `due` for training."""

    def begin_stage(self, stage: Stage) -> None:
        """Called before the runs of a stage are trained, which may be new ones."""

    def leave_out(self, keys: Collection[str]) -> None:
        """Called with due runs that another process has claimed before."""

    def take(self, event: Event) -> None:
        """Called with each event, in order; again with the end of a run that turns out to have diverged."""

    def tick(self) -> None:
        """Called several times per second."""

    def end(self) -> None:
        """Called once, after the last event."""


@dataclass
class Driver:
    """Feeds claimed stacks to the executor and records its events."""

    recorder: EventRecorder
    executor: Executor
    plan: Callable[[Sequence[RunRecord]], Sequence[Stack]]
    listener: ProgressListener
    interruption: Interruption
    source: Provenance
    files: Path
    retries: int
    """Number of retries of a failed run."""
    params: Params
    """Parameters of the task and the training loop."""
    _ends: dict[str, Status] = field(default_factory=dict)
    """Final status of each ended run, by key."""
    taken: set[str] = field(default_factory=set)
    """Keys of due runs that another process has claimed before."""
    _active: ActiveRuns = field(default_factory=ActiveRuns)
    """Claimed runs that have not ended."""
    _stopping: set[str] = field(default_factory=set)
    _failures: dict[str, int] = field(default_factory=dict)
    _to_retry: list[RunRecord] = field(default_factory=list)
    _times: EpochTimes = field(init=False)
    _scripts: ScriptStopping = field(init=False)
    _last_flush: float = 0.0
    _last_beat: float = 0.0
    _last_request_check: float = 0.0

    def __post_init__(self) -> None:
        self._times = EpochTimes(self.params)
        self._scripts = ScriptStopping(self.recorder.path)

    @property
    def ended(self) -> dict[Status, int]:
        """Number of ended runs by final status."""
        return dict(Counter(self._ends.values()))

    def train(self, stages: Iterable[Stage]) -> None:
        """Train one stage after another, until a signal interrupts."""
        try:
            for stage in stages:
                self.listener.begin_stage(stage)
                self._train_stage(stage)
                if self.interruption.is_requested:
                    break
        except KeyboardInterrupt:  # a second Ctrl-C, or raised by the task: stop immediately
            self.interruption.is_requested = True
            self.executor.close()
        finally:
            self._complete(self.recorder.close(self._active.keys))

    def _train_stage(self, stage: Stage) -> None:
        """Train the due runs, then retry failed ones, until no retry is left or a signal interrupts."""
        self._active.add(stage.held)
        self._answer_requests()  # before the jobs report that they have followed them
        while (stage.due or stage.held) and not self.interruption.is_requested:
            self._to_retry = []
            stacks = StackQueue(self.plan(stage.due), self._times)
            for event in self.executor.execute(self._claim_stacks(stacks, stage)):
                self._handle_event(event)
            self._flush()
            stage = replace(stage, due=self._to_retry, held=(), statuses=("queued", "lost", "failed"))

    def _claim_stacks(self, stacks: Iterable[Stack], stage: Stage) -> Iterator[Stack]:
        """Claim and yield each stack when the executor takes it, without runs that other processes have claimed."""
        for stack in stacks:
            if self.interruption.is_requested:
                return
            configs = {run.key: run.config for run in stack.runs}
            claimed = self.recorder.claim(
                list(configs),
                task=stack.task,
                configs=configs,
                statuses=stage.statuses,
                source=self.source,
            )
            self._leave_out(configs.keys() - {run.key for run in claimed})
            runs = [replace(run, config=configs[run.key]) for run in claimed]  # not the config in the database
            for run in runs:
                if run.attempt > 1:  # a killed process may have left newer checkpoints, or parts of them
                    discard_checkpoints(self.files, run.key, keep=frozenset([run.boundary]))
            if runs:
                self._active.add(runs)
                if stack.command is not None and stack.stop is not None:
                    self._scripts.watch(runs, stack.stop)
                claimed_stack = make_stack(
                    runs,
                    task=stack.task,
                    stop=stack.stop,
                    runtime=stack.runtime,
                    files=stack.files,
                    command=stack.command,
                )
                yield replace(claimed_stack, pause_after=stage.pause_after)

    def _leave_out(self, keys: Collection[str]) -> None:
        """Count runs that another process has claimed, not those that the database could not give to this one."""
        if keys and self.recorder.problem is None:
            self.taken.update(keys)
            self.listener.leave_out(keys)

    def _handle_event(self, event: Event | None) -> None:
        """Record the event, if any, then do the periodic work that is due."""
        if isinstance(event, Finished | Failed):
            event = self._end_run(event)
        if event is not None:
            self._active.update(event)
            self._times.add_event(event)
            self.recorder.add(event)
            self.listener.take(event)
        now = time.monotonic()
        is_due = event is None or isinstance(event, Submitted) or now - self._last_flush > FLUSH_SECONDS
        if is_due and not self.executor.is_in_batch:
            self._flush()
        if now - self._last_beat > BEAT_SECONDS:
            self._last_beat = now
            self._beat()
        if now - self._last_request_check > REQUEST_SECONDS:
            self._last_request_check = now
            self._answer_requests()
        if self.interruption.take_request():
            self.executor.interrupt()
        self.listener.tick()

    def _end_run(self, event: Finished | Failed) -> Finished | Failed:
        """Count the end of a run or schedule its retry.

        Returns the event to record, with the status `stopped` if a user requested the stop, `finished` if the script
        was ended by `[stop]`.
        """
        rule = self._scripts.forget(event.run)
        if isinstance(event, Finished) and event.status == "queued":
            if event.run in self._stopping:
                event = replace(event, status="stopped", reason="stopped by the user")
            elif rule is not None:
                event = replace(event, status="finished", reason=rule)
        if isinstance(event, Failed):
            self._failures[event.run] = self._failures.get(event.run, 0) + 1
            if self._failures[event.run] <= self.retries:
                self._to_retry.append(self._active[event.run])
                return event
        if isinstance(event, Finished) and event.reason == AT_RUNG:
            return event
        self._ends[event.run] = "failed" if isinstance(event, Failed) else event.status
        return event

    def _beat(self) -> None:
        """Update the heartbeat, and stop runs that another process has taken over or deleted."""
        for key in set(self._active.keys) - set(self.recorder.send_heartbeat(self._active.keys)):
            self.executor.stop(key)

    def _answer_requests(self) -> None:
        """Stop the runs for which the database has a request, and the scripts that meet their rule of `[stop]`."""
        for key, action in self.recorder.pop_requests(self._active.keys):
            if action == "stop":
                self._stopping.add(key)
                self.executor.stop(key)
        for key in self._scripts.find_due():
            self.executor.stop(key)

    def _flush(self) -> None:
        """Write the events since the last flush in one transaction."""
        events = self.recorder.flush() or []
        self._complete(events)
        self.executor.acknowledge(events)
        self._last_flush = time.monotonic()

    def _complete(self, events: Sequence[Event]) -> None:
        """Do what must wait until these events are in the database."""
        self._discard_checkpoints(events)
        self._report_divergence(events)

    def _report_divergence(self, events: Sequence[Event]) -> None:
        """Correct the status of finished runs that the database counts as diverged, such as scripts of a grid."""
        finished = {event.run: event for event in events if isinstance(event, Finished) and event.status == "finished"}
        for key in _read_diverged(self.recorder.path, list(finished)):
            self._ends[key] = "diverged"
            self.listener.take(replace(finished[key], status="diverged"))

    def _discard_checkpoints(self, events: Sequence[Event]) -> None:
        """Delete the checkpoints that are no longer needed after these events are in the database."""
        for event in events:
            if isinstance(event, Finished) and event.status in ("finished", "diverged"):
                kept_steps = frozenset() if event.kept_step is None else frozenset([event.kept_step])
                discard_checkpoints(self.files, event.run, keep=kept_steps)
            elif isinstance(event, Boundary):
                discard_older_checkpoints(self.files, event.run, event.step)


def _read_diverged(database: Path, keys: Sequence[str]) -> list[str]:
    """Return the runs that have diverged among those with these keys; none if the database cannot be read."""
    if not keys:
        return []
    try:
        with Reader(database) as reader:
            return [run.key for run in reader.by_keys(keys) if run.status == "diverged"]
    except LabbenchError:
        return []
