"""Penalties over weights and inputs, alike for all engines and a plain torch loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn
from torch.func import grad

from helpers.training import History, histories, raise_failure, run_of, train_interrupted, without_times
from labbench.errors import InputError
from labbench.params.param import Param
from labbench.records import Event, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.optional_parts import OptionalParts
from labbench.train.tasks.task import FileTask, load_task, make_data, make_model

CONFIGS = [
    {"lr": 0.1, "seed": seed, "epochs": 3, "batch_size": 10, "strength": strength}
    for strength in (0.0, 0.01, 0.1)
    for seed in (0, 1)
]
PARAMS = {"strength": Param("float", 0.0, per_run=True)}


def l1(model: nn.Module, config: Any) -> Tensor:
    return config["strength"] * sum(parameter.abs().sum() for parameter in model.parameters())


def gradient_penalty(model: nn.Module, inputs: Tensor, config: Any) -> Tensor:
    """The squared norm of the gradient of the largest score with respect to each input, shape (N,)."""
    inputs = inputs.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(model(inputs).amax(1).sum(), inputs, create_graph=True)
    return config["strength"] * gradients.square().sum(1)


def functional_gradient_penalty(model: nn.Module, inputs: Tensor, config: Any) -> Tensor:
    """The same by torch.func, which can be stacked."""
    gradients = grad(lambda x: model(x).amax(1).sum())(inputs)
    return config["strength"] * gradients.square().sum(1)


def make_task(penalty: Callable[..., Any] | None, **parts: Any) -> FileTask:
    torch.manual_seed(0)
    x = torch.randn(100, 4)
    y = (x[:, 0] > 0.5).long()
    data = Data((x[:50], y[:50]), (x[50:], y[50:]))
    task = FileTask(PARAMS, lambda _: data, make_net, cross_entropy, accuracy)
    return replace(task, optional=OptionalParts(penalty=penalty, **parts))


def make_net(config: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def train_events(task: FileTask, engine: Any) -> list[Event]:
    runs = [run_of(config, str(number)) for number, config in enumerate(CONFIGS)]
    runtime = Runtime(precision="float64", engine=engine)
    return raise_failure(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu"))


def train_all(task: FileTask, engine: Any, used: str) -> list[History]:
    by_run = histories(train_events(task, engine))
    assert {history.started.way for history in by_run.values() if history.started} == {used}
    return [by_run[str(number)] for number in range(len(CONFIGS))]


def plain_losses(task: FileTask, config: dict[str, Any]) -> list[float]:
    """Return the losses of a torch loop with a penalty; the penalty is part of the loss."""
    data, model = make_data(task, config).to(torch.device("cpu"), torch.float64), make_model(task, config).double()
    penalty: Any = task.optional.penalty
    optimizer, losses = torch.optim.SGD(model.parameters(), config["lr"]), []
    for epoch in range(1, config["epochs"] + 1):
        for batch in data.batches([config["seed"]], epoch, config["batch_size"]):
            inputs, targets = data.gather(batch[0])
            term = penalty(model, config=config) if penalty is l1 else penalty(model, inputs, config)
            loss = cross_entropy(model(inputs), targets).mean() + term.mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


@pytest.mark.parametrize(
    ("penalty", "engine", "used"),
    [
        (l1, "auto", "stacked"),
        (l1, "stacked", "stacked"),
        (l1, "vmap", "vmap"),
        (l1, "loop", "loop"),
        (functional_gradient_penalty, "auto", "vmap"),
        (functional_gradient_penalty, "loop", "loop"),
        (gradient_penalty, "loop", "loop"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_penalty_trains_as_in_a_plain_torch_loop(penalty: Any, engine: str, used: str) -> None:
    task = make_task(penalty)
    for config, history in zip(CONFIGS, train_all(task, engine, used), strict=True):
        assert list(history.curves["train/loss"].values()) == pytest.approx(plain_losses(task, config), rel=1e-9)


def test_the_loss_of_held_out_data_has_no_penalty() -> None:
    with_penalty, without = (train_all(make_task(penalty), "loop", "loop")[4] for penalty in (l1, None))
    assert with_penalty.curves["train/loss"][0] > without.curves["train/loss"][0] + 0.5
    frozen = {**CONFIGS[4], "lr": 0.0, "epochs": 1}
    values = [
        histories(train(make_stack([run_of(frozen)], task="", stop=None, runtime=Runtime()), task, "cpu"))
        for task in (make_task(l1), make_task(None))
    ]
    assert values[0]["run00000"].last("val/loss") == values[1]["run00000"].last("val/loss")


def test_a_penalty_that_torch_func_cannot_map_trains_one_by_one_and_says_why() -> None:
    events = train_events(make_task(gradient_penalty), "auto")
    assert {history.started.way for history in histories(events).values() if history.started} == {"loop"}
    notes = [event.text for event in events if hasattr(event, "text")]
    assert any("trained alone, because RuntimeError" in note and "test_penalties.py" in note for note in notes)


def test_microbatches_add_up_to_the_penalty_of_a_batch() -> None:
    whole, parts = (train_all(make_task(l1, microbatch_size=size), "loop", "loop") for size in (None, 3))
    for one, other in zip(whole, parts, strict=True):
        assert one.curves["train/loss"] == pytest.approx(other.curves["train/loss"], rel=1e-9)


def test_a_penalized_stack_resumes(tmp_path: Path) -> None:
    task = make_task(l1)
    interrupted = train_interrupted(task, CONFIGS, tmp_path, Runtime(precision="float64"))
    assert interrupted == [without_times(history) for history in train_all(task, "auto", "stacked")]


@pytest.mark.parametrize("result", [1.0, torch.ones(3), torch.ones(10, 2)])
def test_a_penalty_of_another_shape_is_refused(result: Any) -> None:
    with pytest.raises(InputError, match="penalty must be a tensor of one real number, or of one per sample"):
        train_events(make_task(lambda model: result), "auto")


def test_a_penalty_with_unknown_arguments_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Task:\n    params = {}\n    def data(self, config): ...\n    def model(self, config): ...\n"
        "    def penalty(self, model, targets): ...\n"
    )
    with pytest.raises(InputError, match="needs `targets`: it is called with model, inputs and config alone"):
        load_task(f"{tmp_path / 'mine.py'}:Task")
