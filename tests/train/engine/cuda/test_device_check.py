"""Every way of stepping keeps its tensors on the device; on `meta`, which stands for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.data import TensorDataset

from helpers.meta_training import (
    BATCH_SIZE,
    META,
    SETTINGS,
    STACKED_MODELS,
    VMAP_MODELS,
    ModelFunction,
    images,
    single_stepper,
    stacked_stepper,
    workload_of,
)
from labbench.records import Config
from labbench.train.data import loading
from labbench.train.data.dataset import Data
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.cuda.device_check import DeviceCheck, DeviceError
from labbench.train.engine.cuda.meta_kernels import gpu_optimizers
from labbench.train.engine.schedules import TaskSchedules
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.host_copies import SyncPoint, sync_point, to_device, to_host
from labbench.train.tasks.losses import (
    accuracy,
    classification_accuracy,
    classification_loss,
    cross_entropy,
    prediction_loss,
    prediction_metrics,
)

MLP: ModelFunction = STACKED_MODELS["linear, relu"]
ENGINES = [*product(("stacked", "vmap"), STACKED_MODELS), *product(("vmap",), VMAP_MODELS)]


def make_stepper(way: str, workload: Workload, config: Config) -> Stepper:
    """Return a stepper of one run (`loop`) or of three."""
    if way == "loop":
        with gpu_optimizers():
            return single_stepper(workload, config)
    if way == "captured":
        return CudaGraphStepper(stacked_stepper("stacked", workload, config), BATCH_SIZE)
    return stacked_stepper(way, workload, config)


def train_and_evaluate(stepper: Stepper, runs: int) -> DeviceCheck:
    """Do all that a training does with a stepper, inside a check."""
    with gpu_optimizers(), DeviceCheck(META) as check:
        for epoch in (1, 2):
            stepper.train(True)
            for batch in stepper.data.batches(range(runs), epoch, BATCH_SIZE):
                losses, metrics = stepper.step(batch)
                assert losses.shape == batch.shape
                assert all(values.shape == batch.shape for values in metrics.values())
            stepper.train(False)
            for split in stepper.data.evaluation_batches("val", BATCH_SIZE):
                stepper.evaluate(split)
                stepper.predict(split)
            stepper.weights(0)
            stepper.load([stepper.state(index) for index in range(runs)])
            if runs > 2:
                stepper.keep([0, 2])
                runs = 2
    return check


@pytest.mark.parametrize(("engine", "layers"), ENGINES)
def test_steps_of_every_layer_stay_on_the_device(engine: str, layers: str) -> None:
    workload = workload_of({**STACKED_MODELS, **VMAP_MODELS}[layers])
    for stepper, runs in (
        (stacked_stepper(engine, workload, {}), 3),
        (CudaGraphStepper(stacked_stepper(engine, workload, {}), BATCH_SIZE), 3),
        (single_stepper(workload, {}), 1),
    ):
        assert not train_and_evaluate(stepper, runs).copies


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("way", ["loop", "stacked", "vmap", "captured"])
def test_steps_with_every_setting_stay_on_the_device(way: str, settings: str) -> None:
    stepper = make_stepper(way, workload_of(STACKED_MODELS["dropout"]), SETTINGS[settings])
    assert not train_and_evaluate(stepper, 1 if way == "loop" else 3).copies


@pytest.mark.parametrize("way", ["loop", "stacked", "vmap", "captured"])
def test_penalties_and_configs_of_the_loss_stay_on_the_device(way: str) -> None:
    def penalty(model: nn.Module) -> Tensor:
        return 0.01 * torch.stack([parameter.abs().sum() for parameter in model.parameters()]).sum()

    def loss(outputs: Tensor, targets: Tensor, config: Config) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none") * config["lr"]

    workload = workload_of(MLP, penalty=penalty, loss=loss)
    assert not train_and_evaluate(make_stepper(way, workload, {}), 1 if way == "loop" else 3).copies


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is work of the host, such as reading samples, so that no check looks at it."""

    def call(*args: Any, **keywords: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **keywords)

    return call


