"""Executor that trains in this process (`--workers 0`), for instance to debug a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labbench.errors import DeviceLost
from labbench.executors import Executor
from labbench.executors.attempt import run_stack
from labbench.records import Event, Stack
from labbench.train.active_runs import ActiveRuns, StopRequests
from labbench.train.failures import Failure


class InProcessExecutor(Executor):
    """Trains one stack after another in this process.

    A run that hangs cannot be ended, so timeouts are not supported.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._active = ActiveRuns()
        self._stop_requests = StopRequests()
        self._interrupted = False

    def capacity(self) -> int:
        return 1

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        for stack in stacks:
            yield from self._train(stack)
            if self._interrupted:
                return

    def _train(self, stack: Stack) -> Iterator[Event | None]:
        self._stop_requests = StopRequests()
        self._active = ActiveRuns(stack.runs)
        try:
            for event in run_stack(stack, self.device, self._stop_requests):
                if event is not None:
                    self._active.update(event)
                yield event
        except DeviceLost as error:  # no other process can take the runs over
            yield from Failure.from_error(list(self._active), error).events()

    def stop(self, run: str) -> None:
        self._stop_requests.request([run])

    def interrupt(self) -> None:
        self._interrupted = True
        self._stop_requests.request(self._active.keys)

    def close(self) -> None:
        """No-op: all training has ended when `execute` returns."""
