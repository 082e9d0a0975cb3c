"""`[runtime] watch = true` records gradient norms and dead units by layer and affects nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from click.testing import Result
from torch import nn

from helpers.training import History, histories, run_of, train_run
from labbench.records import Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data, load_digits
from labbench.train.diagnostics.probe import NetworkProbe
from labbench.train.engine.stepper import Workload
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, load_task

WATCHING = Runtime(watch=True)
CONFIG: dict[str, Any] = {"hidden": [16, 8], "epochs": 2, "dropout": 0.5, "batchnorm": True, "activation": "tanh"}


def train_stack(runtime: Runtime) -> dict[str, History]:
    runs = [run_of({**CONFIG, "seed": seed}, f"run0000{seed}") for seed in range(3)]
    return histories(train(make_stack(runs, task="digits", stop=None, runtime=runtime), load_task("digits"), "cpu"))


def without(history: History, *kinds: str) -> dict[str, dict[int, float]]:
    return {name: curve for name, curve in history.curves.items() if not name.startswith(kinds)}


def test_watching_changes_no_other_metric_alone_or_in_a_stack() -> None:
    pairs = [(train_run(CONFIG, runtime=WATCHING), train_run(CONFIG))]
    watched, unwatched = train_stack(WATCHING), train_stack(Runtime())
    pairs += [(watched[run], unwatched[run]) for run in unwatched]
    for history, expected in pairs:
        assert len(history.curves) > len(expected.curves)
        assert without(history, "grad_norm/", "dead/", "time/") == without(expected, "time/")


def test_layers_are_named_by_index_and_class_and_measured_once_per_epoch() -> None:
    history = train_run(CONFIG, runtime=WATCHING)
    measured = {name: curve for name, curve in history.curves.items() if name.startswith(("grad_norm/", "dead/"))}
    assert set(measured) == {
        "grad_norm/1.linear", "grad_norm/2.batchnorm1d", "dead/3.tanh",
        "grad_norm/5.linear", "grad_norm/6.batchnorm1d", "dead/7.tanh", "grad_norm/9.linear",
    }  # fmt: skip
    assert all(len(curve) == 2 for curve in measured.values())
    assert all(
        value > 0 for name, curve in measured.items() if name.startswith("grad_norm/") for value in curve.values()
    )


def test_a_grid_file_turns_watching_on(labbench: Callable[..., Result], tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "digits"\n[params]\nepochs = 1\nhidden = [8]\n[runtime]\nwatch = true\n')
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 0, result.stderr
    [run] = json.loads(labbench("ls", "--json").stdout)
    assert run["summary"]["grad_norm/1.linear"]["n"] == run["summary"]["dead/2.relu"]["n"] == 1
    assert "watch" not in run["config"]


def make_probe(model: nn.Module) -> tuple[NetworkProbe, Data]:
    data = load_digits()
    task = FileTask({}, lambda config: data, lambda config: model, cross_entropy, accuracy)
    return NetworkProbe({"seed": 0}, Workload(task, data, 64)), data


def test_gradient_norms_are_of_the_mean_loss() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 10))
    measured = make_probe(model)[0].measure(model.state_dict(), {})
    inputs, targets = (part[:256] for part in load_digits().val)
    nn.functional.cross_entropy(model(inputs), targets).backward()
    for number in (1, 3):
        grads = [parameter.grad.flatten() for parameter in model[number].parameters()]
        assert measured[f"grad_norm/{number}.linear"] == pytest.approx(torch.cat(grads).norm().item(), rel=1e-5)


def test_dead_units_are_counted_and_a_channel_is_one_unit() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.Sigmoid(), nn.Linear(8, 10)
    )
    with torch.no_grad():
        model[0].bias[:3] = -1e6  # three of four channels are below zero everywhere
        model[3].bias[:2] = 1e6  # two of eight units are at 1 for every sample
        model[3].weight[2:] *= 1e-3
    measured = make_probe(model)[0].measure(model.state_dict(), {})
    assert (measured["dead/1.relu"], measured["dead/4.sigmoid"]) == (0.75, 0.25)
    assert measured["grad_norm/0.conv2d"] > 0


def test_a_network_that_is_dead_throughout_has_no_gradient_below() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 10))
    with torch.no_grad():
        model[1].bias[:] = -1e6
    measured = make_probe(model)[0].measure(model.state_dict(), {})
    assert measured["dead/2.relu"] == 1.0
    assert measured["grad_norm/1.linear"] == 0.0
    assert measured["grad_norm/3.linear"] > 0.0
