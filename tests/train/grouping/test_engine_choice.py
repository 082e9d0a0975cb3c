"""A deterministic rule chooses the engine, so that the same grid has the same results; `engine` overrides it."""

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


class CustomForward(nn.Module):
    """A module with its own forward, for vmap."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


def make_task(width: int, *, custom_forward: bool = False) -> FileTask:
    digits = load_digits()
    data = Data((digits.train[0][:64], digits.train[1][:64]), (digits.val[0][:32], digits.val[1][:32]))

    def model(config: Any) -> nn.Module:
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        return CustomForward(layers) if custom_forward else layers

    return FileTask({}, lambda config: data, model, cross_entropy, accuracy)


def train_events(task: FileTask, runs: int = 3, engine: Engine = "auto") -> list[Event]:
    records = [run_of({"epochs": 2, "batch_size": 32, "lr": 0.1, "seed": seed}, str(seed)) for seed in range(runs)]
    return list(train(make_stack(records, task="", stop=None, runtime=Runtime(engine=engine)), task, "cpu"))


def engines(events: list[Event]) -> dict[str, str]:
    return {event.run: event.way for event in events if isinstance(event, Started)}


def losses(events: list[Event]) -> dict[str, list[float]]:
    losses_by_run: dict[str, list[float]] = {}
    for event in events:
        if isinstance(event, Points) and event.metric == "train/loss":
            losses_by_run.setdefault(event.run, []).extend(event.values)
    return losses_by_run


@pytest.mark.parametrize("custom_forward", [False, True])
def test_small_models_are_stacked_and_large_models_train_alone(custom_forward: bool) -> None:
    small, large = (train_events(make_task(width, custom_forward=custom_forward)) for width in (16, 2048))
    # the first run starts before its stack is made, so its engine may be wrong at first
    assert set(engines(small).values()) == {"vmap" if custom_forward else "stacked"} or custom_forward
    assert engines(small)["2"] == ("vmap" if custom_forward else "stacked")
    assert set(engines(large).values()) == {"loop"}
    logs = [event.text for event in large if isinstance(event, Log)]
    assert len(logs) == 3
    assert all("the plain loop is faster for models of this size" in text for text in logs)


def test_the_rule_does_not_depend_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that is trained again on a busy machine uses the same engine and has the same bits."""
    calm = train_events(make_task(64, custom_forward=True), runs=6)
    times = iter(range(10**9))
    monkeypatch.setattr("time.thread_time", lambda: float(next(times)) ** 2)
    busy = train_events(make_task(64, custom_forward=True), runs=6)
    assert engines(busy) == engines(calm)
    assert losses(busy) == losses(calm)


@pytest.mark.parametrize("engine", ["loop", "vmap", "stacked"])
@pytest.mark.parametrize("runs", [1, 3])
def test_the_engine_setting_overrides_the_rule(engine: Engine, runs: int) -> None:
    for width in (8, 2048):
        events = train_events(make_task(width), runs, engine)
        assert set(list(engines(events).values())[-1:]) == {engine}
        if engine != "loop":
            expected = losses(train_events(make_task(width), runs, "loop"))
            for run, values in losses(events).items():
                assert values == pytest.approx(expected[run], rel=1e-4)


def test_runs_that_the_set_engine_cannot_stack_train_alone_and_log_it() -> None:
    events = train_events(make_task(8, custom_forward=True), 3, "stacked")
    assert set(engines(events).values()) == {"loop"}
    (log,) = {event.text for event in events if isinstance(event, Log)}
    assert log == 'trained alone, because engine = "stacked" supports a Sequential of known layers only\n'


def test_counts_of_a_step_depend_only_on_the_model_and_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    original = loop_or_stack.count_step_work
    monkeypatch.setattr(loop_or_stack, "count_step_work", lambda *args: counted.append(original(*args)) or counted[-1])
    for _ in range(2):
        train_events(make_task(16))
    first, second = counted
    assert (first.operations, first.flops) == (second.operations, second.flops)
    forward = 2 * 32 * (64 * 16 + 16 * 10)
    assert first.flops == 2 * forward + 2 * 32 * 16 * 10  # weights of both layers, inputs of the second


def test_engine_is_read_from_a_grid_file_and_checked(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "digits"\n[runtime]\nengine = "loop"\n')
    assert read_grid(grid).runtime.engine == "loop"
    grid.write_text('task = "digits"\n[runtime]\nengine = "fast"\n')
    with pytest.raises(Exception, match="engine"):
        read_grid(grid)
