"""The thread that writes what a run logs.

The training thread appends to `calls` and goes on. Every 25 ms this thread takes what has gathered, at most a thousand
calls a transaction: without that bound a script that logs without a pause would keep the first transaction from ever
ending. Where `MAX_BACKLOG` calls wait, the script waits too, in `make_room`, unless nothing can be written at all.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from labbench.errors import InputError
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import PrintedText, ScriptRun
from labbench.tracking.batching import Call, MetricBatcher
from labbench.tracking.messages import warn, warn_once
from labbench.tracking.process_hooks import end_with_worker
from labbench.tracking.storage import Batch, Storage

MAX_BACKLOG = 20_000
"""Log calls that wait in memory."""

MAX_BATCH = 1_000
"""Log calls in one transaction."""

FLUSH_SECONDS = 0.025
"""Seconds between transactions while a script logs: what a killed process loses."""

BEAT_SECONDS = 2.0

CLOSING_SECONDS = 3.0
"""How long a run that ends waits for a database that cannot be written, before it spills."""

_FAILING_SECONDS = 0.05
"""How often a backlog that cannot be written is looked after."""

_MAX_PRINTED_CHARACTERS = 10_000


class WakeEvent:
    """Wakes the one thread that waits for it. May be rung from a signal handler: it is a single step in C."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._lock.release()

    def wait(self, seconds: float) -> None:
        """Until it rings, or for some seconds; negative: for ever."""
        self._lock.acquire(timeout=seconds)


class Backlog(deque[Call]):
    """Calls that wait to be written."""

    __slots__ = ("asleep",)  # beside the deque itself: `log` looks at both, often with a cold cache

    asleep: bool
    """Whoever appends something must call `Recorder.wake`."""


