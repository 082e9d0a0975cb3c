"""Attributes that a task sets on itself: no run trains with the value of another run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.training import History, histories, raise_failure, run_of, train_interrupted, without_times
from labbench.errors import InputError
from labbench.params.param import Param
from labbench.records import Event, Log, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data, load_digits
from labbench.train.loop import train
from labbench.train.tasks.attributes import TaskAttributes
from labbench.train.tasks.import_context import imports_of
from labbench.train.tasks.task import FileTask, load_task

EXACT = Runtime(precision="float64")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1)
        scores: Tensor = self.head(x + torch.relu(self.first(x)))
        return scores


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


class Base:
    """Task with a focal loss whose gamma is an attribute."""

    params: ClassVar = {"focus": Param("float", 0.0, per_run=True)}
    focus: Any = 0.0
    network: Callable[[], nn.Module] = staticmethod(mlp)

    def data(self, config: dict[str, Any]) -> Data:
        digits = load_digits()
        return Data((digits.train[0][:64], digits.train[1][:64]), (digits.val[0][:32], digits.val[1][:32]))

    def model(self, config: dict[str, Any]) -> nn.Module:
        self.set_focus(config)
        return self.network()

    def set_focus(self, config: dict[str, Any]) -> None:
        self.focus = config["focus"]

    def gamma(self) -> Any:
        return self.focus

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        entropy = F.cross_entropy(outputs, targets, reduction="none")
        return (1 - (-entropy).exp()) ** self.gamma() * entropy

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"gamma": outputs[:, 0] * 0 + self.gamma()}


class Sometimes(Base):
    """Sets the attribute only for some runs."""

    def set_focus(self, config: dict[str, Any]) -> None:
        if config["focus"] > 0:
            self.focus = config["focus"]


class InDict(Base):
    def __init__(self) -> None:
        self.settings = {"deep": [0.0]}

    def set_focus(self, config: dict[str, Any]) -> None:
        self.settings["deep"][0] = config["focus"]

    def gamma(self) -> Any:
        return self.settings["deep"][0]


class Settings:
    focus = 0.0


class InObject(Base):
    def __init__(self) -> None:
        self.settings = Settings()

    def set_focus(self, config: dict[str, Any]) -> None:
        self.settings.focus = config["focus"]

    def gamma(self) -> Any:
        return self.settings.focus


class InNamespace(Base):
    def set_focus(self, config: dict[str, Any]) -> None:
        self.settings = SimpleNamespace(focus=config["focus"])

    def gamma(self) -> Any:
        return self.settings.focus


class InTensor(Base):
    """Changes a tensor in place."""

    def __init__(self) -> None:
        self.weights = torch.zeros(3)

    def set_focus(self, config: dict[str, Any]) -> None:
        self.weights[1] = config["focus"]

    def gamma(self) -> Any:
        return self.weights[1].item()


class Focus(nn.Module):
    def __init__(self, focus: float) -> None:
        super().__init__()
        self.focus = focus


class InModule(Base):
    def set_focus(self, config: dict[str, Any]) -> None:
        self.criterion = Focus(config["focus"])

    def gamma(self) -> Any:
        return self.criterion.focus


class InClosure(Base):
    def set_focus(self, config: dict[str, Any]) -> None:
        focus = config["focus"]
        self.power = lambda: focus

    def gamma(self) -> Any:
        return self.power()


class InPartial(Base):
    def set_focus(self, config: dict[str, Any]) -> None:
        self.power = partial(float, config["focus"])

    def gamma(self) -> Any:
        return self.power()


class Counted(Base):
    """Counts the models that it creates, which must not affect any run."""

    count = 0

    def set_focus(self, config: dict[str, Any]) -> None:
        self.count += 1
        self.focus = config["focus"] * self.count


TASKS = [
    Base,
    Sometimes,
    InDict,
    InObject,
    InNamespace,
    InTensor,
    InModule,
    InClosure,
    InPartial,
    Counted,
]


def task_of(kind: type[Any]) -> FileTask:
    """Return the task as labbench loads it from a file."""
    task = kind()
    return FileTask(task.params, task.data, task.model, task.loss, task.metrics, TaskAttributes(task))


def events_of(configs: list[dict[str, Any]], task: FileTask, runtime: Runtime = EXACT) -> list[Event]:
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    return list(train(make_stack(runs, task="digits", stop=None, runtime=runtime), task, "cpu"))


def ordered(events: list[Event]) -> list[History]:
    by_run = histories(events)
    return [by_run[str(number)] for number in range(len(by_run))]


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Log)]


def ways(runs: list[History]) -> set[str]:
    return {run.started.way for run in runs if run.started is not None}


def assert_as_alone(configs: list[dict[str, Any]], kind: type[Any], runs: list[History]) -> None:
    """Assert that each run measured the same as when trained alone."""
    for config, run in zip(configs, runs, strict=True):
        (alone,) = ordered(events_of([config], task_of(kind)))
        assert alone.curves.keys() - run.curves.keys() == set()
        for metric in alone.curves.keys() - {"time/compute_s"}:
            assert run.curves[metric] == pytest.approx(alone.curves[metric], rel=1e-10, abs=1e-13), metric


CONFIGS = [
    {"epochs": 2, "batch_size": 32, "focus": focus, "seed": seed} for seed in (0, 1) for focus in (5.0, 0.0, 2.0)
]


@pytest.mark.parametrize("kind", TASKS)
def test_runs_with_equal_attributes_share_a_stack(kind: type[Any]) -> None:
    events = events_of(CONFIGS, task_of(kind))
    runs = ordered(events)
    assert ways(runs) == {"stacked"}
    assert_as_alone(CONFIGS, kind, runs)
    for config, run in zip(CONFIGS, runs, strict=True):
        assert set(run.curves["val/gamma"].values()) == {config["focus"]}
    logs = notes(events)
    assert len(logs) == 6
    assert all(note.startswith("trained apart from other runs, because the task's `self.") for note in logs)


class Own(Base):
    network = Residual


@pytest.mark.parametrize("runtime", [EXACT, Runtime(precision="float64", watch=True)])
def test_vmap_stacks_and_watched_stacks_are_separated_by_attributes_too(runtime: Runtime) -> None:
    runs = ordered(events_of(CONFIGS, task_of(Own), runtime))
    assert ways(runs) == {"vmap"}
    assert_as_alone(CONFIGS, Own, runs)


def test_runs_that_train_one_after_another_keep_their_own_attributes() -> None:
    class Deciding(Sometimes):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().loss(outputs, targets) * (2 if outputs.sum() > 0 else 1)

    configs = [{"epochs": 1, "focus": focus} for focus in (5.0, 0.0, 2.0)]
    runs = ordered(events_of(configs, task_of(Deciding)))
    assert ways(runs) == {"loop"}
    assert_as_alone(configs, Deciding, runs)
    assert [set(run.curves["val/gamma"].values()) for run in runs] == [{5.0}, {0.0}, {2.0}]


def test_attributes_set_in_data_belong_to_the_runs_that_use_the_data() -> None:
    class FromData(Base):
        def data(self, config: dict[str, Any]) -> Data:
            if config["focus"] > 0:
                self.focus = config["focus"]
            return super().data(config)

        def set_focus(self, config: dict[str, Any]) -> None: ...

    runs = ordered(events_of(CONFIGS, task_of(FromData)))
    assert_as_alone(CONFIGS, FromData, runs)
    assert [run.last("val/gamma") for run in runs] == [config["focus"] for config in CONFIGS]


def test_attributes_with_equal_contents_share_a_stack() -> None:
    class Equal(Base):
        def set_focus(self, config: dict[str, Any]) -> None:
            self.criterion = nn.CrossEntropyLoss(torch.ones(10, dtype=torch.float64), reduction="none")
            self.names, self.scale = ["a", {"b": (1, 2)}], lambda value: 2 * value
            self.again = self

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            losses: Tensor = self.scale(self.criterion(outputs, targets))
            return losses

    events = events_of(CONFIGS, task_of(Equal))
    assert ways(ordered(events)) == {"stacked"}
    assert notes(events) == []


def test_a_loss_over_the_weights_of_a_model_in_an_attribute_uses_the_runs_weights() -> None:
    class Penalty(Base):
        def model(self, config: dict[str, Any]) -> nn.Module:
            self.network_of_run = mlp()
            return self.network_of_run

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(outputs, targets, reduction="none") + 0.1 * self.gamma()

        def gamma(self) -> Any:
            return sum(parameter.abs().sum() for parameter in self.network_of_run.parameters())

    configs = [{"epochs": 3, "lr": lr} for lr in (0.1, 0.01, 0.05)]  # with equal initial weights
    events = events_of(configs, task_of(Penalty), Runtime(precision="float64", watch=True))
    assert ways(ordered(events)) == {"loop"}
    assert_as_alone(configs, Penalty, ordered(events))
    assert all(len(set(run.curves["val/gamma"].values())) == 3 for run in ordered(events))  # the weights of each epoch
    assert "keeps the model of a run in an attribute" in notes(events)[0]


def test_a_loss_set_in_model_is_refused() -> None:
    class Replacing(Base):
        def set_focus(self, config: dict[str, Any]) -> None:
            self.loss = F.cross_entropy  # type: ignore[method-assign, assignment]

    with pytest.raises(
        InputError, match=r"sets `self.loss` in model\(\), where it has no effect: define loss as a method"
    ):
        raise_failure(events_of(CONFIGS, task_of(Replacing)))


def test_a_large_tensor_changed_in_place_in_model_is_refused() -> None:
    class Large(Base):
        def __init__(self) -> None:
            self.table = torch.zeros(200, 100)

        def set_focus(self, config: dict[str, Any]) -> None:
            self.table[0] = config["focus"]

    with pytest.raises(InputError, match=r"changes the tensor `self.table` in place"):
        raise_failure(events_of(CONFIGS, task_of(Large)))


def test_a_task_that_changes_its_config_changes_no_run() -> None:
    class Changing(Base):
        def data(self, config: dict[str, Any]) -> Data:
            config.pop("focus")
            return super().data(config)

        def set_focus(self, config: dict[str, Any]) -> None:
            self.focus = config.pop("focus")
            config["lr"] = 0.0

    runs = ordered(events_of(CONFIGS, task_of(Changing)))
    for run, unchanged in zip(runs, ordered(events_of(CONFIGS, task_of(Base))), strict=True):
        assert run.curves["train/loss"] == pytest.approx(unchanged.curves["train/loss"], rel=1e-10)


class InClass(Base):
    """Sets the attribute of its class, which all runs of a stack would share."""

    def set_focus(self, config: dict[str, Any]) -> None:
        type(self).focus = config["focus"]


GLOBAL = SimpleNamespace(focus=0.0)


class InGlobal(Base):
    def set_focus(self, config: dict[str, Any]) -> None:
        GLOBAL.focus = config["focus"]

    def gamma(self) -> Any:
        return GLOBAL.focus


class Scaled(nn.Module):
    """A network whose forward reads a global variable."""

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp()

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.network(inputs) * (1 + GLOBAL.focus)
        return scores


class InForward(Base):
    network = Scaled

    def set_focus(self, config: dict[str, Any]) -> None:
        GLOBAL.focus = config["focus"]


@pytest.mark.parametrize("kind", [InClass, InGlobal, InForward])
def test_runs_whose_model_sets_a_variable_outside_of_the_task_train_one_by_one(kind: type[Any]) -> None:
    events = events_of(CONFIGS, task_of(kind))
    assert ways(ordered(events)) == {"loop"}
    assert_as_alone(CONFIGS, kind, ordered(events))
    assert all("model(config) sets a variable outside of self and of the model" in note for note in notes(events))


class Annealed(Base):
    """Counts the calls of its loss, draws from a generator of its own, and keeps a moving average of its losses."""

    def __init__(self) -> None:
        self.calls, self.generator, self.averages = 0, np.random.default_rng(0), [torch.zeros(())]

    def set_focus(self, config: dict[str, Any]) -> None: ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        entropy = F.cross_entropy(outputs, targets, reduction="none")
        self.averages[0] = 0.9 * self.averages[0] + 0.1 * entropy.detach().mean()
        weight = min(1.0, self.calls / 100) + 0.1 * float(self.generator.random())
        return entropy * weight + 0.01 * self.averages[0]


ANNEALED = [{"epochs": 4, "batch_size": 32, "lr": lr} for lr in (0.1, 0.01, 0.05)]


def test_each_run_begins_with_the_attributes_that_its_loss_changes() -> None:
    events = events_of(ANNEALED, task_of(Annealed))
    assert ways(ordered(events)) == {"loop"}
    assert_as_alone(ANNEALED, Annealed, ordered(events))
    expected = "self.averages of the task, self.calls of the task, self.generator of the task carries state"
    assert all(expected in note for note in notes(events))


def test_attributes_that_a_loss_changes_are_restored_when_a_run_resumes(tmp_path: Path) -> None:
    resumed = train_interrupted(task_of(Annealed), ANNEALED, tmp_path, EXACT)
    uninterrupted = ordered(events_of(ANNEALED, task_of(Annealed)))
    assert resumed == [without_times(history) for history in uninterrupted]


TASK_WITH_VARIABLES = """
import numpy as np
import torch.nn.functional as F
from labbench.train.tasks.builtin import DigitsTask
from helper import draw

