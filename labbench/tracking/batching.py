"""Writing of a run's data in batches: conversion of log calls to series, and their transactions."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from typing import Any, TypeAlias

from labbench.messages import warn, warn_once
from labbench.records import Artifact, Points
from labbench.store.scripts.script_run import ScriptRun
from labbench.system.clock import now
from labbench.tracking.console import PrintedOutput
from labbench.tracking.images import Image, ImageWriter
from labbench.tracking.storage import Batch, DiscardingStorage, Storage
from labbench.tracking.values import Value, storable_name

MAX_BACKLOG = 20_000
"""Maximum number of log calls that wait in memory."""

MAX_BATCH = 1_000
"""Maximum number of log calls in one transaction."""

HEARTBEAT_SECONDS = 2.0

Call: TypeAlias = tuple[int, int, dict[str, Value]]
"""A log call: step, `time.monotonic_ns()`, and a dict that no other code refers to."""


class Backlog(deque[Call]):
    """Log calls that wait to be written."""

    __slots__ = ("asleep",)  # in the deque itself: `log` reads both, often with a cold cache

    asleep: bool
    """True if a thread that appends a call must also call `RunWriterThread.wake`."""


class MetricBatcher:
    """Convert log calls to series, and remember the last value of each metric."""

    def __init__(self, run: str, attempt: int, start_ns: int) -> None:
        """`start_ns` is the start of the run on the clock of `time.monotonic_ns()`."""
        self._run, self._attempt, self._start_ns = run, attempt, start_ns
        self._names: dict[str, str] = {}
        self.last: dict[str, float] = {}
        self.images: list[tuple[str, int, Image]] = []
        """Name, step and image of the images in the calls that were converted."""

    def series(self, calls: Iterable[Call]) -> list[Points]:
        """Return one `Points` per key, in the order of the calls."""
        columns: dict[str, tuple[list[int], list[int], list[float]]] = {}
        for step, time_ns, metrics in calls:
            milliseconds = (time_ns - self._start_ns) // 1_000_000
            for key, value in metrics.items():
                number = value if value.__class__ is float else self._fetch_number(key, step, value)
                if number is None:
                    continue
                column = columns.get(key)
                if column is None:
                    column = columns[key] = ([], [], [])
                column[0].append(step)
                column[1].append(milliseconds)
                column[2].append(number)
        points = [Points(self._run, self._attempt, self._name(key), *column) for key, column in columns.items()]
        self.last.update({series.metric: series.values[-1] for series in points})
        return points

    def _name(self, key: str) -> str:
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = storable_name(key)
            if name != key:
                warn_once(
                    f"a metric is recorded as `{name}`: its name is no text, has control characters or is too long"
                )
        return name

    def _fetch_number(self, key: str, step: int, value: Value) -> float | None:
        """Return a number; None for an image, which is kept in `images`, and for one that cannot be read."""
        if isinstance(value, Image):
            self.images.append((self._name(key), step, value))
            return None
        if isinstance(value, float):
            return value
        try:
            return value.number()
        except RuntimeError as error:
            warn_once(f"a value of `{key}` could not be read from its device and was not recorded: {error}")
            return None


class BatchWriter:
    """Queues of a run's data, which any thread fills, and their writer, which one thread calls at a time."""

    def __init__(
        self,
        storage: Storage | DiscardingStorage,
        run: ScriptRun,
        *,
        truncates: bool,
        first_step: int,
        on_written: Callable[[], None],
        on_artifacts: Callable[[list[Artifact]], None],
    ) -> None:
        """Initialize without data.

        Args:
            truncates: Delete the points of earlier attempts at the first logged step and later.
            first_step: Step of the first log call without a step.
            on_written: Called after each batch.
            on_artifacts: Called with the images that were written; adds them to `run`.
        """
        self.calls = Backlog()
        self.calls.asleep = True
        self.samples: deque[Call] = deque()
        """System metrics, in the form of log calls."""
        self.printed = PrintedOutput()
        self.run = run
        self.storage = storage
        self.stop_requested = False
        self.step = first_step - 1
        """Last step taken from the backlog."""
        self.lost_calls = 0
        self.last_heartbeat = self._last_request_check = time.monotonic()
        self._batcher = MetricBatcher(run.key, run.attempt, _start_on_monotonic_clock(run))
        self._truncates = truncates
        self._on_written, self._on_artifacts = on_written, on_artifacts
        self._image_writer = ImageWriter(storage.path, run.key) if isinstance(storage, Storage) else None
        self._batch: Batch | None = None
        self._written = run

    @property
    def has_unwritten(self) -> bool:
        """True if data or a change of the run is not written."""
        return bool(self._batch or self.calls or self.samples or self.printed.is_due or self.run is not self._written)

    @property
    def last_values(self) -> dict[str, float]:
        """Last value of each metric, of the calls that were taken from the backlog."""
        return dict(self._batcher.last)

    def write_waiting(self) -> bool:
        """Write the data that waits when the call begins, and leave later data; return False if none waits."""
        n_waiting, n_written = len(self.calls), -1
        while n_written < n_waiting and (batch := self._take_batch()) is not None:
            is_half_full = len(self.calls) > MAX_BACKLOG // 2
            if not self._put(batch) and not (is_half_full and self.storage.spill(batch)):
                return True
            self._batch, self._written = None, batch.run
            n_written = max(0, n_written) + batch.calls
            self._on_written()
        return n_written >= 0

    def write_rest(self) -> None:
        """Write all remaining data, to the spill file if necessary, and warn of what is lost."""
        is_end_lost = False
        while self.has_unwritten and (batch := self._take_batch()) is not None:
            if not self._put(batch, immediately=True) and not self.storage.spill(batch):
                self.lost_calls += batch.calls + len(self.calls)
                is_end_lost = self.run.status != "running"
                break
            self._batch, self._written = None, batch.run
        if self.printed.omitted_lines:
            warn(f"run {self.run.key}: {self.printed.omitted_lines:,} lines of its output were not kept")
        losses = [f"{self.lost_calls:,} log calls were lost"] if self.lost_calls else []
        losses += ["its end was lost"] if is_end_lost else []
        if losses:
            warn(f"run {self.run.key}: {' and '.join(losses)} because no file could be written")

    def after_fork_in_child(self) -> None:
        """Drop the data, which the parent writes, and continue the run without driving it."""
        for queue in (self.calls, self.samples, self.printed):
            queue.clear()
        self.run = self._written = replace(self.run, drives=False)
        self.storage.after_fork_in_child(self.run)
        self._batch, self._truncates, self.calls.asleep = None, False, True

    def _put(self, batch: Batch, *, immediately: bool = False) -> bool:
        """Return True if the batch was written or dropped: one that cannot be written must not block the others."""
        try:
            return self.storage.put(batch, immediately=immediately)
        except Exception as error:
            warn_once(f"internal error in labbench, please report it: {batch.calls} log calls were lost: {error!r}")
            return True

    def _take_batch(self) -> Batch | None:
        """Return the batch that is not written yet, else up to `MAX_BATCH` calls with all other unwritten data.

        Returns None if there is none and no heartbeat is due. An empty batch is a heartbeat.
        """
        if self._batch is None:
            now = time.monotonic()
            is_heartbeat_due = self.run.drives and now >= self.last_heartbeat + HEARTBEAT_SECONDS
            if not self.has_unwritten and not is_heartbeat_due:
                return None
            self.last_heartbeat = now
            self._check_stop_request(now)
            self._batch = self._make_batch()
        return self._batch

    def _check_stop_request(self, now: float) -> None:
        if self.run.drives and now >= self._last_request_check + HEARTBEAT_SECONDS:
            self._last_request_check = now
            if self.storage.pop_stop_request():
                self.stop_requested = True
                # like Ctrl-C; pthread_kill also interrupts a sleep
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _make_batch(self) -> Batch:
        calls = _pop_up_to(self.calls, MAX_BATCH)
        truncate_from = calls[0][0] if calls and self._truncates else None
        if calls:
            self.step, self._truncates = calls[-1][0], False
        points = self._batcher.series(chain(calls, _pop_up_to(self.samples, MAX_BATCH)))
        images, self._batcher.images = self._batcher.images, []
        if images and self._image_writer is not None:
            self._on_artifacts(self._image_writer.write(images))
        run = self.run
        if run.status != "running" and self.calls:
            run = self._written  # the final status is written last
        return Batch(run, points, self.printed.take(), truncate_from, len(calls))


def _start_on_monotonic_clock(run: ScriptRun) -> int:
    """Return the start of the run on the clock of `time.monotonic_ns()`, which never jumps."""
    return time.monotonic_ns() - round(max(0.0, now() - run.started) * 1e9)


def _pop_up_to(queue: deque[Any], limit: int) -> list[Any]:
    """Pop up to `limit` items, the oldest first.

    Other threads may append at the same time.
    """
    return [queue.popleft() for _ in range(min(limit, len(queue)))]
