"""Messages about objects of a wrong type that a task returns: each says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.training import run_of
from labbench.errors import InputError
from labbench.records import EngineNote, Failed, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.data.loading import Datasets
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask

INPUTS, CLASSES = torch.linspace(-1, 1, 96).reshape(24, 1, 2, 2), torch.arange(24) % 3
PAIRS = TensorDataset(INPUTS, CLASSES)


class SmallNet(nn.Module):
    """Network whose output is changed by a function."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda outputs: outputs, *, flat: bool = True) -> None:
        super().__init__()
        self.fc, self._change, self._flat = nn.Linear(4, 3), change, flat

    def forward(self, x: Tensor) -> Any:
        return self._change(self.fc(x.flatten(1) if self._flat else x))


def failure(*, data: Any = None, model: Any = None, targets: Tensor = CLASSES, loss: Any = cross_entropy) -> str:
    """Return the message with which a run fails whose task returns these objects."""
    returned = Data((INPUTS, targets), (INPUTS, targets)) if data is None else data()
    task = FileTask(
        {}, lambda config: returned, lambda config: SmallNet() if model is None else model(), loss, accuracy
    )
    stack = make_stack([run_of({"epochs": 1})], task="", stop=None, runtime=Runtime(loaders=0))
    *_, last = train(stack, task, "cpu")
    assert isinstance(last, Failed)
    return last.message


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (lambda: (PAIRS, PAIRS), "not tuple: write labbench.Datasets(train, val)"),
        (lambda: PAIRS, "not TensorDataset: write labbench.Datasets(train, val)"),
        (lambda: {"train": PAIRS, "val": PAIRS}, "not dict: write labbench.Datasets(train, val)"),
        (lambda: DataLoader(PAIRS), "write labbench.Datasets(train, val) with the datasets of the loaders"),
        (
            lambda: (DataLoader(PAIRS), DataLoader(PAIRS)),
            "with the datasets of the loaders; labbench forms the batches",
        ),
        (lambda: (INPUTS, CLASSES), "not tuple: write labbench.Data(train=(inputs, targets), val=(inputs, targets))"),
        (lambda: ((INPUTS, CLASSES), (INPUTS, CLASSES)), "write labbench.Data(train, val), each a pair of tensors"),
        (lambda: Data, "not the class Data: write Data(...) to make one"),
    ],
)
def test_data_of_another_type_is_refused_with_what_to_write(data: Callable[[], Any], remedy: str) -> None:
    assert remedy in failure(data=data)


def test_a_data_loader_in_place_of_a_dataset_is_refused() -> None:
    with pytest.raises(
        InputError, match="`train` is a DataLoader: pass its dataset; labbench forms the batches itself"
    ):
        Datasets(DataLoader(PAIRS))  # type: ignore[arg-type]


def test_missing_returns_are_named() -> None:
    stack = make_stack([run_of({"epochs": 1})], task="", stop=None, runtime=Runtime())
    task = FileTask({}, lambda config: None, lambda config: SmallNet(), cross_entropy, accuracy)  # type: ignore[arg-type, return-value]
    *_, last = train(stack, task, "cpu")
    assert isinstance(last, Failed)
    assert last.message.endswith("not None: is `return` missing?")
    assert failure(model=lambda: None).endswith("torch.nn.Module, not None: is `return` missing?")
    assert failure(model=lambda: SmallNet(lambda outputs: None)) == (
        "forward of SmallNet returned None: is `return` missing?"
    )
    assert "not None; is `return` missing?" in failure(loss=lambda outputs, targets: None)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(("dim", "is_noted"), [(1, True), (None, False)])
def test_probabilities_as_outputs_of_the_default_loss_are_noted(runs: int, dim: int | None, is_noted: bool) -> None:
    data = Data((INPUTS, CLASSES), (INPUTS, CLASSES))
    task = FileTask(
        {},
        lambda config: data,
        lambda config: SmallNet(lambda out: out if dim is None else out.softmax(dim)),
        cross_entropy,
        accuracy,
    )
    stack = make_stack(
        [run_of({"epochs": 1, "seed": seed}, str(seed)) for seed in range(runs)], task="", stop=None, runtime=Runtime()
    )
    notes = [event.text for event in train(stack, task, "cpu") if isinstance(event, EngineNote)]
    assert sum("leave softmax out of forward" in note for note in notes) == (runs if is_noted else 0)
