"""Where stacks run. An executor takes stacks as it has room for them and gives back their events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from labbench.records import Event, Stack


class Executor(Protocol):
    """A place where stacks are trained. It writes no database: whoever iterates decides what to do."""

    def capacity(self) -> int:
        """How many stacks it trains at a time."""

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        """Train every stack, taking the next one only when there is room for it.

        Yields events as they come, and None when nothing has happened for a tenth of a second or so, so that the
        caller can see to other things. A run that ends always yields one `Finished` or `Failed`.
        """

    def stop(self, run: str) -> None:
        """Let a run leave at its next boundary; it then yields `Finished(status="queued")`."""

    def interrupt(self) -> None:
        """Let every run leave at its next boundary, and take no more stacks."""

    def close(self) -> None:
        """End at once whatever still trains, and give everything back."""
