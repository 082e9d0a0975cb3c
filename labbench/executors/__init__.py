"""Executors train stacks, in this process or in worker processes, and yield their events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from labbench.records import Event, Stack


class Executor(Protocol):
    """Trains stacks and yields their events.

    It writes no database: that is the task of the caller.
    """

    def capacity(self) -> int:
        """Return the number of stacks that train at the same time."""

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        """Train every stack, taking the next one when a slot is free.

        Yields events as they arrive, and None after about a tenth of a second without one, so that the caller can do
        other work. Each run ends with exactly one `Finished` or `Failed`.
        """

    def stop(self, run: str) -> None:
        """Stop a run at its next boundary; it ends with `Finished(status="queued")`."""

    def interrupt(self) -> None:
        """Stop every run at its next boundary, and take no more stacks."""

    def close(self) -> None:
        """End all training immediately, and release processes and files."""
