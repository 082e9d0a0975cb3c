"""Thread that writes the data of a run to the database.

The training thread appends log calls to `calls` and does not wait. Every 25 ms the writer thread writes them, at most
1,000 calls per transaction: without this bound, a script that logs in a tight loop would never let a transaction end.
If more than `MAX_BACKLOG` calls wait, the script waits in `make_room`, unless nothing can be written at all.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from labbench.store.liveness import this_process
from labbench.store.scripts.script_run import ScriptRun
from labbench.system.clock import now
from labbench.tracking.batching import Call, MetricBatcher
from labbench.tracking.console import PrintedOutput
from labbench.tracking.messages import ProblemReporter, warn, warn_once
from labbench.tracking.process_hooks import end_runs_with_worker
from labbench.tracking.storage import Batch, DiscardingStorage, Storage

MAX_BACKLOG = 20_000
"""Maximum number of log calls that wait in memory."""

MAX_BATCH = 1_000
"""Maximum number of log calls in one transaction."""

FLUSH_SECONDS = 0.025
"""Seconds between transactions while a script logs; a killed process loses at most this much data."""

HEARTBEAT_SECONDS = 2.0

CLOSING_SECONDS = 3.0
"""Seconds to wait at the end of a run for a database that cannot be written, before spilling to a file."""

_FAILING_SECONDS = 0.05
"""Seconds between checks of the backlog while the database cannot be written."""


class WakeEvent:
    """Event that wakes one waiting thread.

    `set` is safe in a signal handler, because it is a single step in C.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        with suppress(RuntimeError):  # set already
            self._lock.release()

    def wait(self, seconds: float) -> None:
        """Wait until the event is set, at most for `seconds`; forever if negative."""
        self._lock.acquire(timeout=seconds)


class Backlog(deque[Call]):
    """Log calls that wait to be written."""

    __slots__ = ("asleep",)  # in the deque itself: `log` reads both, often with a cold cache

    asleep: bool
    """True if a thread that appends a call must also call `RunWriterThread.wake`."""


