"""Errors of a user's code fail once, with the user's line, and load no data again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.training import histories, run_of
from labbench.params.param import Param
from labbench.records import EngineNote, Event, Failed, Finished, Points, Runtime, Stop
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.optional_parts import OptionalParts
from labbench.train.tasks.task import FileTask

RUNS = 8


class CountedTask:
    """A task that counts the calls of its functions; subclasses and arguments replace some."""

    optional = OptionalParts()

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def data(self, config: dict[str, Any]) -> Data:
        self.calls["data"] += 1
        inputs = torch.randn(64, 4)
        targets = torch.arange(64) % 3
        return Data((inputs, targets), (inputs[:20], targets[:20]))

    def model(self, config: dict[str, Any]) -> nn.Module:
        self.calls["model"] += 1
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)


def train_events(task: CountedTask, configs: list[dict[str, Any]] | None = None, **options: Any) -> list[Event]:
    configs = configs or [{"seed": seed} for seed in range(RUNS)]
    runs = [run_of({"epochs": 2, "batch_size": 24, **config}, str(number)) for number, config in enumerate(configs)]
    file_task = FileTask(
        {"special": Param("bool", False, per_run=True)},
        task.data,
        task.model,
        task.loss,
        accuracy,
        optional=task.optional,
    )
    stack = make_stack(runs, task="", **{"stop": None, "runtime": Runtime(), **options})
    return list(train(stack, file_task, "cpu"))


def failures(events: list[Event]) -> list[Failed]:
    return [event for event in events if isinstance(event, Failed)]


def engines(events: list[Event]) -> set[str]:
    return {history.started.way for history in histories(events).values() if history.started is not None}


class WithClassWeights(CountedTask):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = torch.tensor([1.0, 2.0, 0.5], dtype=dtype)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, weight=self.weight, reduction="none")


def test_class_weights_in_float32_are_stacked() -> None:
    task = WithClassWeights()
    events = train_events(task)
    assert not failures(events)
    assert engines(events) == {"stacked"}
    assert task.calls["data"] == 1


def test_a_value_that_the_code_caches_is_not_changed_by_the_check() -> None:
    class Caching(CountedTask):
        cache: ClassVar[dict[int, Tensor]] = {}

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            weights = self.cache.setdefault(len(targets), torch.linspace(0, 1, len(targets)).float())
            return cross_entropy(outputs, targets) * weights

    events = train_events(Caching())
    assert not failures(events)
    assert {tensor.dtype for tensor in Caching.cache.values()} == {torch.float32}


def test_a_mistake_in_the_loss_fails_each_run_once_with_its_line() -> None:
    class Mistaken(CountedTask):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            self.calls["loss"] += 1
            return cross_entropy(output, targets)  # type: ignore[name-defined]  # noqa: F821

    task = Mistaken()
    failed = failures(train_events(task))
    assert sorted(event.run for event in failed) == [str(number) for number in range(RUNS)]
    assert all(
        event.message.startswith("NameError: name 'output' is not defined (test_failures.py:") for event in failed
    )
    assert task.calls["data"] == 1
    assert task.calls["loss"] <= 2 * RUNS + 1  # in a copy, and in the first step


class MeasuredTask(CountedTask):
    """A task with epoch metrics, data of a test split, and a count of the training steps."""

    def __init__(self, epoch_metrics: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.optional = OptionalParts(epoch_metrics=epoch_metrics, evaluation_batch_size=10)

    def data(self, config: dict[str, Any]) -> Data:
        data = super().data(config)
        return replace(data, test=data.train)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls["steps"] += outputs.requires_grad
        return cross_entropy(outputs, targets)


def mistaken_f1(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    return {"f1": target.sum()}  # type: ignore[name-defined]  # noqa: F821


def fails_before_training(task: MeasuredTask, message: str, **options: Any) -> bool:
    """Return True if each run of the task fails with this message, without a training step."""
    events = train_events(task, **options)
    failed = failures(events)
    assert all(message in event.message for event in failed)
    assert task.calls["data"] == 1
    has_trained = any(isinstance(event, Points) for event in events)
    return sorted(event.run for event in failed) == [str(number) for number in range(RUNS)] and not has_trained


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    ("epoch_metrics", "message"),
    [
        (lambda outputs, targets: {"matrix": torch.ones(2, 2)}, "'matrix' must be one number, not Tensor"),
        (lambda outputs, targets: outputs.argmax(1), "must return a dict of numbers, not Tensor"),
        (mistaken_f1, "NameError: name 'target' is not defined (test_failures.py:"),
    ],
)
def test_a_mistake_in_epoch_metrics_fails_the_runs_before_they_train(
    engine: Any, epoch_metrics: Callable[[Tensor, Tensor], Any], message: str
) -> None:
    assert fails_before_training(MeasuredTask(epoch_metrics), message, runtime=Runtime(engine=engine))


def test_a_mistake_in_the_test_data_or_in_stop_fails_the_runs_before_they_train() -> None:
    class WithOtherInputs(MeasuredTask):
        def data(self, config: dict[str, Any]) -> Data:
            return replace(super().data(config), test=(torch.ones(9, 5), torch.ones(9).long()))

    assert fails_before_training(WithOtherInputs(lambda outputs, targets: {}), "shapes cannot be multiplied (9x5")
    stop = Stop("val/f2", "max", patience=1)
    message = "[stop] metric = 'val/f2' is not measured at the end of an epoch; use one of gap/accuracy, train/accuracy"
    assert fails_before_training(MeasuredTask(lambda outputs, targets: {"f1": 0.5}), message, stop=stop)


def test_metrics_that_need_the_whole_split_get_it_and_do_not_see_the_check() -> None:
    calls = []

    def epoch_metrics(outputs: Tensor, targets: Tensor) -> dict[str, float]:
        if len(targets) not in (20, 64):
            raise ValueError("only one class in the targets")
        calls.append(len(targets))
        return {"calls": float(len(calls))}

    task = MeasuredTask(epoch_metrics)
    events = train_events(task, [{"seed": seed} for seed in range(2)], stop=Stop("val/calls", "max", patience=9))
    assert not failures(events)
    assert {history.started.way for history in histories(events).values() if history.started} == {"stacked"}
    assert calls == [20, 64, 20, 20, 20, 20, 64, 64]  # the check; two epochs of two runs; their test


def test_a_run_that_diverges_at_its_first_step_is_not_failed_by_metrics_that_need_numbers() -> None:
    def epoch_metrics(outputs: Tensor, targets: Tensor) -> dict[str, float]:
        if not outputs.isfinite().all():
            raise ValueError("input contains NaN")
        return {"largest": float(outputs.max())}

    events = train_events(MeasuredTask(epoch_metrics), [{"seed": 0, "lr": 1e30}, {"seed": 1}])
    ends = {event.run: event.status for event in events if isinstance(event, Finished)}
    assert ends["0"] == "diverged"
    assert not failures(events)


def test_a_mistake_in_data_fails_all_runs_at_once() -> None:
    class Mistaken(CountedTask):
        def data(self, config: dict[str, Any]) -> Data:
            super().data(config)
            return torch.load(Path("missing.pt"))  # type: ignore[no-any-return]

    task = Mistaken()
    failed = failures(train_events(task))
    assert len(failed) == RUNS
    assert task.calls["data"] == 1


def test_a_model_that_raises_fails_alone_and_the_others_share_a_stack() -> None:
    class Special(CountedTask):
        def model(self, config: dict[str, Any]) -> nn.Module:
            if config["special"]:
                raise ValueError("no such layer")
            return super().model(config)

    task = Special()
    events = train_events(task, [{"seed": seed, "special": seed == 2} for seed in range(4)])
    assert [event.run for event in failures(events)] == ["2"]
    assert {event.run for event in events if isinstance(event, Finished)} == {"0", "1", "3"}
    assert task.calls["data"] == 1


def test_a_stack_that_fails_later_continues_one_by_one_without_loading_data_again() -> None:
    class LateInt(CountedTask):
        """A forward that works under vmap for whole batches only."""

        def model(self, config: dict[str, Any]) -> nn.Module:
            class Net(nn.Linear):
                def forward(self, inputs: Tensor) -> Tensor:
                    outputs = super().forward(inputs)
                    if len(inputs) not in (16, 24):
                        return outputs * float(outputs.detach().abs().max() > 0)
                    return outputs

            self.calls["model"] += 1
            return Net(4, 3)

    task = LateInt()
    events = train_events(task, [{"seed": seed} for seed in range(3)])
    assert not failures(events)
    assert len([event for event in events if isinstance(event, Finished)]) == 3
    notes = [event.text for event in events if isinstance(event, EngineNote)]
    assert len(notes) == 3
    assert all(note.startswith("trained alone, because ") for note in notes)
    assert task.calls["data"] == 1


def test_runs_with_data_of_their_own_train_alone_and_log_why() -> None:
    class Seeded(CountedTask):
        def data(self, config: dict[str, Any]) -> Data:
            torch.manual_seed(config["seed"])
            return super().data(config)

    events = train_events(Seeded(), [{"seed": seed} for seed in range(3)])
    notes = {event.text for event in events if isinstance(event, EngineNote)}
    assert notes == {
        "trained alone, because the task's data(config) reads `seed`, so that no other run has the same data\n"
    }
