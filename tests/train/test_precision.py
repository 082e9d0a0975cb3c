"""`[runtime] precision = "bf16"`, `tf32` and `compile`: the same runs with faster arithmetic, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from helpers.cuda import needs_cuda
from helpers.training import CPU, History, histories, run_of
from labbench.errors import InputError
from labbench.grid.read import read_grid
from labbench.records import Config, Log, Runtime, Started
from labbench.runner.planner import make_stack
from labbench.train import precision
from labbench.train.data.dataset import Data, load_digits
from labbench.train.loop import train
from labbench.train.precision import Precision, prepare_device
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask

BF16 = Runtime(precision="bf16")


class Residual(nn.Module):
    """Model with a custom forward, which is stacked by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)
        self.norm, self.dropout = nn.BatchNorm1d(32), nn.Dropout(0.2)

    def forward(self, inputs: Tensor) -> Tensor:
        x = torch.relu(self.first(inputs.flatten(1)))
        scores: Tensor = self.head(x + self.dropout(self.norm(self.second(x))))
        return scores


def supported_cnn(config: Config) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(36, 10),
    )


def plain(config: Config) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def train_runs(model: Callable[[Config], nn.Module], runs: int, runtime: Runtime) -> list[History]:
    digits = load_digits()
    data = Data((digits.train[0][:320], digits.train[1][:320]), (digits.val[0][:64], digits.val[1][:64]))
    task = FileTask({}, lambda config: data, model, cross_entropy, accuracy)
    config: dict[str, Any] = {"epochs": 3, "batch_size": 32, "lr": 0.1}
    members = [run_of({**config, "seed": seed}, str(seed)) for seed in range(runs)]
    stack = make_stack(members, task="digits", stop=None, runtime=runtime)
    return list(histories(train(stack, task, "cpu")).values())


def losses(history: History) -> list[float]:
    return list(history.curves["train/loss"].values())


@pytest.mark.parametrize(
    ("model", "runs", "way"),
    [
        (supported_cnn, 1, "loop"),
        (supported_cnn, 2, "stacked"),
        (lambda config: Residual(), 1, "loop"),
        (lambda config: Residual(), 2, "vmap"),
    ],
)
def test_bf16_trains_with_every_engine_to_rounding(model: Callable[[Config], nn.Module], runs: int, way: str) -> None:
    rounded, exact = train_runs(model, runs, BF16), train_runs(model, runs, Runtime())
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.started is not None
        assert ours.started.way == way
        assert losses(ours) != losses(theirs)
        assert losses(ours) == pytest.approx(losses(theirs), rel=0.1)


def test_bf16_keeps_weights_and_outputs_in_float32() -> None:
    model, seen = nn.Linear(8, 4), []
    model.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs.dtype))
    outputs = Precision(bf16=True).run_forward(
        CPU, lambda: {"scores": model(torch.ones(2, 8)), "class": torch.tensor(3)}
    )
    assert seen == [torch.bfloat16]
    assert outputs["scores"].dtype == model.weight.dtype == torch.float32
    assert outputs["class"].dtype == torch.int64


def test_a_model_that_refuses_bf16_in_a_stack_trains_alone() -> None:
    class Choosy(nn.Module):
        """Raises on bfloat16 under vmap, so only in a stack."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.scale, self.head = (
                nn.Linear(64, 16, bias=False),
                nn.Parameter(torch.ones(16)),
                nn.Linear(16, 10),
            )

        def forward(self, inputs: Tensor) -> Tensor:
            x = self.first(inputs.flatten(1))
            if x.dtype == torch.bfloat16 and torch._C._functorch.is_batchedtensor(x):
                raise RuntimeError("no bfloat16 here")
            scores: Tensor = self.head(x * self.scale)
            return scores

    histories = train_runs(lambda config: Choosy(), 2, BF16)
    assert {history.started.way for history in histories if history.started} == {"loop"}
    assert all(history.finished and history.finished.status == "finished" for history in histories)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by torch about its own code
def test_a_compiled_stack_trains_the_same_runs() -> None:
    from torch._dynamo.utils import counters  # takes a second

    if precision.compile_error("cpu") is not None:
        pytest.skip(f"no compiler available: {precision.compile_error('cpu')}")
    counters.clear()
    compiled = train_runs(plain, 2, Runtime(compile=True))
    assert counters["stats"]["unique_graphs"] > 0
    eager = train_runs(plain, 2, Runtime())
    for ours, theirs in zip(compiled, eager, strict=True):
        assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiling_without_a_compiler_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("/nowhere/c++",))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    monkeypatch.delenv("CXX", raising=False)
    precision.compile_error.cache_clear()
    torch._dynamo.reset()
    try:
        with pytest.raises(InputError, match=r"compile = true: torch cannot compile on cpu here \(.+\)"):
            train_runs(plain, 2, Runtime(compile=True))
    finally:
        precision.compile_error.cache_clear()
        torch._dynamo.reset()


def test_the_options_are_read_from_a_grid(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "digits"\n[runtime]\nprecision = "bf16"\ntf32 = true\ncompile = true\n')
    assert read_grid(grid).runtime == Runtime(precision="bf16", tf32=True, compile=True)


@needs_cuda
@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_off_by_default(tf32: bool) -> None:
    prepare_device("cuda:0", tf32=tf32)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32


class Convolving(nn.Module):
    """Convolution and matrix product in a custom forward: under vmap, autocast affects the product alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.convolution(inputs).relu().flatten(1))
        return scores


def test_runs_train_alone_if_bf16_does_not_reach_all_layers_of_their_stack() -> None:
    digits = load_digits()
    data = Data((digits.train[0][:96], digits.train[1][:96]), (digits.val[0][:32], digits.val[1][:32]))
    task = FileTask({}, lambda config: data, lambda config: Convolving(), cross_entropy, accuracy)
    runs = [run_of({"epochs": 1, "batch_size": 32, "seed": seed}, str(seed)) for seed in range(3)]
    for runtime, expected in ((BF16, {"loop"}), (Runtime(), {"vmap"})):
        events = list(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu"))
        assert {event.way for event in events if isinstance(event, Started) and event.run != "0"} == expected
        logs = "".join(event.text for event in events if isinstance(event, Log))
        assert ("bfloat16 reaches" in logs) == (runtime is BF16)
