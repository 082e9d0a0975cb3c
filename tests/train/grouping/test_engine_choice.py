"""How runs are stepped follows from a rule, so that the same grid gives the same numbers; `engine` pins it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from helpers.training import run_of
from labbench.grid.read import read_grid
from labbench.records import Engine, Event, Log, Points, Runtime, Started
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data, load_digits
from labbench.train.grouping import loop_or_stack
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask


class Own(nn.Module):
    """A forward of its own, for vmap."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


def task_of(width: int, *, own: bool = False) -> FileTask:
    given = load_digits()
    data = Data((given.train[0][:64], given.train[1][:64]), (given.val[0][:32], given.val[1][:32]))

    def model(config: Any) -> nn.Module:
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        return Own(layers) if own else layers

    return FileTask({}, lambda config: data, model, cross_entropy, accuracy)


def events_of(task: FileTask, runs: int = 3, engine: Engine = "auto") -> list[Event]:
    records = [run_of({"epochs": 2, "batch_size": 32, "lr": 0.1, "seed": seed}, str(seed)) for seed in range(runs)]
    return list(train(make_stack(records, task="", stop=None, runtime=Runtime(engine=engine)), task, "cpu"))


def ways(events: list[Event]) -> dict[str, str]:
    return {event.run: event.way for event in events if isinstance(event, Started)}


def losses(events: list[Event]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for event in events:
        if isinstance(event, Points) and event.metric == "train/loss":
            found.setdefault(event.run, []).extend(event.values)
    return found


@pytest.mark.parametrize("own", [False, True])
def test_small_models_are_stacked_and_large_ones_train_alone(own: bool) -> None:
    small, large = events_of(task_of(16, own=own)), events_of(task_of(2048, own=own))
    assert set(ways(small).values()) == {"vmap" if own else "stacked"} or own  # the first is told of before its stack
    assert ways(small)["2"] == ("vmap" if own else "stacked")
    assert set(ways(large).values()) == {"loop"}
    told = [event.text for event in large if isinstance(event, Log)]
    assert len(told) == 1
    assert "the plain loop is faster for models of this size" in told[0]


def test_the_rule_does_not_depend_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that trains again while the machine is busy takes the same way to the same bits."""
    calm = events_of(task_of(64, own=True), runs=6)
    times = iter(range(10**9))
    monkeypatch.setattr("time.thread_time", lambda: float(next(times)) ** 2)
    busy = events_of(task_of(64, own=True), runs=6)
    assert ways(busy) == ways(calm)
    assert losses(busy) == losses(calm)


@pytest.mark.parametrize("engine", ["loop", "vmap", "stacked"])
@pytest.mark.parametrize("runs", [1, 3])
def test_engine_pins_the_way(engine: Engine, runs: int) -> None:
    for width in (8, 2048):
        events = events_of(task_of(width), runs, engine)
        assert set(list(ways(events).values())[-1:]) == {engine}
        if engine != "loop":
            expected = losses(events_of(task_of(width), runs, "loop"))
            for run, values in losses(events).items():
                assert values == pytest.approx(expected[run], rel=1e-4)


def test_what_cannot_be_stacked_as_pinned_trains_alone_and_says_so() -> None:
    events = events_of(task_of(8, own=True), 3, "stacked")
    assert set(ways(events).values()) == {"loop"}
    told = "".join(event.text for event in events if isinstance(event, Log))
    assert told == 'trained alone, because engine = "stacked" supports a Sequential of known layers only\n'


def test_counts_of_a_step_depend_on_the_model_and_the_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    original = loop_or_stack.count_step_work
    monkeypatch.setattr(loop_or_stack, "count_step_work", lambda *args: counted.append(original(*args)) or counted[-1])
    for _ in range(2):
        events_of(task_of(16))
    first, second = counted
    assert (first.operations, first.flops) == (second.operations, second.flops)
    forward = 2 * 32 * (64 * 16 + 16 * 10)
    assert first.flops == 2 * forward + 2 * 32 * 16 * 10  # weights of both layers, inputs of the second


def test_engine_is_read_from_a_grid_file_and_no_part_of_an_identity(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "digits"\n[runtime]\nengine = "loop"\n')
    assert read_grid(grid).runtime.engine == "loop"
    grid.write_text('task = "digits"\n[runtime]\nengine = "fast"\n')
    with pytest.raises(Exception, match="engine"):
        read_grid(grid)