class RunWriterThread:
    """Backlog of one run and the thread that writes it."""

    def __init__(
        self,
        storage: Storage | DiscardingStorage,
        run: ScriptRun,
        problems: ProblemReporter,
        *,
        truncates: bool = False,
        first_step: int = 0,
    ) -> None:
        """Initialize without starting the thread.

        Args:
            problems: Receiver of the problems of the script's calls.
            truncates: Delete the points of earlier attempts at the first logged step and later.
            first_step: Step of the first log call without a step.
        """
        self.calls = Backlog()
        self.calls.asleep = True
        self.samples: deque[Call] = deque()
        """System metrics, in the form of log calls."""
        self.printed = PrintedOutput()
        self.run = run
        self.problems = problems
        self.stop_requested = False
        self.step = first_step - 1
        """Last step taken from the backlog."""
        self._batcher = MetricBatcher(run.key, run.attempt, _start_on_monotonic_clock(run))
        self._storage = storage
        self._truncates = truncates
        self._batch: Batch | None = None
        self._written = run
        self._last_heartbeat = self._last_request_check = time.monotonic()
        self._lost_calls = 0
        self._is_closing = False
        self._driver_session: int | None = None
        """Session of the process that drives the run, in a process forked from it; else None."""
        self._thread: threading.Thread | None = None
        self._flush_events: deque[threading.Event] = deque()
        self._create_locks()

    # Called from any thread.

    @property
    def is_closing(self) -> bool:
        """True once `close` was called: nothing more can be logged."""
        return self._is_closing

    @property
    def discards(self) -> bool:
        """True if nothing of the run is recorded."""
        return isinstance(self._storage, DiscardingStorage)

    @property
    def last_step(self) -> int:
        """Step of the last log call; one less than the first step if there was none."""
        try:
            return int(self.calls[-1][0])
        except IndexError:  # all are taken from the backlog
            return self.step

    def change(self, update: Callable[[ScriptRun], ScriptRun]) -> bool:
        """Replace the run by `update(run)` and schedule its write; return False if the run has ended."""
        if not self._is_closing:
            with self._change_lock:
                self.run = update(self.run)
        return self.wake()

    def wake(self) -> bool:
        """Schedule the write of newly appended data; return False if the run has ended."""
        if self._is_closing:
            if self._thread is None or not self._thread.is_alive():
                self.calls.clear()
            return False
        self.calls.asleep = False
        self.start()
        self._wake_event.set()
        return True

    def report_end(self) -> None:
        """Report a call after the end of the run. Raises InputError in a strict run."""
        problem = f"run {self.run.key} has ended: nothing more can be logged to it"
        self.problems.report("call after the end", problem, "what is logged from now on is lost")

    def start(self) -> None:
        """Start the thread unless it is running."""
        with self._change_lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name=f"labbench {self.run.key}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # too many threads, or the interpreter is shutting down
                    warn_once(f"run {self.run.key}: nothing can be recorded at present: {error}")
                    return
                self._thread = thread
                if not self.run.drives:
                    end_runs_with_worker()

    def make_room(self) -> None:
        """Wait until the backlog is below its limit.

        If nothing can be written, drop the newest call.
        """
        with self._room:
            while (
                len(self.calls) > MAX_BACKLOG and not self._storage.stuck and self.wake() and self._thread is not None
            ):
                self._room.wait(0.1)
        if len(self.calls) > MAX_BACKLOG:
            self.calls.pop()
            self._lost_calls += 1

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until everything logged before is written; return False if it is not after `seconds`."""
        if self._thread is None and not self._is_closing:
            return True  # a forked child that has logged nothing
        flushed = threading.Event()
        self._flush_events.append(flushed)
        self._wake_event.set()
        deadline = time.monotonic() + seconds
        while not flushed.wait(0.1):
            if self._thread is None or not self._thread.is_alive() or time.monotonic() > deadline:
                break
        return flushed.is_set() and not self._storage.failing

    def last_values(self) -> dict[str, float]:
        """Return the last value of each metric."""
        self.flush()
        return dict(self._batcher.last)

    def close(self, seconds: float = 30.0) -> None:
        """Write the remaining data, close the database and end the thread.

        Calling it again is safe, even in a signal handler.
        """
        self._is_closing = self.calls.asleep = True
        self._wake_event.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def adopt_if_daemon(self) -> None:
        """Drive the run in a daemon: in a forked process with its own session, after the end of the driving process."""
        run = self.run
        is_daemon = self._driver_session not in (None, os.getsid(0))
        if is_daemon and not run.drives and run.process.has_ended():
            with self._write_lock:
                is_adopted = self._storage.adopt(run)
            if is_adopted:
                with self._change_lock:
                    self.run = replace(self.run, process=this_process(), drives=True)

    # Around a fork.

    def before_fork(self) -> None:
        """Write the backlog and close the database: an SQLite connection must not be carried across a fork.

        The backlog is written because the process that forks a daemon exits without a cleanup.
        """
        self._is_paused = self._write_lock.acquire(timeout=1.0)
        if self._is_paused:
            try:
                self._write_unwritten()
            except Exception as error:
                _warn_of_internal_error(error)
            self._storage.release()

    def after_fork_in_parent(self) -> None:
        if self._is_paused:
            self._write_lock.release()

    def after_fork_in_child(self) -> None:
        """Clear the queues; the parent writes their content.

        The first log call in the child starts its own thread.
        """
        for queue in (self.calls, self.samples, self.printed):
            queue.clear()
        self.run = self._written = replace(self.run, drives=False)
        self._storage.after_fork_in_child(self.run)
        if self._driver_session is None:  # 0 is the id of a session that began outside the container
            self._driver_session = os.getsid(0)
        self._batch, self._truncates, self.calls.asleep = None, False, True
        self._thread = None
        self._flush_events.clear()
        self._create_locks()

    def _create_locks(self) -> None:
        self._wake_event = WakeEvent()
        self._write_lock = threading.Lock()
        self._change_lock = threading.RLock()
        self._room = threading.Condition()
        self._is_paused = False

    # Called in the writer thread.

    def _work(self) -> None:
        deadline = None
        while deadline is None or (self._has_unwritten() and time.monotonic() < deadline):
            self._wake_event.wait(self._idle_seconds())
            if self._is_closing and deadline is None:
                deadline = time.monotonic() + CLOSING_SECONDS
            flush_events = [self._flush_events.popleft() for _ in range(len(self._flush_events))]
            try:
                self.adopt_if_daemon()
                with self._write_lock:
                    self.printed.drain()
                    if flush_events:
                        self.printed.expedite()
                    self._write_unwritten()
            except Exception as error:  # an error in labbench must not stop the training
                _warn_of_internal_error(error)
            for event in flush_events:
                event.set()
        with self._write_lock:
            try:
                self._write_rest()
            except Exception as error:
                warn(
                    "internal error in labbench, please report it: "
                    f"the end of run {self.run.key} was not recorded: {error!r}"
                )
            self._storage.close()
        for event in self._flush_events:
            event.set()

    def _idle_seconds(self) -> float:
        """Return the seconds to wait for the wake event."""
        if self._storage.failing or self._storage.awaits_adoption:
            return _FAILING_SECONDS
        if self._is_closing or len(self.calls) >= MAX_BATCH:
            return 0
        if not self.calls.asleep:
            return FLUSH_SECONDS
        if self.run.drives:
            return max(0, self._last_heartbeat + HEARTBEAT_SECONDS - time.monotonic())
        return -1 if self._driver_session is None else HEARTBEAT_SECONDS

    def _write_unwritten(self) -> None:
        """Write the data that waits when the call begins; later data is left for the next call."""
        n_waiting, n_written = len(self.calls), -1
        while n_written < n_waiting and (batch := self._batch or self._next_batch()) is not None:
            self._batch = batch
            is_half_full = len(self.calls) > MAX_BACKLOG // 2
            if not self._put(batch) and not (is_half_full and self._storage.spill(batch)):
                return
            self._batch, self._written = None, batch.run
            n_written = max(0, n_written) + batch.calls
            # not blocking: the thread that holds the lock may be in a signal handler that waits for this thread
            if self._room.acquire(blocking=False):
                self._room.notify_all()
                self._room.release()
        if n_written < 0 and not self._is_closing:
            self.calls.asleep = True
            if self._has_unwritten():  # appended just before `asleep` was set, so no thread called `wake`
                self.calls.asleep = False

    def _put(self, batch: Batch, *, immediately: bool = False) -> bool:
        """Return True if the batch was written or dropped: one that cannot be written must not block the others."""
        try:
            return self._storage.put(batch, immediately=immediately)
        except Exception as error:
            warn_once(f"internal error in labbench, please report it: {batch.calls} log calls were lost: {error!r}")
            return True

    def _has_unwritten(self) -> bool:
        return bool(self._batch or self.calls or self.samples or self.printed.is_due or self.run is not self._written)

    def _next_batch(self) -> Batch | None:
        """Return up to `MAX_BATCH` calls with all other unwritten data.

        Returns None if there is none and no heartbeat is due. An empty batch is a heartbeat.
        """
        now = time.monotonic()
        if not self._has_unwritten() and not (self.run.drives and now >= self._last_heartbeat + HEARTBEAT_SECONDS):
            return None
        self._last_heartbeat = now
        if self.run.drives and now >= self._last_request_check + HEARTBEAT_SECONDS:
            self._last_request_check = now
            if self._storage.pop_stop_request():
                self.stop_requested = True
                # like Ctrl-C; pthread_kill also interrupts a sleep
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        calls = _pop_up_to(self.calls, MAX_BATCH)
        truncate_from = calls[0][0] if calls and self._truncates else None
        if calls:
            self.step, self._truncates = calls[-1][0], False
        points = self._batcher.series(chain(calls, _pop_up_to(self.samples, MAX_BATCH)))
        run = self.run
        if run.status != "running" and self.calls:
            run = self._written  # the final status is written last
        return Batch(run, points, self.printed.take(), truncate_from, len(calls))

    def _write_rest(self) -> None:
        """Write all remaining data, to the spill file if necessary."""
        while self._has_unwritten() and (batch := self._batch or self._next_batch()) is not None:
            self._batch = batch
            if not self._put(batch, immediately=True) and not self._storage.spill(batch):
                self._lost_calls += batch.calls + len(self.calls)
                break
            self._batch, self._written = None, batch.run
        if self.printed.omitted_lines:
            warn(f"run {self.run.key}: {self.printed.omitted_lines:,} lines of its output were not kept")
        if self._lost_calls:
            warn(f"run {self.run.key}: {self._lost_calls} log calls were lost because no file could be written")


def _start_on_monotonic_clock(run: ScriptRun) -> int:
    """Return the start of the run on the clock of `time.monotonic_ns()`, which never jumps."""
    return time.monotonic_ns() - round(max(0.0, now() - run.started) * 1e9)


def _warn_of_internal_error(error: Exception) -> None:
    warn_once(f"internal error in labbench, please report it: some data was not recorded: {error!r}")


def _pop_up_to(queue: deque[Any], limit: int) -> list[Any]:
    """Pop up to `limit` items, the oldest first.

    Other threads may append at the same time.
    """
    return [queue.popleft() for _ in range(min(limit, len(queue)))]