CALLS = 0
RNG = np.random.default_rng(3)

class Task(DigitsTask):
    calls = 0

    def loss(self, outputs, targets):
        global CALLS
        CALLS += 1
        Task.calls += 2
        weight = 1 / CALLS + 0.1 * Task.calls + RNG.random() + draw()
        return F.cross_entropy(outputs, targets, reduction="none") * float(weight)
"""


def test_each_run_begins_with_the_numbers_and_generators_of_the_tasks_modules(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK_WITH_VARIABLES)
    (tmp_path / "helper.py").write_text("import random\nRNG = random.Random(3)\ndef draw():\n    return RNG.random()\n")
    name = f"{tmp_path / 'task.py'}:Task"
    configs = [{"epochs": 2, "train_size": 64, "batch_size": 32, "lr": lr} for lr in (0.1, 0.01)]
    with imports_of(name):
        grid = ordered(events_of(configs, cast(FileTask, load_task(name)), EXACT))
        for config, run in zip(configs, grid, strict=True):
            (alone,) = ordered(events_of([config], cast(FileTask, load_task(name)), EXACT))
            assert without_times(alone) == without_times(run)
        resumed = train_interrupted(load_task(name), [{**config, "epochs": 4} for config in configs], tmp_path, EXACT)
        longer = ordered(events_of([{**config, "epochs": 4} for config in configs], cast(FileTask, load_task(name))))
        assert resumed == [without_times(history) for history in longer]
