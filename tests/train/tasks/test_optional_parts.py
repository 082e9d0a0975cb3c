"""Metrics of a whole split, parameter groups and own optimizers of a task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from helpers.training import History, histories, run_of, train_run
from labbench.errors import InputError
from labbench.records import Event, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.optional_parts import OptionalParts, compute_epoch_metrics, make_parameter_groups
from labbench.train.tasks.task import FileTask, load_task, make_data, make_model

CONFIGS = [{"lr": lr, "seed": seed, "epochs": 2, "batch_size": 10} for lr in (0.1, 0.05) for seed in (0, 1)]


def make_task(**parts: Any) -> FileTask:
    torch.manual_seed(0)
    x = torch.randn(100, 4)
    y = (x[:, 0] > 0.5).long()
    data = Data((x[:50], y[:50]), (x[50:], y[50:]), (x, y))
    task = FileTask(
        {},
        lambda _: data,
        lambda _: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)),
        cross_entropy,
        accuracy,
    )
    return replace(task, optional=OptionalParts(**parts))


def train_events(task: FileTask, engine: Any = "auto", configs: list[dict[str, Any]] = CONFIGS) -> list[Event]:
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    runtime = Runtime(precision="float64", engine=engine)
    return list(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu"))


def train_all(task: FileTask, engine: Any = "auto") -> list[History]:
    by_run = histories(train_events(task, engine))
    return [by_run[str(number)] for number in range(len(CONFIGS))]


def whole_split(outputs: Tensor, targets: Tensor, config: Any) -> dict[str, Any]:
    assert len(outputs) == len(targets) >= 50
    hits = (outputs.argmax(1) == targets).numpy()
    return {"accuracy again": hits.mean(), "lr": config["lr"], "hits": torch.tensor(hits.sum())}


def test_epoch_metrics_see_a_whole_split_and_agree_between_the_engines() -> None:
    task = make_task(epoch_metrics=whole_split, evaluation_batch_size=8)
    by_engine = {engine: train_all(task, engine) for engine in ("stacked", "vmap", "loop")}
    for engine, trained in by_engine.items():
        assert {history.started.way for history in trained if history.started} == {engine}
        for config, history, reference in zip(CONFIGS, trained, by_engine["loop"], strict=True):
            assert history.last("val/lr") == config["lr"]
            assert history.last("test/hits") == pytest.approx(100 * history.last("test/accuracy"))
            for name in ("val/accuracy again", "val/hits", "val/loss"):
                assert history.curves[name] == pytest.approx(reference.curves[name])
            assert history.curves["val/accuracy again"] == pytest.approx(history.curves["val/accuracy"])


class Outputs(NamedTuple):
    scores: Tensor
    hidden: Tensor


class WithHidden(nn.Module):
    """A network with a named tuple of outputs, or a tuple with None."""

    def __init__(self, *, named: bool) -> None:
        super().__init__()
        self.layer, self.head, self.named = nn.Linear(4, 5), nn.Linear(5, 2), named

    def forward(self, inputs: Tensor) -> Any:
        hidden = self.layer(inputs).tanh()
        return Outputs(self.head(hidden), hidden) if self.named else (self.head(hidden), None)


@pytest.mark.parametrize("named", [True, False])
def test_epoch_metrics_get_the_outputs_in_the_form_that_the_model_returns(named: bool) -> None:
    def epoch_metrics(outputs: Any, targets: Tensor) -> dict[str, Any]:
        assert isinstance(outputs, Outputs) if named else outputs[1] is None
        return {"hits": (outputs[0].argmax(1) == targets).sum()}

    task = replace(
        make_task(epoch_metrics=epoch_metrics),
        model=lambda _: WithHidden(named=named),
        loss=lambda outputs, targets: cross_entropy(outputs[0], targets),
        metrics=lambda outputs, targets: accuracy(outputs[0], targets),
    )
    trained = train_all(task)
    assert {history.started.way for history in trained if history.started} == {"vmap" if named else "loop"}
    for history in trained:
        assert history.last("val/hits") == pytest.approx(50 * history.last("val/accuracy"))


@pytest.mark.parametrize(
    ("result", "complaint"),
    [(3.0, "must return a dict"), ({"loss": 1.0}, "reserved"), ({"matrix": torch.ones(2, 2)}, "must be one number")],
)
def test_epoch_metrics_must_be_numbers(result: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        compute_epoch_metrics(lambda outputs, targets: result, torch.ones(2, 2), torch.ones(2))


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(4, 2), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(self.dropout(x))
        return scores


@pytest.mark.parametrize("engine", ["stacked", "vmap", "loop"])
def test_metrics_of_the_training_data_can_be_measured_in_eval_mode(engine: Any) -> None:
    """With the training data as validation data, both are equal."""
    dropped: Any = (
        (lambda _: Dropped()) if engine == "vmap" else lambda _: nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
    )
    task = replace(make_task(epoch_metrics=whole_split, train_metrics="eval"), model=dropped)
    data = task.data({})
    same = replace(task, data=lambda _: Data(data.train, data.train))  # type: ignore[union-attr]
    for history in train_all(same, engine):
        assert history.started.way == engine  # type: ignore[union-attr]
        assert history.curves["train/eval_loss"] == history.curves["val/loss"]
        for name in ("accuracy", "accuracy again", "hits"):
            assert history.curves[f"train/{name}"] == history.curves[f"val/{name}"]
        assert set(history.curves["gap/accuracy"].values()) == {0.0}
    in_steps = train_all(replace(same, optional=OptionalParts()), engine)
    assert in_steps[0].curves["train/accuracy"] != in_steps[0].curves["val/accuracy"]
    assert "train/eval_loss" not in in_steps[0].curves


def decay_weights(model: nn.Module, config: Any) -> list[dict[str, Any]]:
    weights = [p for p in model.parameters() if p.dim() > 1]
    return [
        {"params": weights, "weight_decay": 0.5},
        {"params": (p for p in model.parameters() if p.dim() == 1), "lr": config["lr"] / 10},
    ]


@pytest.mark.parametrize("own", [False, True])
def test_parameter_groups_and_an_own_optimizer_train_as_a_plain_torch_loop(own: bool) -> None:
    def make_optimizer(params: Any, config: Any) -> torch.optim.Optimizer:
        return torch.optim.NAdam(params, lr=config["lr"])

    task = make_task(parameter_groups=decay_weights, optimizer=make_optimizer if own else None)
    config = {**CONFIGS[0], "optimizer": "adam", "schedule": "cosine"}
    trained = histories(train_events(task, configs=[config]))["0"]
    full = {**config, "momentum": 0.0}
    data, model = make_data(task, full).to(torch.device("cpu"), torch.float64), make_model(task, full).double()
    groups = decay_weights(model, full)
    optimizer = torch.optim.NAdam(groups, lr=0.1) if own else torch.optim.Adam(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    losses = []
    for epoch in (1, 2):
        for batch in data.batches([0], epoch, 10):
            inputs, targets = data.gather(batch[0])
            loss = cross_entropy(model(inputs), targets).mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    assert list(trained.curves["train/loss"].values()) == pytest.approx(losses, rel=1e-9)


def test_microbatches_train_as_whole_batches() -> None:
    whole, parts = train_all(make_task(), "loop"), train_all(make_task(microbatch_size=3))
    for one, other in zip(whole, parts, strict=True):
        for metric in one.curves.keys() - {"time/compute_s"}:
            assert one.curves[metric] == pytest.approx(other.curves[metric], rel=1e-9), metric


class Tempered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.temperature = nn.Linear(4, 2), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), self.temperature.expand(len(x))


def tempered_loss(outputs: Any, targets: Tensor) -> Tensor:
    return cross_entropy(outputs[0] * outputs[1].exp().unsqueeze(1), targets)


def test_a_parameter_of_the_loss_that_the_model_returns_is_trained_alike_in_a_stack_and_alone() -> None:
    task = replace(make_task(), model=lambda _: Tempered(), loss=tempered_loss)
    stacked, alone = train_all(task), train_all(task, "loop")
    assert {history.started.way for history in stacked if history.started} == {"vmap"}
    for one, other in zip(stacked, alone, strict=True):
        assert one.curves["train/loss"] == pytest.approx(other.curves["train/loss"], rel=1e-9)


def test_runs_with_parameter_groups_train_one_by_one_and_say_why() -> None:
    events = train_events(make_task(parameter_groups=decay_weights))
    assert {history.started.way for history in histories(events).values() if history.started} == {"loop"}
    notes = [event.text for event in events if hasattr(event, "text")]
    assert any("trained alone, because the task has its own parameter_groups" in note for note in notes)


def test_groups_that_leave_out_a_parameter_are_refused() -> None:
    parts = OptionalParts(parameter_groups=lambda model, config: [{"params": [model.weight]}])
    with pytest.raises(InputError, match="leaves out bias"):
        make_parameter_groups(parts, nn.Linear(2, 2), {})


def test_the_optional_parts_of_a_class_in_a_file_are_used(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom torch import nn\nfrom labbench import Data\n"
        "class Task:\n    params = {}\n    evaluation_batch_size = 4\n"
        "    def data(self, config):\n        x = torch.randn(20, 2)\n        y = (x[:, 0] > 0).long()\n"
        "        return Data((x, y), (x, y))\n"
        "    def model(self, config):\n        return nn.Linear(2, 2)\n"
        "    def epoch_metrics(self, outputs, targets):\n        return {'count': len(outputs)}\n"
        "    def optimizer(self, params, config):\n        return torch.optim.NAdam(params, lr=config['lr'])\n"
    )
    assert train_run({"epochs": 1}, task=load_task(f"{file}:Task")).last("val/count") == 20
    file.write_text(file.read_text().replace("evaluation_batch_size = 4", "evaluation_batch_size = 0"))
    with pytest.raises(InputError, match="evaluation_batch_size must be an integer of at least 1"):
        load_task(f"{file}:Task")
    file.write_text(file.read_text().replace("evaluation_batch_size = 0", "train_metrics = True"))
    with pytest.raises(InputError, match='train_metrics must be "train" or "eval", not True'):
        load_task(f"{file}:Task")
