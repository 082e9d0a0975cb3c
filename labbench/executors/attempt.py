"""One try at a stack: the edge where an error of a task, a model or the trainer becomes an event."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Set

from labbench.records import Event, Failed, FailureKind, Finished, Stack


def attempt(stack: Stack, device: str, leaving: Set[str]) -> Iterator[Event]:
    """Train the stack on `device`; whatever goes wrong is a `Failed` for every run that had not ended.

    `leaving` holds the keys of runs that shall leave at their next boundary; the caller may add to it meanwhile.
    """
    attempts = {run.key: run.attempt for run in stack.runs}
    try:
        # torch costs more than a second and the driver never needs it
        from labbench.train.loop import train
        from labbench.train.tasks import load_task

        for event in train(stack, load_task(stack.task), device, leaving=leaving):
            if isinstance(event, Finished | Failed):
                attempts.pop(event.run, None)
            yield event
    except Exception as error:  # a user's code may raise anything, and the other runs go on
        kind: FailureKind = (
            "oom" if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" else "user"
        )
        message = traceback.format_exception_only(error)[-1].strip()
        story = traceback.format_exc()
        for run, number in attempts.items():
            yield Failed(run, number, kind, message, story)


class Deadline:
    """The time limit of an attempt; None never passes."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def passed(self) -> bool:
        return self._end is not None and time.monotonic() > self._end

    @property
    def message(self) -> str:
        return f"timed out after {self.seconds:g} s ([resources] timeout)"