def splits_of(inputs: Callable[[int], Any], targets: Callable[[int], Any]) -> Callable[[Config], Data]:
    """Return the function `data` of a task, given functions from a number of samples to inputs and targets."""
    return lambda config: Data(*[(inputs(count), targets(count)) for count in (12, 8, 8)])


def classes(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


def tokens(count: int) -> Tensor:
    return torch.zeros(count, 6, dtype=torch.int64)


def pictures(count: int) -> Tensor:
    return torch.zeros(count, 1, 8, 8)


def embedding(config: Config, *, sparse: bool = False) -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 4, sparse=sparse), nn.Flatten(), nn.Linear(24, 10))


def one_output(config: Config) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))


def frozen(config: Config) -> nn.Module:
    model = STACKED_MODELS["dropout"](config)
    next(model.parameters()).requires_grad_(False)
    return model


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(70, 10)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        scores: Tensor = self.linear(torch.cat([image.flatten(1), numbers], dim=1))
        return scores


Losses = tuple[Callable[..., Tensor], Callable[..., Any]]
TASKS: dict[str, tuple[ModelFunction, Callable[[Config], Data], Losses]] = {
    "embedding": (embedding, splits_of(tokens, classes), (cross_entropy, accuracy)),
    "probabilities": (
        STACKED_MODELS["dropout"],
        splits_of(pictures, lambda count: torch.zeros(count, 10)),
        (cross_entropy, accuracy),
    ),
    "regression": (one_output, splits_of(pictures, torch.zeros), (prediction_loss, prediction_metrics)),
    "perceptron": (one_output, splits_of(pictures, classes), (classification_loss, classification_accuracy)),
    "frozen layer": (frozen, splits_of(pictures, classes), (cross_entropy, accuracy)),
    "two inputs": (
        lambda config: TwoInputs(),
        splits_of(lambda count: (pictures(count), torch.zeros(count, 6)), classes),
        (cross_entropy, accuracy),
    ),
}


@pytest.mark.parametrize(
    ("way", "task"),
    [
        (way, task)
        for way, task in product(("loop", "stacked", "vmap", "captured"), TASKS)
        if task != "two inputs" or way in ("loop", "vmap")
    ],
)
def test_every_kind_of_task_stays_on_the_device(way: str, task: str) -> None:
    model, data, (loss, metrics) = TASKS[task]
    workload = workload_of(model, data, loss=loss, metrics=metrics)
    assert not train_and_evaluate(make_stepper(way, workload, {}), 1 if way == "loop" else 3).copies


def optimizer(parameters: Any, config: Config) -> torch.optim.Optimizer:
    return torch.optim.Adamax(parameters, lr=config["lr"])


LOOP_TASKS: dict[str, Callable[[], Workload]] = {
    "own optimizer": lambda: workload_of(MLP, optimizer=optimizer),
    "parameter groups": lambda: workload_of(
        MLP, parameter_groups=lambda model, config: [{"params": list(model.parameters()), "lr": 0.1}]
    ),
    "microbatches": lambda: workload_of(MLP, microbatch_size=4),
    "sparse embedding": lambda: workload_of(lambda config: embedding(config, sparse=True), splits_of(tokens, classes)),
}


@pytest.mark.parametrize("task", LOOP_TASKS)
def test_tasks_that_train_alone_stay_on_the_device(task: str) -> None:
    check = train_and_evaluate(make_stepper("loop", LOOP_TASKS[task](), {"optimizer": "sgd", "momentum": 0.0}), 1)
    assert check.copies.keys() <= {SyncPoint.FILE, SyncPoint.SETUP}


def scheduler_per_step(optimizer: torch.optim.Optimizer, config: Config) -> Any:
    return {"scheduler": torch.optim.lr_scheduler.LinearLR(optimizer), "interval": "step"}


