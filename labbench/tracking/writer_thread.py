"""Thread that writes the data of a run to the database, and its life: start, end and forks of the process.

The training thread appends log calls to `calls` and does not wait. Every 25 ms the writer thread writes them, at most
1,000 calls per transaction: without this bound, a script that logs in a tight loop would never let a transaction end.
If more than `MAX_BACKLOG` calls wait, the script waits in `make_room`, unless nothing can be written at all.
"""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from labbench.messages import ProblemReporter, warn, warn_of_internal_error, warn_once
from labbench.records import Artifact
from labbench.store.liveness import this_process
from labbench.store.scripts.script_run import ScriptRun
from labbench.tracking.batching import HEARTBEAT_SECONDS, MAX_BACKLOG, MAX_BATCH, BatchWriter
from labbench.tracking.process_hooks import end_runs_with_worker
from labbench.tracking.storage import DiscardingStorage, Storage

FLUSH_SECONDS = 0.025
"""Seconds between transactions while a script logs; a killed process loses at most this much data."""

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


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait at most `seconds` until a condition is true.

    Without a lock, unlike `Thread.join`: a signal handler that waits again could not get the lock that the interrupted
    call holds.
    """
    deadline, pause = time.monotonic() + seconds, 0.0005
    while not condition() and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.01)


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
        self.problems = problems
        self._batches = BatchWriter(
            storage,
            run,
            truncates=truncates,
            first_step=first_step,
            on_written=self._announce_room,
            on_artifacts=self._add_artifacts,
        )
        self.calls, self.samples, self.printed = self._batches.calls, self._batches.samples, self._batches.printed
        self._is_closing = False
        self._driver_session: int | None = None
        """Session of the process that drives the run, in a process forked from it; else None."""
        self._thread: threading.Thread | None = None
        self._has_ended = False
        """True once the thread has written everything."""
        self._flush_events: deque[threading.Event] = deque()
        self._create_locks()

    # Called from any thread.

    @property
    def run(self) -> ScriptRun:
        """The run in its latest state."""
        return self._batches.run

    @property
    def step(self) -> int:
        """Last step taken from the backlog."""
        return self._batches.step

    @property
    def stop_requested(self) -> bool:
        """True once a user has requested the stop of the run."""
        return self._batches.stop_requested

    @property
    def is_closing(self) -> bool:
        """True once `close` was called: nothing more can be logged."""
        return self._is_closing

    @property
    def discards(self) -> bool:
        """True if nothing of the run is recorded."""
        return isinstance(self._batches.storage, DiscardingStorage)

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
                self._batches.run = update(self.run)
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
                thread = threading.Thread(target=self._run, name=f"labbench {self.run.key}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # too many threads, or the interpreter is shutting down
                    warn_once(f"run {self.run.key}: what is logged waits in memory: {error}")
                    self.calls.asleep = True  # the next log call tries again
                    return
                self._thread = thread
                if not self.run.drives:
                    end_runs_with_worker()

    def make_room(self) -> None:
        """Wait until the backlog is below its limit.

        If nothing can be written, drop the newest call.
        """
        with self._room:
            storage = self._batches.storage
            while len(self.calls) > MAX_BACKLOG and not storage.stuck and self.wake() and self._thread is not None:
                self._room.wait(0.1)
        if len(self.calls) > MAX_BACKLOG:
            self.calls.pop()
            self._batches.lost_calls += 1

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until everything logged before is written; return False if it is not after `seconds`."""
        if self._thread is None and not self._is_closing:
            return not self._batches.has_unwritten  # a forked child that has logged nothing, or too many threads
        flushed = threading.Event()
        self._flush_events.append(flushed)
        self._wake_event.set()
        deadline = time.monotonic() + seconds
        while not flushed.wait(0.1):
            if self._thread is None or not self._thread.is_alive() or time.monotonic() > deadline:
                break
        return flushed.is_set() and not self._batches.storage.failing

    def last_values(self) -> dict[str, float]:
        """Return the last value of each metric."""
        self.flush()
        return self._batches.last_values

    def close(self, seconds: float = 30.0) -> None:
        """Write the remaining data, close the database and end the thread.

        Calling it again is safe, even in a signal handler.
        """
        self._is_closing = self.calls.asleep = True
        self._wake_event.set()
        if self._thread is not None:
            _wait_until(lambda: self._has_ended, seconds)
        elif not self._has_ended and self._batches.has_unwritten:  # there were too many threads to start another one
            self._has_ended = True  # a signal handler that calls `close` again could not take the lock
            self._work()

    def adopt_if_daemon(self) -> None:
        """Drive the run in a daemon: in a forked process with its own session, after the end of the driving process."""
        run = self.run
        is_daemon = self._driver_session not in (None, os.getsid(0))
        if is_daemon and not run.drives and run.process.has_ended():
            with self._write_lock:
                is_adopted = self._batches.storage.adopt(run)
            if is_adopted:
                with self._change_lock:
                    self._batches.run = replace(self.run, process=this_process(), drives=True)

    # Around a fork.

    def before_fork(self) -> None:
        """Write the backlog and close the database: an SQLite connection must not be carried across a fork.

        The backlog is written because the process that forks a daemon exits without a cleanup.
        """
        self._is_paused = self._write_lock.acquire(timeout=1.0)
        if self._is_paused:
            try:
                self._write_waiting()
            except Exception as error:
                warn_of_internal_error(error)
            self._batches.storage.release()

    def after_fork_in_parent(self) -> None:
        if self._is_paused:
            self._write_lock.release()

    def after_fork_in_child(self) -> None:
        """Clear the queues; the parent writes their content.

        The first log call in the child starts its own thread.
        """
        self._batches.after_fork_in_child()
        if self._driver_session is None:  # 0 is the id of a session that began outside the container
            self._driver_session = os.getsid(0)
        self._thread, self._has_ended = None, False
        self._flush_events.clear()
        self._create_locks()

    def _create_locks(self) -> None:
        self._wake_event = WakeEvent()
        self._write_lock = threading.Lock()
        self._change_lock = threading.RLock()
        self._room = threading.Condition()
        self._is_paused = False

    # Called in the writer thread.

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._has_ended = True

    def _work(self) -> None:
        deadline = None
        while deadline is None or (self._batches.has_unwritten and time.monotonic() < deadline):
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
                    self._write_waiting()
            except Exception as error:  # an error in labbench must not stop the training
                warn_of_internal_error(error)
            for event in flush_events:
                event.set()
        with self._write_lock:
            try:
                self._batches.write_rest()
            except Exception as error:
                warn(
                    "internal error in labbench, please report it: "
                    f"the end of run {self.run.key} was not recorded: {error!r}"
                )
            self._batches.storage.close()
        for event in self._flush_events:
            event.set()

    def _idle_seconds(self) -> float:
        """Return the seconds to wait for the wake event."""
        if self._batches.storage.failing or self._batches.storage.awaits_adoption:
            return _FAILING_SECONDS
        if self._is_closing or len(self.calls) >= MAX_BATCH:
            return 0
        if not self.calls.asleep:
            return FLUSH_SECONDS
        if self.run.drives:
            return max(0, self._batches.last_heartbeat + HEARTBEAT_SECONDS - time.monotonic())
        return -1 if self._driver_session is None else HEARTBEAT_SECONDS

    def _write_waiting(self) -> None:
        if not self._batches.write_waiting() and not self._is_closing:
            self.calls.asleep = True
            if self._batches.has_unwritten:  # appended just before `asleep` was set, so no thread called `wake`
                self.calls.asleep = False

    def _add_artifacts(self, artifacts: list[Artifact]) -> None:
        # not waiting for long: the thread that holds the lock may be in a signal handler that waits for this thread
        is_locked = self._change_lock.acquire(timeout=1.0)
        self._batches.run = replace(self.run, artifacts=(*self.run.artifacts, *artifacts))
        if is_locked:
            self._change_lock.release()

    def _announce_room(self) -> None:
        # not blocking: the thread that holds the lock may be in a signal handler that waits for this thread
        if self._room.acquire(blocking=False):
            self._room.notify_all()
            self._room.release()
