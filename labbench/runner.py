"""The whole journey of `labbench run`: read the grid, queue its runs, train what is due, record every event.

One loop in one process writes the database. Executors only yield events; Ctrl-C, requests from the TUI and the
heartbeat are seen to between them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Protocol

from labbench.catalogue import BUILTIN
from labbench.errors import InputError
from labbench.executors import Executor
from labbench.executors.cores import usable_cores
from labbench.executors.inprocess import InProcessExecutor
from labbench.executors.workers import WorkerExecutor
from labbench.files import discard_snapshots, files_folder
from labbench.filters import matches_config, parse, require_config_keys
from labbench.grid import Grid, expand, new_runs, read_grid
from labbench.params import TRAINING, Params
from labbench.planner import plan, stack_of
from labbench.provenance import Provenance, provenance
from labbench.records import Event, Failed, Finished, NewRun, RunRecord, Stack, Status
from labbench.store.writer import Writer
from labbench.train.devices import resolve

FLUSH_SECONDS = 0.05
BEAT_SECONDS = 2.0
REQUEST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """What a grid file asks for, checked and expanded; no database was touched."""

    grid: Grid
    runs: list[NewRun]
    warnings: list[str]
    params: Params
    """What the task understands."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a grid stands when `run_grid` returns."""

    runs: list[RunRecord]
    """Every run that the grid asks for, as it was when this began."""
    trained: int
    """Runs that this call trained, however they ended."""
    ended: Mapping[Status, int]
    """The runs that this call trained, by status."""
    elsewhere: int
    """Runs that another process is training."""
    interrupted: bool
    seconds: float


class Progress(Protocol):
    """Who is told how it goes."""

    def begin(self, grid: Grid, runs: Sequence[RunRecord], due: Sequence[RunRecord]) -> None: ...
    def take(self, event: Event) -> None: ...
    def tick(self) -> None: ...
    def end(self) -> None: ...


def read_asked(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    only: str = "",
    limit: int | None = None,
    yes: bool = False,
) -> Asked:
    """Read, check and expand a grid file. `only` is a filter that keeps runs by their configs, `limit` keeps the first ones."""
    wanted = parse(only)
    grid = read_grid(path, overrides=overrides)
    params = task_params(grid)
    expansion = expand(grid, params, yes=yes)
    runs = new_runs(grid, expansion.configs, params)
    if wanted is not None:
        require_config_keys(wanted, only, expansion.configs[0].keys())
        runs = [run for run in runs if matches_config(wanted, run.config)]
        if not runs:
            raise InputError(f"--only matches none of the {len(expansion.configs)} runs of {path}")
    return Asked(grid, runs[:limit], expansion.warnings, params)


def task_params(grid: Grid) -> Params:
    """The parameters that the grid's task understands; those of a command are whatever the grid says."""
    if grid.command:
        return {}
    if grid.task in BUILTIN:
        return {**TRAINING, **BUILTIN[grid.task]}
    require_torch()
    from labbench.train.tasks import load_task  # a file of the user's own, which imports torch

    return {**TRAINING, **load_task(grid.task).params}


def require_torch() -> None:
    if find_spec("torch") is None:
        raise InputError(
            'training needs PyTorch, which is not installed: pip install -e ".[train]" in labbench\'s checkout'
        )


def run_grid(
    asked: Asked,
    db: Path,
    progress: Progress,
    *,
    device: str = "auto",
    workers: int | None = None,
    rerun: bool = False,
    retry_failed: bool = False,
) -> Outcome:
    """Train what is due of the grid, recording every event in `db`; done runs are not touched.

    `workers` None means one per usable core (per GPU on CUDA), 0 this process.
    """
    began = time.monotonic()
    grid = asked.grid
    require_torch()
    devices = resolve(device)  # before anything is queued: a device that is not there changes nothing
    source = provenance(grid.path.parent)
    with Writer(db) as writer:
        runs = writer.queue(
            grid.name,
            asked.runs,
            task=grid.task,
            metrics=grid.metrics,
            stop=grid.stop,
            rerun=rerun,
            sources=sources(grid, source),
        )
        trainable: tuple[Status, ...] = ("queued", "lost", "failed") if retry_failed else ("queued", "lost")
        due = [run for run in runs if run.status in trainable]
        elsewhere = sum(run.status == "running" for run in runs)
        if not due:
            return Outcome(runs, 0, {}, elsewhere, False, time.monotonic() - began)
        with (
            closing(open_executor(devices, workers, len(due), timeout=grid.resources.timeout)) as executor,
            Interruption() as interruption,
        ):
            progress.begin(grid, runs, due)
            driver = Driver(grid, writer, executor, progress, interruption, source, files_folder(db), asked.params)
            try:
                driver.train(due, trainable)
            finally:
                progress.end()
        return Outcome(
            runs, sum(driver.ended.values()), driver.ended, elsewhere, interruption.asked, time.monotonic() - began
        )


