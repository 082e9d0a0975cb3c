"""Loss and metrics that read the config: each run uses its own values, alone and with every engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.training import CPU, History, histories, run_of
from labbench.errors import InputError
from labbench.params.param import Param, all_params, with_defaults
from labbench.records import Config, Event, Log, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data, load_digits
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Workload
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy
from labbench.train.tasks.task import FileTask, load_task, make_model

EXACT = Runtime(precision="float64")


PARAMS = {
    "focus": Param("float", 0.0, "gamma of the focal loss", low=0.0, per_run=True),
    "power": Param("int", 1, per_run=True),
    "halved": Param("bool", False, per_run=True),
    "clip": Param("float", 1.0, "largest loss of a sample", per_run=True),
    "kind": Param("str", "focal", per_run=True),
    "scale": Param("float", 1.0),
}


def focal(outputs: Tensor, targets: Tensor, config: Config) -> Tensor:
    entropy = F.cross_entropy(outputs, targets, reduction="none")
    losses = (1 - (-entropy).exp()) ** config["focus"] * entropy ** config["power"] * config["scale"]
    return torch.where(config["halved"], losses / 2, losses).minimum(2 * config["clip"])


def values_of(outputs: Tensor, targets: Tensor, config: Config) -> dict[str, Tensor]:
    """Return the values of each run as metrics."""
    same = outputs.detach()[:, 0] * 0
    return {key: same + config[key] for key in ("focus", "power", "halved", "clip", "lr", "seed")}


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


def task_of(model: Callable[[], nn.Module] = mlp, **parts: Any) -> FileTask:
    digits = load_digits()
    data = Data((digits.train[0][:64], digits.train[1][:64]), (digits.val[0][:32], digits.val[1][:32]))
    task = FileTask(PARAMS, lambda config: data, lambda config: model(), focal, values_of)
    return dataclasses.replace(task, **parts)


def events_of(configs: list[dict[str, Any]], task: FileTask, runtime: Runtime = EXACT) -> list[Event]:
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    return list(train(make_stack(runs, task="digits", stop=None, runtime=runtime), task, "cpu"))


def together(configs: list[dict[str, Any]], task: FileTask) -> list[History]:
    by_run = histories(events_of(configs, task))
    return [by_run[str(number)] for number in range(len(configs))]


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Log)]


def assert_as_alone(configs: list[dict[str, Any]], task: FileTask, ways: set[str]) -> None:
    stacked = together(configs, task)
    assert {history.started.way for history in stacked if history.started} == ways
    for config, history in zip(configs, stacked, strict=True):
        (alone,) = together([config], task)
        assert alone.curves.keys() == history.curves.keys()
        for metric in alone.curves.keys() - {"time/compute_s"}:
            assert history.curves[metric] == pytest.approx(alone.curves[metric], rel=1e-10, abs=1e-13), metric


CONFIGS: list[dict[str, Any]] = [
    {"focus": 0.0, "epochs": 3, "lr": 0.1},
    {"focus": 2.0, "epochs": 2, "lr": 0.1, "power": 2},
    {"focus": 5.0, "epochs": 4, "lr": 0.05, "halved": True, "seed": 1},
    {"focus": 5.0, "epochs": 4, "lr": 0.05, "clip": 0.3, "seed": 1, "optimizer": "adam"},
]
"""Runs that leave their stack at different times."""


@pytest.mark.parametrize(("way", "model"), [("stacked", mlp), ("vmap", Residual)])
def test_each_run_of_a_stack_trains_with_its_own_values(way: str, model: Callable[[], nn.Module]) -> None:
    configs = [{"batch_size": 32, **config} for config in CONFIGS]
    assert_as_alone(configs, task_of(model), {way})
    for config, history in zip(configs, together(configs, task_of(model)), strict=True):
        for key in ("focus", "power", "halved", "clip", "lr", "seed"):
            expected = float({**with_defaults({}, all_params(PARAMS)), **config}[key])
            for split in ("train", "val"):
                curve = history.curves[f"{split}/{key}"].values()
                assert list(curve) == pytest.approx([expected] * len(curve), rel=1e-12)


@pytest.mark.parametrize(("way", "model"), [("stacked", mlp), ("vmap", Residual)])
def test_a_captured_cuda_graph_reads_the_values_of_each_run(way: str, model: Callable[[], nn.Module]) -> None:
    task = task_of(model)
    workload = Workload(task, load_digits().to(CPU, torch.float64), 50)
    configs = [with_defaults({"batch_size": 50, **config}, all_params(PARAMS)) for config in CONFIGS]

    def stack() -> StackedStepper:
        models = [make_model(task, config) for config in configs]
        members = list(map(StackMember.from_model, models, configs))
        return StackedStepper(way, models[0], members, workload, StepCounter())

    captured, plain = CudaGraphStepper(stack(), 50), stack()
    batch = torch.arange(50).expand(4, 50)
    for count in (4, 2):
        for _ in range(3):
            (losses, metrics), (expected, _) = captured.step(batch[:count]), plain.step(batch[:count])
            torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-12)
        assert metrics["focus"][:, 0].tolist() == [config["focus"] for config in configs[-count:]]
        captured.keep([2, 3] if count == 4 else [0, 1])
        plain.keep([2, 3] if count == 4 else [0, 1])


def test_runs_train_alone_if_the_loss_branches_on_a_value_and_the_log_says_so() -> None:
    def loss(outputs: Tensor, targets: Tensor, config: Config) -> Tensor:
        entropy = F.cross_entropy(outputs, targets, reduction="none")
        return entropy**2 if config["focus"] > 1 else entropy

    configs = [{"epochs": 2, "focus": focus} for focus in (0.0, 2.0)]
    assert_as_alone(configs, task_of(loss=loss), {"loop"})
    (note,) = set(notes(events_of(configs, task_of(loss=loss))))
    assert note.startswith("trained alone, because ")


def test_values_that_are_not_numbers_separate_runs_and_the_reason_is_logged() -> None:
    def loss(outputs: Tensor, targets: Tensor, config: Config) -> Tensor:
        assert isinstance(config["kind"], str)
        return focal(outputs, targets, config) * (2 if config["kind"] == "double" else 1)

    configs = [{"epochs": 2, "focus": focus, "kind": kind} for focus in (0.0, 2.0) for kind in ("single", "double")]
    assert_as_alone(configs, task_of(loss=loss), {"stacked"})
    logs = notes(events_of(configs, task_of(loss=loss)))
    assert len(logs) == 4
    assert all(note.startswith("trained apart from other runs, because `kind`, which its loss") for note in logs)


def test_a_missing_value_separates_runs() -> None:
    params = {**PARAMS, "margin": Param("float", None, per_run=True)}

    def loss(outputs: Tensor, targets: Tensor, config: Config) -> Tensor:
        entropy = F.cross_entropy(outputs, targets, reduction="none")
        return entropy if config["margin"] is None else (entropy - config["margin"]).clamp(min=0)

    configs: list[dict[str, Any]] = [{"epochs": 2, "seed": s, "margin": m} for s in (0, 1) for m in (None, 0.5 + s)]
    assert_as_alone(configs, task_of(params=params, loss=loss), {"stacked"})


def test_a_loss_may_read_the_optimizer_if_all_runs_of_the_stack_have_the_same() -> None:
    def loss(outputs: Tensor, targets: Tensor, config: Config) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none") * (2.0 if config["optimizer"] == "adam" else 1.0)

    task = task_of(loss=loss)
    equal = [{"epochs": 2, "optimizer": "adam", "seed": seed} for seed in range(2)]
    assert_as_alone(equal, task, {"stacked"})
    differing = [{"epochs": 2, "optimizer": optimizer} for optimizer in ("adam", "sgd")]
    assert_as_alone(differing, task, {"loop"})
    (note,) = set(notes(events_of(differing, task)))
    assert "`optimizer`" in note


def test_gradient_norms_use_the_loss_of_each_run() -> None:
    configs = [{"epochs": 1, "focus": focus} for focus in (0.0, 3.0)]
    runtime = dataclasses.replace(EXACT, watch=True)
    stacked = histories(events_of(configs, task_of(), runtime))
    norms = []
    for number, config in enumerate(configs):
        alone = histories(events_of([config], task_of(), runtime))["0"].last("grad_norm/1.linear")
        assert stacked[str(number)].last("grad_norm/1.linear") == pytest.approx(alone, rel=1e-10)
        norms.append(alone)
    assert norms[0] != pytest.approx(norms[1], rel=0.1)


TASK = """
import torch
from torch import nn
from labbench.params import Param
from labbench.train.data import Data

class Mine:
    params = {"focus": Param("float", 1.0, per_run=True)}

    def data(self, config):
        points = torch.rand(20, 2)
        classes = (points[:, 0] > 0.5).long()
        return Data(train=(points, classes), val=(points, classes))

    def model(self, config):
        return nn.Linear(2, 2)

    def loss(self, outputs, targets, config):
        return nn.functional.cross_entropy(outputs, targets, reduction="none") * config["focus"]
"""


def test_a_loss_in_a_task_file_receives_the_config_if_its_signature_has_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TASK)
    task = load_task(f"{tmp_path / 'mine.py'}:Mine")
    assert task.metrics is accuracy
    assert isinstance(task, FileTask)
    single, double = together([{"epochs": 1, "lr": 0.0, "focus": 1.0}, {"epochs": 1, "lr": 0.0, "focus": 2.0}], task)
    assert double.last("val/loss") == pytest.approx(2 * single.last("val/loss"), rel=1e-12)


def test_a_loss_with_an_unknown_parameter_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TASK.replace("targets, config", "targets, settings"))
    with pytest.raises(
        InputError, match=r"Mine.loss in .*mine.py needs `settings`: it is called with outputs, targets"
    ):
        load_task(f"{tmp_path / 'mine.py'}:Mine")
