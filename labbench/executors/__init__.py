"""Training of stacks: in this process, in worker processes, or in jobs of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from labbench.records import Event, Stack


class Executor(Protocol):
    """Trains stacks and yields their events; recording them is up to the caller."""

    is_in_batch: bool = False
    """True while events are yielded that must be recorded in one transaction."""

    def capacity(self) -> int:
        """Return the number of stacks that train at the same time."""

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        """Train every stack, taking the next one when a slot is free.

        Yields events as they arrive, and None after about 0.1 s without one, so that the caller can do other work. Each
        run ends with exactly one `Finished` or `Failed`.
        """

    def stop(self, run: str) -> None:
        """Stop a run at its next boundary; it ends with `Finished(status="queued")`."""

    def interrupt(self) -> None:
        """Stop every run at its next boundary, and take no more stacks."""

    def acknowledge(self, events: Sequence[Event]) -> None:
        """Take note that these events are in the database."""
        return

    def close(self) -> None:
        """End all training immediately, and release processes and files."""