def sources(grid: Grid, source: Provenance) -> dict[str, str]:
    """The texts from which the grid's results could be made again."""
    texts = {"grid": grid.source.text, "diff": source.git_diff}
    file, _, _ = grid.task.rpartition(":")
    if file:
        texts["task"] = Path(file).read_text(errors="replace")
    return {name: text for name, text in texts.items() if text}


def open_executor(devices: Sequence[str], workers: int | None, stacks: int, *, timeout: float | None) -> Executor:
    """The executor that `--workers` means on these devices, no wider than there are stacks."""
    if workers == 0:
        return InProcessExecutor(devices[0], timeout=timeout)
    if workers is None:
        workers = usable_cores() if devices == ["cpu"] else len(devices)
    return WorkerExecutor([devices[i % len(devices)] for i in range(min(workers, stacks))], timeout=timeout)


@dataclass
class Driver:
    """Feeds the executor with claimed stacks and writes what comes back."""

    grid: Grid
    writer: Writer
    executor: Executor
    progress: Progress
    interruption: Interruption
    source: Provenance
    files: Path
    params: Params
    ended: dict[Status, int] = field(default_factory=dict)
    _held: dict[str, RunRecord] = field(default_factory=dict)
    """The runs that were claimed and have not ended, by key."""
    _stopping: set[str] = field(default_factory=set)
    _failures: dict[str, int] = field(default_factory=dict)
    _again: list[RunRecord] = field(default_factory=list)
    _unwritten: list[Event] = field(default_factory=list)
    _flushed: float = 0.0
    _beaten: float = 0.0
    _asked: float = 0.0

    def train(self, due: Sequence[RunRecord], statuses: Collection[Status]) -> None:
        """Train the runs that are due, and once more those that failed and may be tried again."""
        try:
            while due and not self.interruption.asked:
                self._again = []
                grid = self.grid
                stacks = plan(
                    due,
                    task=grid.task,
                    stop=grid.stop,
                    runtime=grid.runtime,
                    files=str(self.files),
                    params=self.params,
                    workers=self.executor.capacity(),
                )
                for event in self.executor.execute(self._claimed(stacks, statuses)):
                    self._take(event)
                self._flush()
                due, statuses = self._again, ("queued", "lost", "failed")
        except KeyboardInterrupt:  # asked twice: at once
            self.executor.close()
        finally:
            self._flush()
            self.writer.requeue(list(self._held))

    def _claimed(self, stacks: Sequence[Stack], statuses: Collection[Status]) -> Iterator[Stack]:
        """The stacks, each with those of its runs that no other process took, as the executor asks for them."""
        for stack in stacks:
            if self.interruption.asked:
                return
            runs = self.writer.claim(
                [run.key for run in stack.runs],
                statuses=statuses,
                git_commit=self.source.git_commit,
                git_dirty=self.source.git_dirty,
                versions=self.source.versions,
            )
            if runs:
                self._held.update({run.key: run for run in runs})
                yield stack_of(runs, task=stack.task, stop=stack.stop, runtime=stack.runtime, files=stack.files)

    def _take(self, event: Event | None) -> None:
        """One event, or a moment without any: record it, and see to what else is due."""
        if isinstance(event, Finished | Failed):
            event = self._ended(event)
        if event is not None:
            self._unwritten.append(event)
            self.progress.take(event)
        now = time.monotonic()
        if event is None or now - self._flushed > FLUSH_SECONDS:
            self._flush()
        if now - self._beaten > BEAT_SECONDS:
            self._beaten = now
            self.writer.beat(list(self._held))
        if now - self._asked > REQUEST_SECONDS:
            self._asked = now
            self._answer_requests()
        if self.interruption.take():
            self.executor.interrupt()
        self.progress.tick()

    def _ended(self, event: Finished | Failed) -> Finished | Failed:
        """The end of a run as it is recorded: a run that was told to stop has stopped."""
        run = self._held.pop(event.run)
        if isinstance(event, Finished) and event.status == "queued" and event.run in self._stopping:
            event = replace(event, status="stopped", reason="stopped by a person")
        if isinstance(event, Failed):
            self._failures[event.run] = self._failures.get(event.run, 0) + 1
            if self._failures[event.run] <= self.grid.resources.retries:
                self._again.append(run)
                return event
        status: Status = "failed" if isinstance(event, Failed) else event.status
        self.ended[status] = self.ended.get(status, 0) + 1
        return event

    def _answer_requests(self) -> None:
        for key, action in self.writer.take_requests(list(self._held)):
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
