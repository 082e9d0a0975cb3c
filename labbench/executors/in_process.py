"""Training in this very process (`--workers 0`): the simplest executor, and the one to debug a task with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labbench.executors.attempt import run_stack
from labbench.records import Event, Failed, Finished, Stack


class InProcessExecutor:
    """One stack after another, here. Nothing can end a run that hangs, so there is no timeout."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._training: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._interrupted = False

    def capacity(self) -> int:
        return 1

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        for stack in stacks:
            yield from self._train(stack)
            if self._interrupted:
                return

    def _train(self, stack: Stack) -> Iterator[Event | None]:
        self._leaving = set()
        self._training = {run.key: run.attempt for run in stack.runs}
        for event in run_stack(stack, self.device, self._leaving):
            if isinstance(event, Finished | Failed):
                del self._training[event.run]
            yield event

    def stop(self, run: str) -> None:
        self._leaving.add(run)

    def interrupt(self) -> None:
        self._interrupted = True
        self._leaving.update(self._training)

    def close(self) -> None:
        """Nothing to end: what trains here has ended when `execute` returns."""
