"""What a CUDA graph cannot hold is refused before the capture; on `meta`, which stands for a GPU."""

from __future__ import annotations

from collections.abc import Callable
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
    stacked_stepper,
    workload_of,
)
from labbench.records import Config
from labbench.train.engine.cuda.capture_check import CaptureCheck, CaptureError
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper
from labbench.train.engine.stepper import Workload
from labbench.train.grouping import arrange

MLP: ModelFunction = STACKED_MODELS["linear, relu"]


def check_step(engine: str, workload: Workload, config: Config) -> None:
    """Do a captured step on `meta` inside the check, after one that sets up its tables."""
    stepper = CudaGraphStepper(stacked_stepper(engine, workload, config), BATCH_SIZE)
    stepper.train(True)
    stepper.step(torch.zeros(3, BATCH_SIZE, dtype=torch.int64, device=META))
    with CaptureCheck(META):
        stepper.update()


@pytest.mark.parametrize("layers", STACKED_MODELS)
def test_a_graph_can_hold_a_step_of_every_stacked_layer(layers: str) -> None:
    check_step("stacked", workload_of(STACKED_MODELS[layers]), {})


@pytest.mark.parametrize("layers", VMAP_MODELS)
def test_a_graph_can_hold_a_step_of_the_layers_inside_vmap(layers: str) -> None:
    check_step("vmap", workload_of(VMAP_MODELS[layers]), {})


@pytest.mark.parametrize("engine", ["stacked", "vmap"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_graph_can_hold_a_step_with_every_setting(engine: str, settings: str) -> None:
    check_step(engine, workload_of(STACKED_MODELS["dropout"]), SETTINGS[settings])


@pytest.mark.parametrize("engine", ["stacked", "vmap"])
def test_a_graph_can_hold_a_penalty_with_numbers_of_python(engine: str) -> None:
    def penalty(model: nn.Module) -> Tensor:
        return 0.01 * torch.stack([parameter.abs().sum() for parameter in model.parameters()]).sum()

    check_step(engine, workload_of(MLP, penalty=penalty), {})


X = torch.zeros(4, 3, device=META)

REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "tensor": (lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device), "copies numbers from the host"),
    "new_tensor": (lambda x: x + x.new_tensor([1.0]), "copies numbers from the host"),
    "as_tensor": (lambda x: torch.as_tensor(np.ones(3), device=x.device), "copies numbers from the host"),
    "index by a list": (lambda x: x[[0, 2]], "copies numbers from the host"),
    "index by an array": (lambda x: x[:, np.array([0, 2])], "copies numbers from the host"),
    "to": (lambda x: torch.zeros(3).to(x.device), "uses a tensor on cpu"),
    "copy_": (lambda x: torch.empty_like(x).copy_(ON_HOST), "uses a tensor on cpu"),
    "upload": (lambda x: ON_HOST.to(x.device), "from the host to the device"),
    "scalar on the host": (lambda x: x * SCALAR_ON_HOST, "uses a tensor on cpu"),
    "cpu": (lambda x: x.cpu(), "from the device to the host"),
    "item": (lambda x: x.sum().item(), "reads a value"),
    "condition": (lambda x: x if x.sum() > 0 else -x, "reads a value"),
    "equal": (lambda x: torch.equal(x, x), "reads a value"),
    "mask": (lambda x: x[x > 0], "size that depends on data"),
    "write by a mask": (lambda x: torch.empty_like(x).index_put_((x > 0,), x[0, 0]), "size that depends on data"),
    "nonzero": (lambda x: x.nonzero(), "size that depends on data"),
    "unique": (lambda x: x.unique(), "size that depends on data"),
    "bincount": (lambda x: x[0].long().bincount(), "size that depends on data"),
    "rand": (lambda x: x + torch.rand_like(x), "draws from torch's generator"),
    "dropout": (lambda x: F.dropout(x, 0.5), "draws from torch's generator"),
    "permutation": (lambda x: torch.randperm(3, device=x.device), "draws from torch's generator"),
}

ON_HOST, SCALAR_ON_HOST = torch.zeros(4, 3), torch.tensor(2.0)


@pytest.mark.parametrize("fault", REFUSED)
def test_a_graph_cannot_hold(fault: str) -> None:
    function, reason = REFUSED[fault]
    with pytest.raises(CaptureError, match=reason), CaptureCheck(META):
        function(X)


def test_a_graph_can_hold() -> None:
    with CaptureCheck(META):
        indices = torch.arange(2, device=META)
        X[indices], X[1:, None], torch.full_like(X, 2.0), X.masked_fill(X > 0, 0.0)
        F.dropout(X, 0.5, training=False)
        F.scaled_dot_product_attention(*[torch.zeros(2, 2, 4, 8, device=META)] * 3)


@pytest.mark.parametrize("engine", ["stacked", "vmap"])
def test_the_reason_and_its_line_are_in_the_log_of_the_runs(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square().sum(1) * torch.tensor([1.0], device=outputs.device)

    workload = workload_of(MLP, loss=loss)
    monkeypatch.setattr(arrange, "can_capture", lambda workload: True)
    stack = stacked_stepper(engine, workload, {})
    stepper, note = arrange.try_cuda_graph(stack, workload)
    assert stepper is stack
    assert note is not None
    assert note.startswith("stepped without a CUDA graph, because ")
    assert "CaptureError: tensor copies numbers from the host to the device (test_capture_check.py:" in note
