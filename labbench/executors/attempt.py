"""Training of one stack: errors become events, and a stack that fails is retried in halves."""

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
    """Train the stack on `device` and yield its events.

    If a stack of several runs fails, each half of its unfinished runs is retried from its last boundary, until the run
    that fails is alone; only that run is `Failed`. Of a step that is measured twice, the later value counts. Runs in
    `stop_requests` stop at their next boundary.
    """
    active = ActiveRuns(stack.runs)
    try:
        # imported here: torch takes more than a second, and the driver never needs it
        from labbench.train.loop import train
        from labbench.train.tasks.import_context import imports_of
        from labbench.train.tasks.task import load_task

        with imports_of(stack.task):
            for event in train(stack, load_task(stack.task), device, stop_requests):
                active.update(event)
                yield event
    except (Exception, SystemExit) as error:  # a user's code may raise anything; the other runs continue
        if len(active) == 1:
            (run,) = active
            yield Failed(run.key, run.attempt, failure_kind(error), error_summary(error), error_details(error))
            return
        if failure_kind(error) == "oom":
            run = next(iter(active))
            yield Log(run.key, run.attempt, f"out of memory with {len(active)} runs in the stack; retrying in halves\n")
    else:
        return
    runs = list(active)
    for half in (runs[: len(runs) // 2], runs[len(runs) // 2 :]):
        if half:
            yield from train_with_retries(sub_stack(stack, half), device, stop_requests)


def sub_stack(stack: Stack, runs: Sequence[RunRecord]) -> Stack:
    """Return the stack restricted to these of its runs, at their current boundaries."""
    rows = {run.key: row for row, run in enumerate(stack.runs)}
    columns = {key: [values[rows[run.key]] for run in runs] for key, values in stack.columns.items()}
    return replace(stack, runs=tuple(runs), columns=columns)


def error_summary(error: BaseException) -> str:
    """Return the first line of the error's message."""
    message = str(error) if isinstance(error, LabbenchError) else traceback.format_exception_only(error)[-1]
    line = message.strip().partition("\n")[0].rstrip(":")
    return f"the task called sys.exit ({line}): raise an error instead" if isinstance(error, SystemExit) else line


def error_details(error: BaseException) -> str:
    """Return the message of a labbench error, else the traceback."""
    return str(error) if isinstance(error, LabbenchError) else "".join(traceback.format_exception(error))


def failure_kind(error: BaseException) -> FailureKind:
    """Return "oom" if the error is an out-of-memory error, else "user"."""
    return "oom" if is_out_of_memory(error) else "user"


class Deadline:
    """Time limit of an attempt in seconds; None means no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def is_over(self) -> bool:
        """Return True if the time limit has passed."""
        return self._end is not None and time.monotonic() > self._end

    @property
    def message(self) -> str:
        """Error message of a run that exceeded the limit."""
        return f"timed out after {self.seconds:g} s ([resources] timeout)"


def run_stack(stack: Stack, device: str, stop_requests: StopRequests) -> Iterator[Event | None]:
    """Train a stack, or start its script for each run, and yield events.

    Each run ends with one `Finished` or `Failed`. Yields None about every 0.1 s while a script prints nothing. Runs in
    `stop_requests` stop at their next boundary.
    """
    if stack.command is None:
        yield from train_with_retries(stack, device, stop_requests)
    else:
        for run in stack.runs:
            yield from run_command(run, stack.command, device, stop_requests)
