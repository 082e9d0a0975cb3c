"""Task parameters named like parameters of the training loop: redeclared, or independent of the loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from click.testing import Result
from torch import Tensor, nn

from helpers.training import History, histories, run_of
from labbench.errors import InputError
from labbench.params.builtin import BUILTIN
from labbench.params.param import REDECLARABLE, TRAINING, Param, all_params, own_keys
from labbench.records import RunRecord, Runtime
from labbench.runner.planner import StackSettings, make_stack, plan_stacks
from labbench.train.data.dataset import Data, load_digits
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask

OWN_PARAMS: dict[str, Param] = {
    "momentum": Param("float", 0.9, per_run=True),
    "nesterov": Param("bool", True, per_run=True),
    "beta1": Param("float", 0.1, per_run=True),
    "beta2": Param("float", 0.2, per_run=True),
    "alpha": Param("float", 0.3, "mixing weight", per_run=True),
    "eps": Param("float", 0.3, "radius of an attack", low=0.0, per_run=True),
    "clip": Param("float", 1e-3, per_run=True),
    "schedule": Param("str", "cosine", per_run=True),
    "warmup": Param("int", 50, per_run=True),
    "step_epochs": Param("int", 1, per_run=True),
    "gamma": Param("float", 2.0, "focus of the loss", per_run=True),
    "ema_decay": Param("float", 0.5, per_run=True),
    "label_smoothing": Param("float", 0.5, per_run=True),
}
"""Parameters whose values would each change the training loop."""


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1)
        scores: Tensor = self.head(x + torch.relu(self.first(x)))
        return scores


def task_with(params: dict[str, Param], model: Callable[[], nn.Module]) -> FileTask:
    digits = load_digits()
    data = Data((digits.train[0][:64], digits.train[1][:64]), (digits.val[0][:32], digits.val[1][:32]))
    return FileTask(params, lambda config: data, lambda config: model(), cross_entropy, accuracy)


def train_runs(configs: list[dict[str, Any]], task: FileTask) -> list[History]:
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    stack = make_stack(runs, task="digits", stop=None, runtime=Runtime(precision="float64"))
    by_run = histories(train(stack, task, "cpu"))
    return [by_run[str(number)] for number in range(len(configs))]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize(
    ("way", "runs", "model"),
    [
        ("loop", 1, Residual),
        ("stacked", 3, lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))),
        ("vmap", 3, Residual),
    ],
)
def test_the_loop_keeps_its_defaults_if_a_task_has_parameters_of_the_same_names(
    way: str, runs: int, model: Callable[[], nn.Module], optimizer: str
) -> None:
    configs: list[dict[str, Any]] = [
        {"epochs": 3, "batch_size": 32, "optimizer": optimizer, "lr": 0.01, "seed": seed} for seed in range(runs)
    ]
    ours = train_runs(
        [{**config, "eps": 0.1 * number} for number, config in enumerate(configs)], task_with(OWN_PARAMS, model)
    )
    for with_own_params, plain in zip(ours, train_runs(configs, task_with({}, model)), strict=True):
        assert with_own_params.started is not None
        assert with_own_params.started.way == way
        for metric in ("train/loss", "val/loss"):
            assert with_own_params.curves[metric] == plain.curves[metric]


def test_every_other_parameter_of_the_loop_is_tested_above() -> None:
    assert OWN_PARAMS.keys() == TRAINING.keys() - set(REDECLARABLE)
    assert own_keys(OWN_PARAMS) == list(OWN_PARAMS)
    assert own_keys(TRAINING) == []
    assert all(own_keys(params) == [] and not params.keys() & TRAINING.keys() for params in BUILTIN.values())


def test_a_redeclared_parameter_changes_default_and_range_and_can_share_a_stack() -> None:
    declared = {
        "lr": Param("float", 3e-4, "learning rate", above=0.0),
        "epochs": Param("int", 3, high=50),
        "optimizer": Param("str", "adam", choices=("adam", "adamw")),
        "dropout": Param("float", 0.3),
        "width": Param("int", 8),
    }
    params = all_params(declared)
    assert params["lr"].default == 3e-4
    assert (params["lr"].low, params["lr"].above) == (None, 0.0)
    assert (params["epochs"].low, params["epochs"].high) == (1, 50)
    assert params["epochs"].help == TRAINING["epochs"].help
    assert params["optimizer"].choices == ("adam", "adamw")
    grid = [(lr, epochs, p) for lr in (0.1, 0.01) for epochs in (2, 3) for p in (0.0, 0.5)]
    runs = [
        RunRecord(number, str(number), "", "", "queued", {"lr": lr, "epochs": epochs, "dropout": p, "width": 8})
        for number, (lr, epochs, p) in enumerate(grid)
    ]
    assert len(plan_stacks(runs, StackSettings("mine.py:Mine"), params=params)) == 1


@pytest.mark.parametrize(
    ("key", "param", "complaint"),
    [
        ("lr", Param("str", "high"), "declares `lr` as 'str'; the training loop needs 'float'"),
        (
            "optimizer",
            Param("str", "lion", choices=("adam", "lion")),
            "`optimizer` with 'lion'; choose from sgd, adam,",
        ),
        ("epochs", Param("int", None), "declares `epochs` without a default"),
    ],
)
def test_a_redeclaration_that_does_not_fit_the_loop_is_refused(key: str, param: Param, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        all_params({key: param})
    assert complaint in str(raised.value)


TASK = """
import torch
from torch import nn
from labbench.params import Param
from labbench.train.data import Data

class Mine:
    params = {"eps": Param("float", 0.3, "radius of an attack", per_run=True), "lr": Param("float", 0.5)}

    def data(self, config):
        points = torch.rand(20, 2)
        classes = (points[:, 0] > 0.5).long()
        return Data(train=(points, classes), val=(points, classes))

    def model(self, config):
        return nn.Linear(2, 2)
"""
NOTE = "note: `eps` is the task's own parameter; the training loop keeps eps = 1e-08\n"


def test_run_and_tasks_name_the_parameters_that_are_the_tasks_own(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(TASK)
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "mine.py:Mine"\n[params]\nepochs = 1\n[grid]\neps = [0.1, 0.2]\n')
    assert labbench("run", grid, "--workers", "0").stderr.count(NOTE) == 1
    listed = labbench("tasks", f"{tmp_path / 'mine.py'}:Mine", "--json")
    assert listed.stderr == NOTE
    assert json.loads(listed.stdout)["lr"]["per_run"] is True
    assert json.loads(listed.stdout)["eps"]["default"] == 0.3
