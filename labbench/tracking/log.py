"""`run.log`: all the work that the training thread does per log call.

`log` is a closure, not a method. Between two calls a training step fills the CPU's caches with other data, so a call
costs as much as the cache misses of the objects it accesses. The variables of a closure lie side by side, which makes a
call a third cheaper than access through `self` and globals. Measured in bench/log_cost.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from time import monotonic_ns
from typing import Any, Protocol

from labbench.tracking.batching import MAX_BACKLOG
from labbench.tracking.values import MAX_STEP, flatten_metrics, to_numbers, to_step
from labbench.tracking.writer_thread import RunWriterThread


class LogFunction(Protocol):
    """Signature of `run.log`."""

    def __call__(
        self, metrics: Mapping[str, Any], step: int | None = None, epoch: float | None = None, commit: bool = True
    ) -> None: ...


def make_log(writer_thread: RunWriterThread, first_step: int) -> LogFunction:
    """Return the `log` function of a run.

    Without a `step`, calls are counted from `first_step`.
    """
    calls = writer_thread.calls
    append, waiting, limit = calls.append, calls.__len__, MAX_BACKLOG
    clock, plain, kind = monotonic_ns, float, type
    problems = writer_thread.problems
    next_step = count(first_step).__next__
    last_step = first_step - 1

    def log(
        metrics: Mapping[str, Any], step: int | None = None, epoch: float | None = None, commit: bool = True
    ) -> None:
        """Record numbers by name.

        A training never stops because of a call: everything else is left out, with a warning once per key.

        Args:
            metrics: Numbers by metric name; nested dicts are joined with `/`. A value is a number or a one-element
                tensor or array (anything with `.item()`). The writer thread fetches a value on a GPU, so that `log`
                does not wait for the GPU.
            step: A whole number. Defaults to the step of the previous call plus 1, starting at 0. Steps may repeat or
                decrease: the last value logged for a metric at a step wins.
            epoch: Recorded as the metric `epoch`.
            commit: False to record the next call at the same step, as with W&B.

        Raises:
            InputError: In a strict run (`start(strict=True)`), if a value is not a number, the step is not a whole
                number or the run has ended. Nothing is recorded.
        """
        nonlocal next_step, last_step
        try:
            numbers = {**metrics}
        except Exception:  # a mapping of another library may raise anything
            to_numbers(metrics, problems)
            return
        for key in numbers:
            if kind(numbers[key]) is not plain:
                numbers = flatten_metrics(numbers, problems)
                break
        if epoch is not None:
            numbers |= flatten_metrics({"epoch": epoch}, problems)
        if step is None:
            step = next_step()
        else:
            if kind(step) is not int or not -MAX_STEP <= step <= MAX_STEP:
                step = to_step(step, problems)
                if step is None:
                    step = next_step()
            last_step, next_step = step, count_on
        if not commit:
            last_step, next_step = step - 1, count_on
        append((step, clock(), numbers))
        if calls.asleep and not writer_thread.wake():
            writer_thread.report_end()
        if waiting() > limit:
            writer_thread.make_room()

    def count_on() -> int:
        """Return the step after the last explicit one, and continue counting from there."""
        nonlocal next_step
        next_step = count(last_step + 1).__next__
        return next_step()

    return log
