"""Every way of stepping keeps its tensors on the device; on `meta`, which stands for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.meta_training import (
    BATCH_SIZE,
    META,
    SETTINGS,
    STACKED_MODELS,
    VMAP_MODELS,
    ModelFunction,
    single_stepper,
    stacked_stepper,
    workload_of,
)
from labbench.records import Config
from labbench.train.data.dataset import Data
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.cuda.device_check import DeviceCheck, DeviceError
from labbench.train.engine.cuda.meta_kernels import gpu_optimizers
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.host_copies import SyncPoint, to_device, to_host
from labbench.train.tasks.losses import accuracy, cross_entropy

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
                assert losses.shape == metrics["accuracy"].shape == batch.shape
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


def test_embeddings_stay_on_the_device() -> None:
    def tokens(config: Config) -> Data:
        return Data(
            *[(torch.zeros(count, 6, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)) for count in (30, 10)]
        )

    workload = workload_of(lambda config: nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(24, 10)), tokens)
    assert not train_and_evaluate(stacked_stepper("stacked", workload, {}), 3).copies


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


@pytest.mark.parametrize("fault", ["bmm", "index_select", "copy_", "item", "cpu", "upload", "tensor", "write by a mask"])
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


def test_a_sync_point_allows_copies_and_counts_them() -> None:
    on_host = torch.zeros(5)
    with DeviceCheck(META) as check:
        array = to_host(ON_META["matrices"], SyncPoint.FLUSH)
        ON_META["vector"] + to_device(on_host, META)
    assert array.shape == (2, 3, 4)
    assert check.copies == {SyncPoint.FLUSH: 1}
    assert check.uploads == 1
