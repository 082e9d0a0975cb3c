"""`run.log`: what the training thread does for a call, and all that it does.

It is a closure, not a method. Between two calls a training step has filled the CPU's caches with other things, so what
costs is not the work but every object that is looked at: in a closure all of them stand side by side, which makes a
call after a training step a third cheaper than one that goes through `self` and globals. Measured in bench/log_cost.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from time import monotonic_ns
from typing import Any, Protocol

from labbench.errors import InputError
from labbench.tracking.values import MAX_STEP, flatten_metrics, to_step
from labbench.tracking.writer_thread import MAX_BACKLOG, RunWriterThread


class LogFunction(Protocol):
    """What `run.log` is."""

    def __call__(self, metrics: Mapping[str, Any], step: int | None = None, epoch: float | None = None) -> None: ...


def make_log(recorder: RunWriterThread, first_step: int) -> LogFunction:
    """The `log` of a run whose steps are counted from `first_step` where they are not given."""
    calls = recorder.calls
    append, waiting, limit = calls.append, calls.__len__, MAX_BACKLOG
    clock, plain, kind = monotonic_ns, float, type
    next_step = count(first_step).__next__
    last_step = first_step - 1

    def log(metrics: Mapping[str, Any], step: int | None = None, epoch: float | None = None) -> None:
        """Record numbers by name. Nested dicts are joined with `/`.

        A value is a number, or anything of one element with `.item()`; one on a GPU is fetched by the writer's thread,
        so that this does not wait for the GPU. Without `step`, steps count up by one a call, from 0 or from the last
        one given. A step may come again, or go back: what is logged last for a metric at a step is kept. `epoch` is
        logged as a metric of that name.

        Raises InputError, with nothing recorded, for a value that is not a number or a step that is no whole one.
        """
        nonlocal next_step, last_step
        try:
            numbers = {**metrics}
        except TypeError:
            raise InputError(f"run.log takes a dict of numbers by name, not {type(metrics).__name__}") from None
        for key in numbers:
            if kind(numbers[key]) is not plain:
                numbers = flatten_metrics(numbers)
                break
        if epoch is not None:
            numbers |= flatten_metrics({"epoch": epoch})
        if step is None:
            step = next_step()
        else:
            if kind(step) is not int or not -MAX_STEP <= step <= MAX_STEP:
                step = to_step(step)
            last_step, next_step = step, count_on
        append((step, clock(), numbers))
        if calls.asleep:
            recorder.wake()
        if waiting() > limit:
            recorder.make_room()

    def count_on() -> int:
        """The step behind the last one that was given, from which they are counted again."""
        nonlocal next_step
        next_step = count(last_step + 1).__next__
        return next_step()

    return log
