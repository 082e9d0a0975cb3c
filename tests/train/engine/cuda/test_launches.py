"""The kernels that a step launches on CUDA, counted on `meta` by bench/launches.py."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from helpers.programs import load_program
from labbench.train.engine.cpu.backprop import Backprop


@pytest.fixture(scope="module")
def launches() -> ModuleType:
    return load_program("bench/launches.py")


@pytest.mark.parametrize(("case", "most"), [("mlp", 60), ("mlp, dropout, batch norm", 60), ("cnn28", 120)])
def test_a_stacked_step_launches_few_kernels_whatever_its_width(launches: ModuleType, case: str, most: int) -> None:
    counts = [launches.count_stacked_step(launches.CASES[case], runs).launches for runs in (2, 16)]
    assert counts[0] <= counts[1] <= most


@pytest.mark.parametrize("case", ["mlp", "mlp, dropout, batch norm", "cnn28"])
def test_a_captured_step_is_a_graph_and_at_most_three_copies(launches: ModuleType, case: str) -> None:
    _, outside = launches.count_captured_step(launches.CASES[case], 3)
    assert set(outside.kernels) <= {"copy_", "clone"}
    assert outside.launches <= 3


def test_more_metrics_do_not_need_more_copies(launches: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def many(outputs: Any, targets: Any) -> dict[str, Any]:
        return {f"metric{index}": outputs[:, index] for index in range(8)}

    monkeypatch.setattr(launches, "accuracy", many)
    _, outside = launches.count_captured_step(launches.CASES["mlp"], 3)
    assert outside.launches <= 3


def test_the_counted_steps_do_not_use_the_kernels_of_the_cpu(
    launches: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("hand-written kernels of the CPU")

    monkeypatch.setattr(Backprop, "__init__", fail)
    assert launches.count_stacked_step(launches.CASES["mlp"], 2).kernels["threshold_backward"] == 2  # autograd


def test_an_operator_without_a_weight_is_an_error(launches: ModuleType) -> None:
    with pytest.raises(launches.UnknownOperator, match="aten::cumprod"), launches.LaunchCounter():
        torch.zeros(3, device="meta").cumprod(0)