SCHEDULERS: dict[str, Callable[..., Any]] = {
    "per epoch": lambda optimizer, config: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    "per step": scheduler_per_step,
    "plateau": lambda optimizer, config: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("way", ["loop", "stacked", "vmap", "captured"])
def test_schedulers_of_a_task_stay_on_the_device(way: str, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskSchedules, "__init__", on_host(TaskSchedules.__init__))
    stepper = make_stepper(way, workload_of(MLP, scheduler=SCHEDULERS[scheduler]), {})
    check = train_and_evaluate(stepper, 1 if way == "loop" else 3)
    assert not check.copies


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_a_resumed_run_does_not_wait_for_its_step_count(name: str) -> None:
    stepper = make_stepper("loop", workload_of(MLP), {"optimizer": name})
    batch = torch.zeros(1, BATCH_SIZE, dtype=torch.int64, device=META)
    with gpu_optimizers(), DeviceCheck(META) as check:
        stepper.step(batch)
        state = stepper.state(0)
        from_file = {key: value.to(META, non_blocking=True) for key, value in state.optimizer_state.items()}
        stepper.load([replace(state, optimizer_state=from_file)])
        stepper.step(batch)
    assert check.copies.keys() <= {SyncPoint.SETUP}


@pytest.mark.parametrize("way", ["loop", "stacked", "vmap"])
def test_datasets_stay_on_the_device(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.DatasetSource, "_order", on_host(loading.DatasetSource._order))
    monkeypatch.setattr(loading.DataLoader, "__iter__", on_host(loading.DataLoader.__iter__))
    monkeypatch.setattr(loading.SampleReader, "__getitem__", on_host(loading.SampleReader.__getitem__))
    splits = [TensorDataset(pictures(count), classes(count)) for count in (12, 8, 8)]
    source = loading.DatasetSource(loading.Datasets(*splits), META, torch.float32, 0)
    stepper = make_stepper(way, replace(workload_of(MLP), data=source), {})
    check = train_and_evaluate(stepper, 1 if way == "loop" else 3)
    assert not check.copies
    assert check.uploads


def test_batches_of_data_on_the_host_are_copied_without_waiting() -> None:
    data = images({}).to(META, torch.float32, resident=False)
    batch = data.train[0][:4], data.train[1][:4]
    with DeviceCheck(META) as check:
        inputs, targets = data.to_device(batch)
    assert inputs.device == targets.device == META
    assert check.uploads == 2


ON_META = {
    "images": torch.zeros(2, 3, 8, 8, device=META),
    "matrices": torch.zeros(2, 3, 4, device=META),
    "vector": torch.zeros(5, device=META),
    "indices": torch.zeros(5, dtype=torch.int64, device=META),
}
HOST_VECTOR = torch.zeros(5)

FAULTS: dict[str, Callable[[], Any]] = {
    "bmm": lambda: torch.bmm(ON_META["matrices"], torch.zeros(2, 4, 3)),
    "conv2d": lambda: F.conv2d(ON_META["images"], torch.zeros(4, 3, 3, 3)),
    "index_select": lambda: ON_META["vector"].index_select(0, torch.tensor([1, 2])),
    "copy_": lambda: torch.zeros(5, device=META).copy_(torch.zeros(5)),
    "copy_ to the host": lambda: torch.zeros(5).copy_(ON_META["vector"]),
    "add": lambda: ON_META["vector"] + torch.zeros(5),
    "scalar on the host": lambda: ON_META["vector"] * torch.tensor(2.0),
    "a tensor on the host": lambda: torch.zeros(3) + 1,
    "item": lambda: ON_META["vector"].sum().item(),
    "condition": lambda: bool((ON_META["vector"] > 0).any()),
    "tolist": lambda: ON_META["vector"].tolist(),
    "cpu": lambda: ON_META["vector"].cpu(),
    "to": lambda: ON_META["vector"].to("cpu", torch.float64),
    "upload": lambda: HOST_VECTOR.to(META),
    "tensor": lambda: torch.tensor([1.0, 2.0], device=META),
    "as_tensor": lambda: torch.as_tensor(np.ones(5), device=META),
    "new_tensor": lambda: ON_META["vector"].new_tensor([1.0, 2.0]),
    "index by a list": lambda: ON_META["vector"][[0, 2]],
    "index on the host": lambda: ON_META["vector"][torch.tensor([0, 2])],
    "mask": lambda: ON_META["vector"][ON_META["vector"] > 0],
    "write by a mask": lambda: torch.zeros(5, device=META).index_put_((ON_META["vector"] > 0,), ON_META["vector"]),
    "nonzero": lambda: ON_META["vector"].nonzero(),
    "bincount": lambda: ON_META["indices"].bincount(),
    "repeats": lambda: ON_META["vector"].repeat_interleave(ON_META["indices"]),
    "norms of embeddings": lambda: F.embedding(ON_META["indices"], torch.zeros(9, 4, device=META), max_norm=1.0),
    "inverse": lambda: torch.linalg.inv(torch.zeros(3, 3, device=META)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    with pytest.raises(DeviceError), DeviceCheck(META):
        FAULTS[fault]()


def faulty_workload(place: str, fault: Callable[[], Any]) -> Workload:
    """Return a workload with the fault in the loss, the metrics, the penalty or the forward of a module."""

    def call(function: Callable[..., Any], *args: Any) -> Any:
        fault()
        return function(*args)

    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            fault()
            return x

    parts: dict[str, dict[str, Any]] = {
        "loss": {"loss": lambda outputs, targets: call(cross_entropy, outputs, targets)},
        "metrics": {"metrics": lambda outputs, targets: call(accuracy, outputs, targets)},
        "penalty": {"penalty": lambda model: call(torch.sum, next(model.parameters()))},
        "forward": {},
    }
    model = (lambda config: nn.Sequential(Faulty(), *MLP(config))) if place == "forward" else MLP
    return workload_of(model, **parts[place])


@pytest.mark.parametrize(
    "fault", ["bmm", "index_select", "copy_", "item", "cpu", "upload", "tensor", "write by a mask"]
)
@pytest.mark.parametrize(
    ("way", "place"),
    [
        *product(("loop", "stacked", "vmap", "captured"), ("loss", "metrics", "penalty")),
        *product(("loop", "vmap"), ("forward",)),  # the engine `stacked` has no modules of a user
    ],
)
def test_a_fault_in_the_code_of_a_task_is_found(way: str, place: str, fault: str) -> None:
    stepper = make_stepper(way, faulty_workload(place, FAULTS[fault]), {})
    stepper.train(True)
    with pytest.raises(DeviceError), DeviceCheck(META):
        stepper.step(torch.zeros(1 if way == "loop" else 3, BATCH_SIZE, dtype=torch.int64, device=META))


def test_a_fault_in_a_backward_pass_is_found() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            return torch.bmm(grad, torch.zeros(2, 4, 4))

    x = torch.zeros(2, 3, 4, device=META, requires_grad=True)
    with pytest.raises(DeviceError), DeviceCheck(META):
        Square.apply(x).sum().backward()


def test_host_and_device_do_not_mix_at_a_sync_point() -> None:
    with pytest.raises(DeviceError, match="on the host and on meta"), DeviceCheck(META), sync_point(SyncPoint.PORTRAIT):
        torch.bmm(ON_META["matrices"], torch.zeros(2, 4, 3))


def test_values_that_decide_are_made_up_at_a_sync_point() -> None:
    with DeviceCheck(META), sync_point(SyncPoint.PORTRAIT):
        chosen = (ON_META["vector"] > 0).nonzero()
        assert chosen.shape == (5, 1)
        assert chosen.device == META
        assert bool((ON_META["vector"] > 0).all())
        assert ON_META["vector"].sum().item() == 0.0


def test_a_sync_point_allows_copies_and_counts_them() -> None:
    on_host = torch.zeros(5)
    with DeviceCheck(META) as check:
        array = to_host(ON_META["matrices"], SyncPoint.FLUSH)
        ON_META["vector"] + to_device(on_host, META)
    assert array.shape == (2, 3, 4)
    assert check.copies == {SyncPoint.FLUSH: 1}
    assert check.uploads == 1
