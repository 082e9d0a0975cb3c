"""Contract of executors: tests that every executor passes, whatever trains the stacks.

A test file subclasses `ExecutorContract` with a fixture `make_executor`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from labbench.executors import Executor
from labbench.executors.attempt import train_attempt
from labbench.records import Boundary, Event, Failed, Finished, Points, RunRecord, Runtime, Stack, Started
from labbench.runner.planner import make_stack
from labbench.train.active_runs import StopRequests


class MakeExecutor(Protocol):
    """Function that returns a new executor."""

    def __call__(self, *, timeout: float | None = None) -> Executor:
        """`timeout` is the time limit of one attempt of a run in seconds."""


UNRULY = """
import ctypes, gc, os, struct, sys, time
from multiprocessing.connection import Connection
import torch
from labbench.params import Param
from labbench.train.data import Data

def writable_connections():
    return [each for each in gc.get_objects() if type(each) is Connection and not each.closed and each.writable]

class Task:
    params = {"behaviour": Param("str", "good")}

    def data(self, config):
        if config["behaviour"] == "hang in data":
            time.sleep(600)
        inputs = torch.randn(64, 4)
        targets = (inputs.sum(dim=1) > 0).long()
        return Data(train=(inputs, targets), val=(inputs, targets))

    def model(self, config):
        match config["behaviour"]:
            case "raise":
                raise ValueError("no such layer")
            case "sys.exit":
                sys.exit(3)
            case "ctrl-c":
                raise KeyboardInterrupt
            case "exit":
                print("leaving now", flush=True)
                os._exit(3)
            case "crash":
                ctypes.string_at(0)
            case "hang":
                time.sleep(600)
            case "slow":
                time.sleep(0.5)
                print("still loading", flush=True)
            case "real-time signal":
                os.kill(os.getpid(), 40)
            case "half a message":
                for connection in writable_connections():
                    os.write(connection.fileno(), struct.pack("!i", 100_000) + b"half a message")
                    os.kill(os.getpid(), 9)
            case "no messages":
                for connection in writable_connections():
                    os.write(connection.fileno(), struct.pack("!i", 9) + b"no pickle")
                    time.sleep(600)
            case "fork":
                if os.fork() == 0:  # it keeps the connection open
                    os.setsid()
                    time.sleep(20)
                os._exit(3)
            case "print":
                print("hello from the model")
        return torch.nn.Linear(4, 2)
"""


GREEDY = """
import torch
from torch import nn
from labbench.params import Param
from labbench.train.data import Data

class Greedy(nn.Module):
    def __init__(self, greed):
        super().__init__()
        self.linear, self.greed = nn.Linear(4, 2), greed

    def forward(self, inputs):
        torch.empty(self.greed)  # more memory than exists, in one of the runs
        return self.linear(inputs)

class Task:
    params = {"greed": Param("int", 1)}

    def data(self, config):
        inputs = torch.randn(64, 4)
        return Data(train=(inputs, (inputs[:, 0] > 0).long()), val=(inputs, (inputs[:, 0] > 0).long()))

    def model(self, config):
        return Greedy(config["greed"])
