"""Queue of the stacks of a grid: the one that takes longest is next, so that all workers end at about the same time.

Longest processing time first (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969). Times are estimated from the
epochs that the grid's runs have trained so far.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from labbench.params.param import Params, with_defaults
from labbench.records import Event, Points, RunRecord, Stack
from labbench.runner.planner import relative_cost, shared_values

COMPUTE_SECONDS = "time/compute_s"
"""Metric with a run's share of the compute time of its stacks, at the end of each epoch."""


@dataclass
class _Measurement:
    """Epochs that runs of one structure have trained."""

    seconds: float = 0.0
    epochs: int = 0
    cost: float = 0.0
    """Relative cost of these epochs."""


class EpochTimes:
    """Measured seconds per epoch of the runs of a grid."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._structures: dict[str, Hashable] = {}
        self._epoch_costs: dict[str, float] = {}
        self._last_seconds: dict[str, float] = {}
        self._measured: dict[Hashable, _Measurement] = {}

    def begin(self, stack: Stack) -> None:
        """Measure the runs of a stack from now on."""
        epoch_cost = relative_cost(stack, self._params) / self._epochs(stack)
        for run in stack.runs:
            self._structures[run.key] = shared_values(run, self._params)
            self._epoch_costs[run.key] = epoch_cost
            if not run.boundary:
                self._last_seconds[run.key] = 0.0

    def add_event(self, event: Event) -> None:
        """Add the epochs whose times are in the event."""
        if not isinstance(event, Points) or event.metric != COMPUTE_SECONDS or event.run not in self._structures:
            return
        measurement = self._measured.setdefault(self._structures[event.run], _Measurement())
        for seconds in event.values:
            last = self._last_seconds.get(event.run)
            self._last_seconds[event.run] = seconds
            if last is not None and seconds >= last:  # the first time of a resumed run includes its earlier epochs
                measurement.seconds += seconds - last
                measurement.epochs += 1
                measurement.cost += self._epoch_costs[event.run]

    def estimate(self, stack: Stack) -> float:
        """Return the seconds that a stack takes; only relative to other stacks, as long as nothing is measured."""
        alike = self._measured.get(shared_values(stack.runs[0], self._params))
        if alike is not None and alike.epochs:
            return alike.seconds / alike.epochs * self._epochs(stack)
        cost = relative_cost(stack, self._params)
        total_cost = sum(each.cost for each in self._measured.values())
        return cost * sum(each.seconds for each in self._measured.values()) / total_cost if total_cost else cost

    def _epochs(self, stack: Stack) -> float:
        """Return the number of epochs of all runs of a stack."""
        return sum(float(_epochs_of(run, self._params)) for run in stack.runs)


class StackQueue:
    """Stacks to train, the longest first by the estimate at the time when one is taken."""

    def __init__(self, stacks: Sequence[Stack], times: EpochTimes) -> None:
        self._stacks, self._times = list(stacks), times

    def __iter__(self) -> Iterator[Stack]:
        while self._stacks:
            longest = max(self._stacks, key=self._times.estimate)  # of equal ones the first, as planned
            self._stacks.remove(longest)
            self._times.begin(longest)
            yield longest


def _epochs_of(run: RunRecord, params: Params) -> int:
    epochs: int = with_defaults(run.config, params).get("epochs", 1)
    return epochs
