"""Models and losses that would train nothing, or not all, are refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from helpers.training import raise_failure, run_of
from labbench.errors import InputError
from labbench.records import Event, Runtime
from labbench.runner.planner import make_stack
from labbench.train.loop import train
from labbench.train.tasks.task import load_task

TASK = """
import torch
import torch.nn.functional as F
from torch import nn
from labbench import Data

class Task:
    params = {}
    def __init__(self):
        self.temperature, self.teacher = nn.Parameter(torch.ones(())), nn.Linear(3, 2)
    def data(self, config):
        x = torch.randn(40, 3)
        F.mse_loss(self.teacher(x), x[:, :2]).backward()  # a teacher that data() has trained
        return Data((x, (x[:, 0] > 0).long()))
    def model(self, config):
        return MODEL
    def loss(self, outputs, targets):
        with torch.no_grad():
            taught = self.teacher(outputs.new_zeros(1, 3).float())
        return LOSS
"""
NET = "nn.Sequential(nn.Linear(3, 2))"
PLAIN = 'F.cross_entropy(outputs, targets, reduction="none")'


def train_file(folder: Path, model: str, loss: str, engine: Any = "auto") -> list[Event]:
    (folder / "mine.py").write_text(TASK.replace("MODEL", model).replace("LOSS", loss))
    runs = [run_of({"epochs": 1, "seed": seed}, str(seed)) for seed in (0, 1)]
    runtime = Runtime(engine=engine)
    return raise_failure(
        train(make_stack(runs, task="", stop=None, runtime=runtime), load_task(f"{folder / 'mine.py'}:Task"), "cpu")
    )


@pytest.mark.parametrize(
    ("model", "loss", "complaint"),
    [
        ("nn.Identity()", PLAIN, "nothing to train: it has no parameters"),
        (f"{NET}.requires_grad_(False)", PLAIN, "all of its parameters, from 0.weight on, are frozen"),
        (NET, PLAIN.replace("(outputs", "(outputs.detach()"), "does not depend on any parameter of the model"),
        (NET, PLAIN.replace("(outputs", "(outputs * self.temperature"), "the parameter `self.temperature` of the task"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_what_would_not_be_trained_is_an_error(
    tmp_path: Path, model: str, loss: str, complaint: str, engine: Any
) -> None:
    with pytest.raises(InputError, match=complaint):
        train_file(tmp_path, model, loss, engine)


def test_a_teacher_on_the_task_that_gets_no_gradients_is_no_error(tmp_path: Path) -> None:
    train_file(tmp_path, NET, f"{PLAIN} + 0 * taught.sum().to(outputs)")
