"""The default loss and metrics on targets as people have them, alike for all engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.training import History, histories, raise_failure, run_of
from labbench.errors import InputError
from labbench.records import Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.data.samples import call_model
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask

ENGINES: tuple[Any, ...] = ("stacked", "vmap", "loop")


def classes_task(change: Any = lambda classes: classes) -> FileTask:
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    y = change((x[:, 0] > 0).long())
    data = Data((x[:40], y[:40]), (x[40:], y[40:]))
    return FileTask({}, lambda _: data, lambda _: nn.Sequential(nn.Linear(3, 2)), cross_entropy, accuracy)


def train_two(task: FileTask, engine: Any) -> list[History]:
    runs = [run_of({"epochs": 1, "batch_size": 10, "seed": seed}, str(seed)) for seed in (0, 1)]
    runtime = Runtime(precision="float64", engine=engine)
    by_run = histories(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu"))
    assert {history.started.way for history in by_run.values() if history.started} == {engine}
    return [by_run["0"], by_run["1"]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "change",
    [
        *(lambda y, dtype=dtype: y.to(dtype) for dtype in (torch.uint8, torch.int16, torch.int32, torch.bool)),
        lambda y: y[:, None],
    ],
    ids=["uint8", "int16", "int32", "bool", "column"],
)
def test_classes_of_any_integer_type_and_in_a_column_train_as_int64(change: Any, engine: Any) -> None:
    for history, reference in zip(
        train_two(classes_task(change), engine), train_two(classes_task(), "loop"), strict=True
    ):
        for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert history.curves[name] == pytest.approx(reference.curves[name], rel=1e-9), name


def test_a_single_output_is_refused_since_its_cross_entropy_is_always_zero() -> None:
    with pytest.raises(InputError, match=r"one output per class, shape \(N, C\), not \(4, 1\)"):
        cross_entropy(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64))
    assert accuracy(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64)) == {}


def test_classes_from_1_on_are_refused_with_the_number_of_outputs() -> None:
    task = classes_task(lambda classes: classes + 1)
    runs = [run_of({"epochs": 1, "seed": seed}, str(seed)) for seed in (0, 1)]
    with pytest.raises(InputError, match=r"no output for \(Target 2 is out of bounds.\): 2 outputs per sample are"):
        raise_failure(train(make_stack(runs, task="", stop=None, runtime=Runtime()), task, "cpu"))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_numbers_as_targets_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="needs classes"):
        cross_entropy(torch.ones(4, 3), torch.ones(shape))


@pytest.mark.parametrize("engine", ["vmap", "loop"])
def test_a_loss_can_divide_by_the_weights_of_its_batch_as_torch_does(engine: Any) -> None:
    def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
        w = torch.tensor([1.0, 5.0]).to(outputs)
        return F.cross_entropy(outputs, targets, weight=w, reduction="none") * len(targets) / w[targets].sum()

    task = replace(classes_task(), loss=weighted)
    data, model = task.data({}), nn.Linear(3, 2)
    (x, y) = data.train
    expected = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))(model(x), y)
    torch.testing.assert_close(weighted(model(x), y).mean(), expected)
    for history, reference in zip(train_two(task, engine), train_two(task, "loop"), strict=True):
        assert history.curves["train/loss"] == pytest.approx(reference.curves["train/loss"], rel=1e-9)


def test_inputs_that_a_forward_does_not_take_are_named() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.ones(4, 3)
    with pytest.raises(InputError, match=r"does not take the inputs of a sample, 2 tensors \(too many positional"):
        call_model(model, (x, x))
    with pytest.raises(InputError, match=r"tokens=\.\.\., mask=\.\.\."):
        call_model(model, {"tokens": x, "mask": x})
