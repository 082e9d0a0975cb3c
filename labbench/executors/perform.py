"""What it takes to get the results of a stack: its task is trained here, a command is started and followed."""

from __future__ import annotations

from collections.abc import Iterator, Set

from labbench.executors.attempt import attempt
from labbench.executors.command import run_command
from labbench.records import Event, Stack


def perform(stack: Stack, device: str, leaving: Set[str]) -> Iterator[Event | None]:
    """The events of the stack, one `Finished` or `Failed` for each run; None while nothing is to be said.

    `leaving` holds the keys of runs that shall leave at their next boundary; the caller may add to it meanwhile.
    """
    if stack.command is None:
        yield from attempt(stack, device, leaving)
    else:
        for run in stack.runs:
            yield from run_command(run, stack.command, device, leaving)