"""


def stacks_of(tmp_path: Path, *behaviours: str, epochs: int = 1) -> list[Stack]:
    """Return one stack of the unruly task per behaviour."""
    file = tmp_path / "unruly.py"
    file.write_text(UNRULY)
    runs = [
        RunRecord(i, f"run{i}", behaviour, "unruly", "running", {"behaviour": behaviour, "epochs": epochs})
        for i, behaviour in enumerate(behaviours)
    ]
    return [make_stack([run], task=f"{file}:Task", stop=None, runtime=Runtime()) for run in runs]


def joined(stacks: Iterable[Stack], *, runtime: Runtime | None = None, files: Path | None = None) -> Stack:
    """Return one stack of the runs of several stacks."""
    stacks = list(stacks)
    runs = [run for stack in stacks for run in stack.runs]
    folder = None if files is None else str(files)
    return make_stack(runs, task=stacks[0].task, stop=None, runtime=runtime or Runtime(), files=folder)


def ends(events: Iterable[Event | None]) -> dict[str, Finished | Failed]:
    """Return the last event of each run, and assert that it ended once."""
    last: dict[str, Finished | Failed] = {}
    for event in events:
        if isinstance(event, Finished | Failed):
            assert event.run not in last, f"{event.run} ended twice"
            last[event.run] = event
    return last


def points_of(events: Iterable[Event | None]) -> Counter[tuple[str, str, int, float]]:
    """Return the number of times that each (run, metric, step, value) was reported, without measured times."""
    return Counter(
        (event.run, event.metric, step, value)
        for event in events
        if isinstance(event, Points) and not event.metric.startswith("time/")
        for step, value in zip(event.steps, event.values, strict=True)
    )


def require_order(events: Iterable[Event | None]) -> None:
    """Assert the order of each run's events: `Started`, rising steps, one end, and nothing after it."""
    started: set[str] = set()
    ended: set[str] = set()
    last_steps: dict[tuple[str, str], int] = {}
    for event in filter(None, events):
        assert event.run not in ended, f"{event} after the end of the run"
        match event:
            case Started(run=run):
                started.add(run)
            case Points(run=run, metric=metric, steps=steps):
                assert run in started
                rising = [last_steps.get((run, metric), -1), *steps]
                assert rising == sorted(set(rising))
                last_steps[run, metric] = steps[-1]
            case Boundary(run=run, step=step):
                assert step >= max(last_steps[key] for key in last_steps if key[0] == run)
            case Finished(run=run) | Failed(run=run):
                ended.add(run)