class RunWriterThread:
    """One run's backlog and the thread that empties it."""

    def __init__(
        self, writer: ScriptWriter, run: ScriptRun, *, began: int, forgets: bool = False, first_step: int = 0
    ) -> None:
        """`began`: see `MetricBatcher`. `forgets`: an earlier attempt loses what it logged behind the first step.

        `first_step` is the one that comes next where none is given.
        """
        self.calls = Backlog()
        self.calls.asleep = True
        self.samples: deque[Call] = deque()
        """As `calls`, but of no step of the script's own."""
        self.printed: deque[PrintedText] = deque(maxlen=_MAX_PRINTED_CHARACTERS)
        self.run = run
        self.stop_asked = False
        self.step = first_step - 1
        """The step that was written last."""
        self._columns = MetricBatcher(run.key, run.attempt, began)
        self._storage = Storage(writer, run)
        self._forgets = forgets
        self._batch: Batch | None = None
        self._written = run
        self._beaten = self._asked = time.monotonic()
        self._lost = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._waiting: deque[threading.Event] = deque()
        self._make_locks()

    # From any thread.

    @property
    def ended(self) -> bool:
        return self._closing

    def change(self, changed: Callable[[ScriptRun], ScriptRun]) -> None:
        """Put a changed run in place of the one that is known, and let it be written."""
        with self._changing:
            self.run = changed(self.run)
        self.wake()

    def wake(self) -> None:
        """Let what was just appended be written. Raises InputError where the run has ended."""
        if self._closing:
            raise InputError(f"run {self.run.key} has ended: nothing more can be logged to it")
        self.calls.asleep = False
        self.start()
        self._bell.ring()

    def start(self) -> None:
        """Start the thread, if it is not there."""
        with self._changing:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"labbench {self.run.key}", daemon=True)
                self._thread.start()
                if not self.run.drives:
                    end_with_worker()

    def make_room(self) -> None:
        """Wait until the backlog is below its limit; where nothing can be written, drop what came last."""
        with self._room:
            while len(self.calls) > MAX_BACKLOG and not self._storage.stuck and not self._closing:
                self.wake()
                self._room.wait(0.1)
        if len(self.calls) > MAX_BACKLOG:
            self.calls.pop()
            self._lost += 1

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until everything logged before is written; False where that was not possible."""
        if self._thread is None and not self._closing:
            return True  # a forked child that has logged nothing
        done = threading.Event()
        self._waiting.append(done)
        self._bell.ring()
        until = time.monotonic() + seconds
        while not done.wait(0.1):
            if self._thread is None or not self._thread.is_alive() or time.monotonic() > until:
                break
        return done.is_set() and not self._storage.failing

    def last_values(self) -> dict[str, float]:
        """The value of each metric that was logged last."""
        self.flush()
        return dict(self._columns.last)

    def close(self, seconds: float = 30.0) -> None:
        """Write what is left, close the database and end the thread. May be called twice, from a signal handler too."""
        self._closing = self.calls.asleep = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join(seconds)

    # Around a fork.

    def before_fork(self) -> None:
        """Close the database between two transactions: a connection must not be open in two processes."""
        self._paused = self._writing.acquire(timeout=1.0)
        if self._paused:
            self._storage.release()

    def after_fork_in_parent(self) -> None:
        if self._paused:
            self._writing.release()

    def after_fork_in_child(self) -> None:
        """Begin with nothing: what waits is the parent's to write. The first log call here starts a thread."""
        for queue in (self.calls, self.samples, self.printed):
            queue.clear()
        self.run = self._written = replace(self.run, drives=False)
        self._storage.after_fork_in_child(self.run)
        self._batch, self._forgets, self.calls.asleep = None, False, True
        self._thread = None
        self._waiting.clear()
        self._make_locks()

    def _make_locks(self) -> None:
        self._bell = WakeEvent()
        self._writing = threading.Lock()
        self._changing = threading.RLock()
        self._room = threading.Condition()
        self._paused = False

    # In the thread.

    def _work(self) -> None:
        ends_at = None
        while ends_at is None or (self._has_news() and time.monotonic() < ends_at):
            self._bell.wait(self._patience())
            if self._closing and ends_at is None:
                ends_at = time.monotonic() + CLOSING_SECONDS
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            try:
                with self._writing:
                    self._write_news()
            except Exception as error:  # a mistake in here must not hold up the training
                warn_once(f"this is a mistake in labbench, and something is not recorded: {error!r}")
            for event in waiting:
                event.set()
        with self._writing:
            try:
                self._end()
            except Exception as error:
                warn(f"this is a mistake in labbench, and the end of run {self.run.key} is not recorded: {error!r}")
            self._storage.close()
        for event in self._waiting:
            event.set()

    def _patience(self) -> float:
        """Seconds until there is something to do, unless the bell rings."""
        if self._storage.failing:
            return _FAILING_SECONDS
        if self._closing or len(self.calls) >= MAX_BATCH:
            return 0
        if not self.calls.asleep:
            return FLUSH_SECONDS
        return max(0, self._beaten + BEAT_SECONDS - time.monotonic()) if self.run.drives else -1

    def _write_news(self) -> None:
        """Write what has gathered up to now; what comes meanwhile is for the next time."""
        asked, done = len(self.calls), -1
        while done < asked and (batch := self._batch or self._next_batch()) is not None:
            self._batch = batch
            full = len(self.calls) > MAX_BACKLOG // 2
            if not self._put(batch) and not (full and self._storage.spill(batch)):
                return
            self._batch, self._written = None, batch.run
            done = max(0, done) + batch.calls
            if self._room.acquire(blocking=False):  # or a signal came to who holds it, and its handler waits for us
                self._room.notify_all()
                self._room.release()
        if done < 0 and not self._closing:
            self.calls.asleep = True
            if self._has_news():  # it came just before, so nobody rang
                self.calls.asleep = False

    def _put(self, batch: Batch, *, at_once: bool = False) -> bool:
        """Whether a batch is done with: one that can never be written must not hold up the others."""
        try:
            return self._storage.put(batch, at_once=at_once)
        except Exception as error:
            warn_once(f"this is a mistake in labbench, and {batch.calls} calls of log() are lost: {error!r}")
            return True

    def _has_news(self) -> bool:
        return bool(self._batch or self.calls or self.samples or self.printed or self.run is not self._written)

    def _next_batch(self) -> Batch | None:
        """Up to `MAX_BATCH` calls with everything else that is new; None where nothing is, and no heartbeat is due."""
        now = time.monotonic()
        if not self._has_news() and not (self.run.drives and now >= self._beaten + BEAT_SECONDS):
            return None
        self._beaten = now
        if self.run.drives and now >= self._asked + BEAT_SECONDS:
            self._asked = now
            if self._storage.asked_to_stop():
                self.stop_asked = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # as Ctrl-C, in a sleep too
        calls = _pop_up_to(self.calls, MAX_BATCH)
        forget_from = calls[0][0] if calls and self._forgets else None
        if calls:
            self.step, self._forgets = calls[-1][0], False
        points = self._columns.series(chain(calls, _pop_up_to(self.samples, MAX_BATCH)))
        run = self.run
        if run.status != "running" and self.calls:
            run = self._written  # the end comes last
        return Batch(
            run, points, _join_texts(_pop_up_to(self.printed, _MAX_PRINTED_CHARACTERS)), forget_from, len(calls)
        )

    def _end(self) -> None:
        """The last try for what is left."""
        while self._has_news() and (batch := self._batch or self._next_batch()) is not None:
            self._batch = batch
            if not self._put(batch, at_once=True) and not self._storage.spill(batch):
                self._lost += batch.calls + len(self.calls)
                break
            self._batch, self._written = None, batch.run
        if self._lost:
            warn(f"run {self.run.key}: {self._lost} calls of log() are lost, nothing could be written")


def _pop_up_to(queue: deque[Any], most: int) -> list[Any]:
    """What waits in a queue, oldest first; others may append meanwhile."""
    return [queue.popleft() for _ in range(min(most, len(queue)))]


def _join_texts(printed: Iterable[PrintedText]) -> list[PrintedText]:
    """Lines that one stream got one after another, as one text."""
    joined: list[PrintedText] = []
    for lines in printed:
        if joined and joined[-1].stream == lines.stream:
            joined[-1] = replace(joined[-1], text=f"{joined[-1].text}\n{lines.text}")
        else:
            joined.append(lines)
    return joined
