"""The stack that takes longest is next, by the epochs that have been measured so far."""

from __future__ import annotations

from typing import Any

from labbench.params.param import TRAINING, Param
from labbench.records import Points, RunRecord, Stack
from labbench.runner.planner import StackSettings, plan_stacks
from labbench.runner.stack_queue import COMPUTE_SECONDS, EpochTimes, StackQueue

PARAMS = {**TRAINING, "width": Param("int", 8)}


def stacks_of(*configs: dict[str, Any]) -> list[Stack]:
    """Return a stack of one run for each config, as planned."""
    runs = [RunRecord(i, f"run{i}", f"run {i}", "e", "queued", config) for i, config in enumerate(configs)]
    return plan_stacks(runs, StackSettings("mine.py:Task"), params=PARAMS, workers=len(runs))


def widths(stacks: list[Stack]) -> list[int]:
    return [stack.runs[0].config["width"] for stack in stacks]


def epochs(run: str, *seconds: float) -> Points:
    return Points(run, 1, COMPUTE_SECONDS, list(range(len(seconds))), [0] * len(seconds), list(seconds))


def test_without_measurements_the_order_is_the_planned_one() -> None:
    stacks = stacks_of({"width": 1, "epochs": 5}, {"width": 2, "epochs": 9}, {"width": 3, "epochs": 7})
    assert widths(list(StackQueue(stacks, EpochTimes(PARAMS)))) == [2, 3, 1]


def test_the_longest_by_measured_seconds_is_next() -> None:
    stacks = stacks_of(*[{"width": width, "epochs": epochs} for width in (1, 2) for epochs in (10, 9, 8)])
    times = EpochTimes(PARAMS)
    queue = iter(StackQueue(stacks, times))
    first, second = next(queue), next(queue)
    assert widths([first, second]) == [1, 2]
    times.add_event(epochs(first.runs[0].key, 1.0, 2.0))
    times.add_event(epochs(second.runs[0].key, 30.0, 60.0))
    times.add_event(Points(first.runs[0].key, 1, "val/loss", [0], [0], [1e9]))
    assert widths(list(queue)) == [2, 2, 1, 1]
    rest = [stack for stack in stacks if stack not in (first, second)]
    assert sorted(map(times.estimate, rest)) == [8.0, 9.0, 240.0, 270.0]


def test_stacks_of_unmeasured_structures_are_estimated_by_their_cost() -> None:
    stacks = stacks_of({"width": 1, "epochs": 10}, {"width": 2, "epochs": 5})
    times = EpochTimes(PARAMS)
    times.begin(stacks[0])
    times.add_event(epochs(stacks[0].runs[0].key, 2.0))
    assert times.estimate(stacks[1]) == 10.0


def test_a_resumed_run_is_measured_from_its_second_epoch_on() -> None:
    run = RunRecord(1, "run", "", "e", "queued", {"width": 1, "epochs": 10}, boundary=100)
    (stack,) = plan_stacks([run], StackSettings("mine.py:Task"), params=PARAMS)
    times = EpochTimes(PARAMS)
    times.begin(stack)
    times.add_event(epochs("run", 500.0, 503.0))
    assert times.estimate(stack) == 30.0
