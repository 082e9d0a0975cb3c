"""Estimates of the training time: `--dry-run` measures one epoch of some stacks, a grid in training its progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

pytest.importorskip("torch")

from labbench.executors.in_process import InProcessExecutor
from labbench.records import Event, Failed, Finished, Points, RunRecord, Runtime, Stack, Started
from labbench.runner.estimate import TimeLeft, estimate_training, schedule_length
from labbench.runner.planner import make_stack


def stack(key: str, epochs: int, runs: int = 1, *, boundary: int = 0) -> Stack:
    config = {"epochs": epochs, "hidden": [4], "batch_size": 512}
    records = [
        RunRecord(i, f"{key}{i}", "run", "g", "queued", {**config, "seed": i}, boundary=boundary) for i in range(runs)
    ]
    return make_stack(records, task="digits", stop=None, runtime=Runtime(engine="loop"))


class RecordingExecutor(InProcessExecutor):
    """Executor in this process that keeps its events."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.events: list[Event] = []

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        for event in super().execute(stacks):
            if event is not None:
                self.events.append(event)
            yield event


class ScriptedExecutor(InProcessExecutor):
    """Executor whose runs take two seconds per epoch, as their events say."""

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        for each in stacks:
            for run in each.runs:
                yield Started(run.key, 1, "host", 1, "cpu")
                if run.key.startswith("bad"):
                    yield Failed(run.key, 1, "user", "an error")
                    continue
                yield Points(run.key, 1, "time/compute_s", [1], [0], [2.0])
                yield Finished(run.key, 1, "finished", "all epochs")


def test_each_sampled_run_trains_one_epoch_also_if_runs_train_one_by_one() -> None:
    executor = RecordingExecutor()
    estimate = estimate_training([stack(key, 50, runs=2, boundary=12) for key in "abcd"], executor)
    epochs = {event.run: max(event.values) for event in executor.events if getattr(event, "metric", "") == "epoch"}
    assert epochs == {"a0": 1, "a1": 1, "c0": 1, "c1": 1, "d0": 1, "d1": 1}
    assert estimate.seconds is not None


def test_the_estimate_counts_the_epochs_that_are_left() -> None:
    def seconds(stacks: list[Stack], done: dict[str, int]) -> float:
        estimate = estimate_training(stacks, ScriptedExecutor("cpu"), epochs_done=done).seconds
        assert estimate is not None
        return estimate

    whole = seconds([stack("a", 200), stack("b", 200)], {})
    assert whole - seconds([stack("a", 200), stack("b", 200)], {"a0": 150, "b0": 150}) == pytest.approx(600, rel=0.1)
    assert whole - seconds([stack("a", 200)], {}) == pytest.approx(400, rel=0.1)


def test_the_stages_of_a_search_train_one_after_another() -> None:
    stacks = [stack(key, 100, runs=4) for key in "ab"]
    full = estimate_training(stacks, ScriptedExecutor("cpu")).seconds
    stages = [(8.0, 10), (2.0, 90)]
    search = estimate_training(stacks, ScriptedExecutor("cpu"), stages=stages).seconds
    assert full is not None
    assert search is not None
    assert full - search == pytest.approx(2.0 * (800 - 8 * 10 - 2 * 90), rel=0.1)


def test_stacks_that_fail_are_not_estimated() -> None:
    estimate = estimate_training([stack("bad", 2)], ScriptedExecutor("cpu"))
    assert estimate.seconds is None
    assert [failure.message for failure in estimate.failures] == ["an error"]
    assert estimate_training([stack("bad", 2), stack("a", 2)], ScriptedExecutor("cpu")).seconds is not None


@pytest.mark.parametrize(
    ("durations", "workers", "expected"),
    [([3, 2, 2], 1, 7), ([3, 2, 2], 2, 4), ([3, 2, 2], 5, 3), ([4, 1, 1, 1], 2, 4)],
)
def test_a_worker_takes_the_next_stack_when_it_is_free(durations: list[float], workers: int, expected: float) -> None:
    assert schedule_length(durations, workers) == expected


def test_the_time_left_is_estimated_from_the_progress_without_the_start_of_the_processes() -> None:
    time_left = TimeLeft()
    assert time_left.estimate(0.0, 0.0) is None
    assert time_left.estimate(20.0, 0.001) is None  # the first progress
    assert time_left.estimate(22.0, 0.1) is None
    assert time_left.estimate(30.0, 0.201) == 10 * 0.799 / 0.2
    assert time_left.estimate(70.0, 1.0) is None


def test_slow_work_has_an_estimate_after_a_minute() -> None:
    time_left = TimeLeft()
    time_left.estimate(0.0, 0.001)
    assert time_left.estimate(59.0, 0.002) is None
    assert time_left.estimate(60.0, 0.002) == 60 * 0.998 / 0.001
