"""Moving averages of the weights (`ema_decay`), alike for all engines and for torch's AveragedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers.training import CPU, History, histories, raise_failure, run_of, train_interrupted, without_times
from labbench.records import Runtime
from labbench.runner.planner import make_stack
from labbench.train.checkpoints import read_safetensors
from labbench.train.data.dataset import Data
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, make_data, make_model

CONFIGS: list[dict[str, Any]] = [
    {"lr": 0.1, "seed": seed, "epochs": epochs, "batch_size": 10, "momentum": 0.9, "ema_decay": decay}
    for decay, epochs in ((None, 3), (0.5, 4), (0.9, 3))
    for seed in (0, 1)
]


def make_task(has_validation: bool = True) -> FileTask:
    torch.manual_seed(0)
    x = torch.randn(100, 4)
    y = (x[:, 0] > 0.5).long()
    data = Data((x[:50], y[:50]), (x[50:], y[50:]) if has_validation else None)
    return FileTask({}, lambda _: data, make_net, cross_entropy, accuracy)


def make_net(config: Any) -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2), nn.Linear(2, 2))
    net[4].requires_grad_(False)
    return net


def train_all(task: FileTask, runtime: Runtime, files: Path | None = None) -> list[History]:
    runs = [run_of(config, str(number)) for number, config in enumerate(CONFIGS)]
    stack = make_stack(runs, task="", stop=None, runtime=runtime, files=None if files is None else str(files))
    by_run = histories(raise_failure(train(stack, task, "cpu")))
    assert {history.started.way for history in by_run.values() if history.started} == {runtime.engine}
    return [by_run[str(number)] for number in range(len(CONFIGS))]


def train_plainly(task: FileTask, config: dict[str, Any]) -> tuple[nn.Module, list[float]]:
    """Return the averaged model of a torch loop, and its validation loss after each epoch."""
    data, model = make_data(task, config).to(CPU, torch.float64), make_model(task, config).double()
    optimizer, decay = (
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], config["lr"], 0.9),
        config["ema_decay"],
    )
    averaged = model if decay is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    losses = []
    for epoch in range(1, config["epochs"] + 1):
        model.train()
        for batch in data.batches([config["seed"]], epoch, config["batch_size"]):
            inputs, targets = data.gather(batch[0])
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).mean().backward()
            optimizer.step()
            if isinstance(averaged, AveragedModel):
                averaged.update_parameters(model)
                for average, buffer in zip(averaged.module.buffers(), model.buffers(), strict=True):
                    average.copy_(buffer)
        averaged.eval()
        if data.val is not None:
            with torch.no_grad():
                losses.append(cross_entropy(averaged(data.val[0]), data.val[1]).mean().item())
    return (averaged.module if isinstance(averaged, AveragedModel) else averaged), losses


@pytest.mark.parametrize("engine", ["stacked", "vmap", "loop"])
@pytest.mark.parametrize("has_validation", [True, False])
def test_averaged_weights_are_evaluated_and_kept(engine: Any, has_validation: bool, tmp_path: Path) -> None:
    task = make_task(has_validation)
    trained = train_all(task, Runtime(precision="float64", engine=engine, keep="last"), tmp_path)
    for number, (config, history) in enumerate(zip(CONFIGS, trained, strict=True)):
        model, losses = train_plainly(task, config)
        if has_validation:
            assert list(history.curves["val/loss"].values()) == pytest.approx(losses, rel=1e-9)
        kept, _ = read_safetensors(tmp_path / str(number) / "model.safetensors", CPU)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(kept[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ["stacked", "vmap", "loop"])
def test_averages_resume(engine: Any, tmp_path: Path) -> None:
    """Runs of a stack leave it at different epochs, so that averages are also taken over by a narrower stack."""
    task, runtime = make_task(), Runtime(precision="float64", engine=engine)
    interrupted = train_interrupted(task, CONFIGS, tmp_path, runtime)
    for resumed, history in zip(interrupted, train_all(task, runtime), strict=True):
        for name, curve in without_times(history).items():
            assert resumed[name] == pytest.approx(curve, rel=1e-10), name