class ExecutorContract:
    """Tests of an executor; its tasks are small and need no data."""

    survives_crashes = True
    """False for an executor that trains in this process."""

    def test_every_point_of_every_run_arrives_once_in_order(self, make_executor: MakeExecutor, tmp_path: Path) -> None:
        stacks = stacks_of(tmp_path, "good", "print", epochs=3)
        wide = joined(stacks_of(tmp_path, *["good"] * 3, epochs=3), runtime=Runtime(precision="float64"))
        wide = replace(wide, runs=tuple(replace(run, key=f"wide{run.id}") for run in wide.runs))
        expected = [event for stack in (*stacks, wide) for event in train_attempt(stack, "cpu", StopRequests())]
        with closing(make_executor()) as executor:
            events = list(executor.execute([*stacks, wide]))
        require_order(events)
        assert {run: type(event) for run, event in ends(events).items()} == dict.fromkeys(
            ["run0", "run1", "wide0", "wide1", "wide2"], Finished
        )
        assert points_of(events) == points_of(expected)
        assert set(points_of(events).values()) == {1}

    def test_a_task_that_raises_fails_alone(self, make_executor: MakeExecutor, tmp_path: Path) -> None:
        with closing(make_executor()) as executor:
            last = ends(executor.execute([joined(stacks_of(tmp_path, "good", "raise", "sys.exit", "good"))]))
        assert {run: type(event) for run, event in last.items()} == {
            "run0": Finished,
            "run1": Failed,
            "run2": Failed,
            "run3": Finished,
        }
        raised, exited = last["run1"], last["run2"]
        assert isinstance(raised, Failed)
        assert isinstance(exited, Failed)
        assert raised.kind == "user"
        assert raised.message.startswith("ValueError: no such layer (unruly.py:")
        assert "in model" in raised.traceback
        assert exited.message == "the task called sys.exit (SystemExit: 3): raise an error instead"

    def test_an_interrupt_stops_runs_at_a_boundary_from_which_they_resume(
        self, make_executor: MakeExecutor, tmp_path: Path
    ) -> None:
        files = tmp_path / "runs.db.files"
        runtime = Runtime(precision="float64", log_every=1, snapshot_every=3600)
        stacks = [
            joined([stack], runtime=runtime, files=files)
            for stack in stacks_of(tmp_path, *["good"] * 5, epochs=100_000)
        ]
        events: list[Event] = []
        with closing(make_executor()) as executor:
            for event in executor.execute(stacks):
                if isinstance(event, Points):
                    executor.interrupt()
                if event is not None:
                    events.append(event)
        require_order(events)
        last, boundaries = ends(events), {event.run: event.step for event in events if isinstance(event, Boundary)}
        trained = {event.run for event in events if isinstance(event, Points)}
        assert {event.status for event in last.values() if isinstance(event, Finished)} == {"queued"}
        assert 1 <= len(trained) < 5 or len(last) == 5
        assert trained <= boundaries.keys()
        run = min(trained)
        [stack] = [stack for stack in stacks if stack.runs[0].key == run]
        record = stack.runs[0]
        epochs = boundaries[run] // 1 + 3  # one step per epoch
        resumed = make_stack(
            [replace(record, boundary=boundaries[run], way="loop", config={**record.config, "epochs": epochs})],
            task=stack.task, stop=None, runtime=runtime, files=str(files),
        )  # fmt: skip
        with closing(make_executor()) as executor:
            events += [event for event in executor.execute([resumed]) if event is not None]
        whole = make_stack(
            [replace(record, config={**record.config, "epochs": epochs})], task=stack.task, stop=None, runtime=runtime
        )
        expected = points_of(train_attempt(whole, "cpu", StopRequests()))
        reported = Counter({point: n for point, n in points_of(events).items() if point[0] == run})
        missing, extra = expected - reported, reported - expected
        assert not missing, f"{sum(missing.values())} points are missing: {sorted(missing)[:5]}"
        assert not extra, f"{sum(extra.values())} points are reported twice or wrong: {sorted(extra)[:5]}"

    def test_one_run_is_stopped_and_the_others_continue(self, make_executor: MakeExecutor, tmp_path: Path) -> None:
        long, *short = stacks_of(tmp_path, "good", "x", "y", epochs=1)
        long = joined([replace(long, runs=(replace(long.runs[0], config={**long.runs[0].config, "epochs": 10**6}),))])
        events: list[Event] = []
        with closing(make_executor()) as executor:
            for event in executor.execute([long, *short]):
                if isinstance(event, Points) and event.run == "run0":
                    executor.stop("run0")
                if event is not None:
                    events.append(event)
        assert {run: event.status for run, event in ends(events).items() if isinstance(event, Finished)} == {
            "run0": "queued",
            "run1": "finished",
            "run2": "finished",
        }

    def test_a_run_out_of_memory_fails_as_oom_and_the_others_of_its_stack_finish(
        self, make_executor: MakeExecutor, tmp_path: Path
    ) -> None:
        file = tmp_path / "greedy.py"
        file.write_text(GREEDY)
        configs = [{"seed": seed, "epochs": 1, "greed": 2**50 if seed == 1 else 1} for seed in range(3)]
        runs = [RunRecord(seed, f"run{seed}", "", "greedy", "running", config) for seed, config in enumerate(configs)]
        with closing(make_executor()) as executor:
            stack = make_stack(runs, task=f"{file}:Task", stop=None, runtime=Runtime())
            ended = ends(executor.execute([stack])).values()
        assert [event.kind for event in ended if isinstance(event, Failed)] == ["oom"]
        assert sorted(event.run for event in ended if isinstance(event, Finished)) == ["run0", "run2"]

    def test_a_run_that_kills_its_process_fails_alone(self, make_executor: MakeExecutor, tmp_path: Path) -> None:
        if not self.survives_crashes:
            return
        with closing(make_executor()) as executor:
            last = ends(executor.execute([joined(stacks_of(tmp_path, "good", "exit", "good"))]))
        assert {run: type(event) for run, event in last.items()} == {
            "run0": Finished,
            "run1": Failed,
            "run2": Finished,
        }
        failure = last["run1"]
        assert isinstance(failure, Failed)
        assert failure.kind == "crash"

    def test_a_run_that_hangs_is_ended_at_its_timeout(self, make_executor: MakeExecutor, tmp_path: Path) -> None:
        if not self.survives_crashes:
            return
        with closing(make_executor(timeout=3.0)) as executor:
            failures = ends(executor.execute(stacks_of(tmp_path, "hang", "hang in data"))).values()
        assert len(failures) == 2
        for failure in failures:
            assert isinstance(failure, Failed)
            assert failure.kind == "timeout"
            assert "3 s" in failure.message
