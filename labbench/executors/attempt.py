"""Run a stack to its end: execute it, turn errors into events, split it where it fails."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace

from labbench.errors import LabbenchError, is_out_of_memory
from labbench.executors.command import run_command
from labbench.records import Event, Failed, FailureKind, Log, RunRecord, Stack
from labbench.train.active_runs import ActiveRuns, StopRequests


def train_with_retries(stack: Stack, device: str, stop_requests: StopRequests) -> Iterator[Event]:
    """Train the stack on `device`. Only a run that fails alone is `Failed`.

    Where several train together and something goes wrong, each half of those that have not ended is tried again from
    its last boundary. What they then measure again, they measure at the same steps, where the last word counts.
    Runs in `stop_requests` stop at their next boundary.
    """
    active = ActiveRuns(stack.runs)
    try:
        # torch costs more than a second and the driver never needs it
        from labbench.train.loop import train
        from labbench.train.tasks.import_context import imports_of
        from labbench.train.tasks.task import load_task

        with imports_of(stack.task):
            for event in train(stack, load_task(stack.task), device, stop_requests):
                active.update(event)
                yield event
    except (Exception, SystemExit) as error:  # a user's code may raise anything, and the other runs go on
        if len(active) == 1:
            (run,) = active
            yield Failed(run.key, run.attempt, failure_kind(error), error_summary(error), error_details(error))
            return
        if failure_kind(error) == "oom":
            run = next(iter(active))
            yield Log(run.key, run.attempt, f"memory ran out with {len(active)} runs at a time; now half of them\n")
    else:
        return
    runs = list(active)
    for half in (runs[: len(runs) // 2], runs[len(runs) // 2 :]):
        if half:
            yield from train_with_retries(sub_stack(stack, half), device, stop_requests)


def sub_stack(stack: Stack, runs: Sequence[RunRecord]) -> Stack:
    """The stack with these of its runs, as they stand now."""
    rows = {run.key: row for row, run in enumerate(stack.runs)}
    columns = {key: [values[rows[run.key]] for run in runs] for key, values in stack.columns.items()}
    return replace(stack, runs=tuple(runs), columns=columns)


def error_summary(error: BaseException) -> str:
    """The line that says what went wrong, the first of several."""
    words = str(error) if isinstance(error, LabbenchError) else traceback.format_exception_only(error)[-1]
    line = words.strip().partition("\n")[0].rstrip(":")
    return f"the task called sys.exit ({line}): raise an error instead" if isinstance(error, SystemExit) else line


def error_details(error: BaseException) -> str:
    """All there is to say: our own errors are written for people, and any other has its traceback."""
    return str(error) if isinstance(error, LabbenchError) else "".join(traceback.format_exception(error))


def failure_kind(error: BaseException) -> FailureKind:
    return "oom" if is_out_of_memory(error) else "user"


class Deadline:
    """The time limit of an attempt; None never passes."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() > self._end

    @property
    def message(self) -> str:
        return f"timed out after {self.seconds:g} s ([resources] timeout)"


def run_stack(stack: Stack, device: str, stop_requests: StopRequests) -> Iterator[Event | None]:
    """The events of the stack, one `Finished` or `Failed` for each run; None while nothing is to be said.

    Runs in `stop_requests` stop at their next boundary.
    """
    if stack.command is None:
        yield from train_with_retries(stack, device, stop_requests)
    else:
        for run in stack.runs:
            yield from run_command(run, stack.command, device, stop_requests)
