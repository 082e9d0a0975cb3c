"""Attempt at a stack: train it, and turn errors into events."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from labbench.errors import DeviceLost
from labbench.executors.command import run_command
from labbench.records import Event, RunRecord, Stack
from labbench.train.active_runs import ActiveRuns, StopRequests
from labbench.train.failures import Failure


def train_attempt(stack: Stack, device: str, stop_requests: StopRequests) -> Iterator[Event]:
    """Train the stack on `device` and yield its events.

    An error that concerns all runs, such as a task that cannot be imported, is the end of each run that has not ended.
    Runs in `stop_requests` stop at their next boundary.

    Raises:
        DeviceLost: The GPU failed; the runs that have not ended can train in another process.
    """
    active = ActiveRuns(stack.runs)
    try:
        # imported here: torch takes more than a second, and the driver never needs it
        from labbench.train.loop import train
        from labbench.train.tasks.import_context import imports_of
        from labbench.train.tasks.task import load_task

        with kept_folder(), imports_of(stack.task):
            for event in train(stack, load_task(stack.task), device, stop_requests):
                active.update(event)
                yield event
    except DeviceLost:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        yield from Failure.from_error(list(active), error).events()


@contextmanager
def kept_folder() -> Iterator[None]:
    """Restore the current folder after the block: a task may change to the folder of its data."""
    folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
    try:
        yield
    finally:
        os.fchdir(folder)
        os.close(folder)


def sub_stack(stack: Stack, runs: Sequence[RunRecord]) -> Stack:
    """Return the stack restricted to these of its runs, at their current boundaries."""
    rows = {run.key: row for row, run in enumerate(stack.runs)}
    columns = {key: [values[rows[run.key]] for run in runs] for key, values in stack.columns.items()}
    return replace(stack, runs=tuple(runs), columns=columns)


def run_stack(stack: Stack, device: str, stop_requests: StopRequests) -> Iterator[Event | None]:
    """Train a stack, or start its script for each run, and yield events.

    Each run ends with one `Finished` or `Failed`. Yields None about every 0.1 s while a script prints nothing. Runs in
    `stop_requests` stop at their next boundary.

    Raises:
        DeviceLost: The GPU failed; the runs that have not ended can train in another process.
    """
    if stack.command is None:
        yield from train_attempt(stack, device, stop_requests)
    else:
        for run in stack.runs:
            yield from run_command(run, stack.command, device, stop_requests)
