"""Stacks are exact: a run has the same results as alone, whatever its neighbours do."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.training import History, histories, run_of
from labbench.params.param import Param
from labbench.records import Boundary, Event, Failed, Finished, Log, RunRecord, Runtime, Started, Stop
from labbench.runner.planner import make_stack
from labbench.train.active_runs import StopRequests
from labbench.train.data.dataset import Data, load_digits
from labbench.train.engine.dropout import KEY_STEPS
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, Task, load_task

EXACT = Runtime(precision="float64")
Curves = dict[str, dict[int, float]]


def train_events(
    configs: list[dict[str, Any]], task: Task | None = None, runtime: Runtime | None = None, stop: Stop | None = None
) -> list[Event]:
    """Train runs with these configs as one stack; their keys are "0", "1" and so on."""
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    stack = make_stack(runs, task="digits", stop=stop, runtime=runtime or Runtime())
    return list(train(stack, task or load_task("digits"), "cpu"))


def trained_together(configs: list[dict[str, Any]], task: Task | None = None, **options: Any) -> list[History]:
    result = histories(train_events(configs, task, **options))
    return [result[str(number)] for number in range(len(configs))]


def trained_alone(configs: list[dict[str, Any]], task: Task | None = None, **options: Any) -> list[History]:
    return [trained_together([config], task, **options)[0] for config in configs]


def curves(history: History) -> Curves:
    """Return the curves without times."""
    return {metric: curve for metric, curve in history.curves.items() if not metric.startswith("time/")}


def engines(histories: list[History]) -> set[str]:
    return {history.started.way for history in histories if history.started is not None}


def assert_close(ours: History, theirs: History, relative: float = 1e-10) -> None:
    assert ours.finished == dataclasses.replace(theirs.finished, run=ours.finished.run)  # type: ignore[union-attr, type-var]
    assert curves(ours).keys() == curves(theirs).keys()
    for metric, curve in curves(ours).items():
        assert curve == pytest.approx(curves(theirs)[metric], rel=relative, abs=1e-13, nan_ok=True), metric


def assert_stacked_as_alone(configs: list[dict[str, Any]], task: Task) -> None:
    """Assert that these runs are stacked and that each equals the single run in float64."""
    together = trained_together(configs, task, runtime=EXACT)
    assert engines(together) == {"stacked"}
    for ours, theirs in zip(together, trained_alone(configs, task, runtime=EXACT), strict=True):
        assert_close(ours, theirs)


def digits_task(model: Callable[[dict[str, Any]], nn.Module], **overrides: Any) -> FileTask:
    """Return a task with the first digits and the given model."""
    digits = load_digits()
    few = Data((digits.train[0][:96], digits.train[1][:96]), (digits.val[0][:32], digits.val[1][:32]))
    params = {"p": Param("float", 0.0, per_run=True)}
    return FileTask(
        **{
            "params": params,
            "data": lambda config: few,
            "model": model,
            "loss": cross_entropy,
            "metrics": accuracy,
            **overrides,
        }
    )


def mlp(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 16, bias=False),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(config["p"]),
        nn.Linear(16, 32, bias=False),
        nn.LayerNorm(32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )


def cnn(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(config["p"]),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.Sigmoid(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


def pooled(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(2),
        nn.Conv1d(1, 3, 5, padding=2, bias=False),
        nn.BatchNorm1d(3, affine=False),
        nn.ReLU(),
        nn.AvgPool1d(4),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Dropout(config["p"]),
        nn.Linear(24, 10),
    )


class Residual(nn.Module):
    """A module with its own forward and a buffer that is changed in place."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 10)
        self.norm, self.dropout = nn.BatchNorm1d(16), nn.Dropout(p)
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        x = torch.relu(self.first(inputs.flatten(1)))
        if self.training:
            self.seen += 1
        scores: Tensor = self.head(x + self.dropout(self.norm(self.second(x))))
        return scores


class Skips(nn.Module):
    """A small U-Net with a classifier."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
        self.middle = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.GroupNorm(2, 4), nn.Dropout2d(p)
        )
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.out, self.head = nn.Conv2d(4, 1, 3, padding=1, bias=False), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x)
        scores: Tensor = self.head(self.out(torch.cat([a, self.up(self.middle(a))], dim=1)).flatten(1))
        return scores


class Recurrent(nn.Module):
    """Layers that read the rows of an image one after another."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.first = nn.GRU(8, 6, batch_first=True, bidirectional=True)
        self.second = nn.LSTM(12, 5, batch_first=True)
        self.dropout, self.head = nn.Dropout(p), nn.Linear(5, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.dropout(self.first(inputs.squeeze(1))[0])
        scores: Tensor = self.head(self.second(states)[1][0][-1])
        return scores


class Transformer(nn.Module):
    """Attention over the rows of an image, of which it ignores the last ones if they are empty."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.rows, self.places = nn.Linear(8, 8), nn.Embedding(8, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, p, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.squeeze(1)
        x = self.rows(rows) + self.places(torch.arange(8))
        scores: Tensor = self.head(self.encoder(x, src_key_padding_mask=rows.sum(2) == 0).mean(1))
        return scores


MODELS: dict[str, tuple[str, Callable[[dict[str, Any]], nn.Module]]] = {
    "mlp": ("stacked", mlp),
    "cnn": ("stacked", cnn),
    "pooled": ("stacked", pooled),
    "residual": ("vmap", lambda config: Residual(config["p"])),
    "recurrent": ("vmap", lambda config: Recurrent(config["p"])),
    "transformer": ("vmap", lambda config: Transformer(config["p"])),
    "skips": ("vmap", lambda config: Skips(config["p"])),
}
UPDATES: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"lr": 0.1}, {"lr": 0.05, "momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "weight_decay": 0.01}],
    "adam": [{"lr": 0.01}, {"lr": 0.003, "beta1": 0.8, "eps": 1e-4}, {"lr": 0.01, "weight_decay": 0.1}],
    "adamw": [{"lr": 0.01}, {"lr": 0.003, "weight_decay": 0.1}, {"lr": 0.01, "weight_decay": 0.3}],
    "rmsprop": [{"lr": 0.001}, {"lr": 0.002, "momentum": 0.5, "alpha": 0.9}, {"lr": 0.003, "weight_decay": 0.1}],
    "adagrad": [{"lr": 0.05}, {"lr": 0.01, "eps": 1e-3}, {"lr": 0.05, "weight_decay": 0.01}],
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"schedule": "step", "step_epochs": 3, "clip": 0.5},
    {"schedule": "cosine", "warmup": 10, "label_smoothing": 0.1},
    {"schedule": "onecycle", "clip": 0.1},
    {"warmup": 20, "label_smoothing": 0.3, "p": 0.3},
]
"""Settings in a Latin square with five optimizers: every pair of a model and an optimizer is tested."""


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("model", MODELS)
def test_a_stack_equals_single_runs_in_float64(model: str, shift: int) -> None:
    """Over more steps than a dropout layer has keys for at once."""
    engine, make_model = MODELS[model]
    optimizer = list(UPDATES)[(shift + list(MODELS).index(model)) % 5]
    common = {"epochs": 6, "batch_size": 8, "optimizer": optimizer}
    drops = [0.0, 0.5, 0.2]
    configs = [
        {**common, "seed": seed, "p": p, **update, **settings}
        for seed, (p, update, settings) in enumerate(
            zip(drops, UPDATES[optimizer], (SETTINGS[shift], SETTINGS[(shift + 1) % 5], SETTINGS[shift]), strict=True)
        )
    ]
    together = trained_together(configs, digits_task(make_model), runtime=EXACT)
    assert engines(together) == {engine}
    for ours, theirs in zip(together, trained_alone(configs, digits_task(make_model), runtime=EXACT), strict=True):
        assert len(ours.curves["train/loss"]) == 72 > KEY_STEPS
        assert_close(ours, theirs)


def test_runs_of_every_optimizer_share_a_stack() -> None:
    configs = [
        {"epochs": 5, "batch_size": 48, "optimizer": name, "seed": 3, **update}
        for name, updates in UPDATES.items()
        for update in updates
    ]
    assert_stacked_as_alone(configs, digits_task(mlp))


@pytest.mark.parametrize("model", MODELS)
def test_the_first_steps_agree_in_float32(model: str) -> None:
    configs = [{"epochs": 1, "batch_size": 32, "seed": seed, "p": 0.2} for seed in range(3)]
    task = digits_task(MODELS[model][1])
    for ours, theirs in zip(trained_together(configs, task), trained_alone(configs, task), strict=True):
        assert ours.curves["train/loss"][0] == pytest.approx(theirs.curves["train/loss"][0], rel=1e-6)


MANY = [
    {"epochs": 3, "batch_size": 32, "seed": seed, "p": 0.1 * seed, "lr": 0.02 * (seed + 1), "optimizer": optimizer}
    for optimizer in ("sgd", "adam", "rmsprop")
    for seed in range(4)
]


@pytest.mark.parametrize("model", ["mlp", "cnn", "residual", "recurrent"])
def test_the_width_of_a_stack_changes_no_bit(model: str) -> None:
    task = digits_task(MODELS[model][1])
    wide = trained_together(MANY, task)
    for width in (3, 5):  # and 2, which is left
        narrow = [h for start in range(0, 12, width) for h in trained_together(MANY[start : start + width], task)]
        for ours, theirs in zip(narrow, wide, strict=True):
            assert curves(ours) == curves(theirs)


@pytest.mark.parametrize("optimizer", UPDATES)
@pytest.mark.parametrize("model", ["mlp", "cnn", "residual"])
def test_a_run_that_diverges_changes_no_bit_of_its_neighbours(model: str, optimizer: str) -> None:
    common = {"epochs": 3, "batch_size": 24, "optimizer": optimizer, "p": 0.2, "clip": 1e30}
    good = [{**common, "seed": seed} for seed in range(3)]
    bad = {**common, "lr": 1e38, "seed": 9}
    task = digits_task(MODELS[model][1])
    mixed = trained_together([good[0], bad, good[1], good[2]], task)
    assert mixed[1].finished is not None
    for ours, theirs in zip([mixed[0], mixed[2], mixed[3]], trained_together(good, task), strict=True):
        assert curves(ours) == curves(theirs)


def test_a_diverged_run_ends_and_the_others_continue() -> None:
    configs = [{"epochs": 6, "hidden": [16], "seed": 1}, {"epochs": 6, "hidden": [16], "lr": 1e200}]
    good, bad = trained_together(configs, runtime=EXACT)
    assert_close(bad, trained_alone(configs, runtime=EXACT)[1])
    assert bad.finished is not None
    assert bad.finished.status == "diverged"
    assert good.finished is not None
    assert good.finished.reason == "all epochs"


def test_runs_of_different_lengths_equal_single_runs() -> None:
    configs = [{"epochs": epochs, "hidden": [8], "seed": epochs, "optimizer": "adam"} for epochs in (1, 4, 2, 6)]
    stop = Stop("val/loss", "min", target=1.2)
    together = trained_together(configs, runtime=EXACT, stop=stop)
    for ours, theirs in zip(together, trained_alone(configs, runtime=EXACT, stop=stop), strict=True):
        assert_close(ours, theirs)


def test_runs_of_a_stack_have_equal_shares_of_the_compute_time() -> None:
    configs = [{"epochs": 4, "hidden": [8], "seed": seed} for seed in range(8)]
    together = trained_together(configs)
    shares = [list(history.curves["time/compute_s"].values()) for history in together]
    assert all(share == shares[0] for share in shares)
    assert 0 < shares[0][0] < shares[0][-1]


class Tied(nn.Module):
    """Two layers with one weight, and one layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.second(self.first(inputs.flatten(1)).relu())
        return scores[:, :10]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam"])
def test_tied_and_unused_parameters_are_stacked_and_saved(optimizer: str, tmp_path: Path) -> None:
    from labbench.train.checkpoints import read_safetensors

    task = digits_task(lambda config: Tied())
    common = {"epochs": 3, "batch_size": 32, "lr": 0.01, "optimizer": optimizer}
    configs = [{**common, "seed": seed, "weight_decay": 0.1 * seed} for seed in range(3)]
    runtime = Runtime(precision="float64", keep="last")
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    stack = make_stack(runs, task="", stop=None, runtime=runtime, files=str(tmp_path / "stack"))
    together = histories(train(stack, task, "cpu"))
    assert engines(list(together.values())) == {"vmap"}
    for run in runs:
        single = make_stack([run], task="", stop=None, runtime=runtime, files=str(tmp_path / "alone"))
        assert_close(together[run.key], histories(train(single, task, "cpu"))[run.key])
        ours, theirs = (
            read_safetensors(tmp_path / name / run.key / "model.safetensors", torch.device("cpu"))[0]
            for name in ("stack", "alone")
        )
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-10, atol=1e-12)


def test_held_out_samples_pass_a_vmap_stack_in_parts_of_bounded_size() -> None:
    sizes: set[int] = set()

    class Watched(Residual):
        def forward(self, inputs: Tensor) -> Tensor:
            if not self.training:
                sizes.add(len(inputs))
            return super().forward(inputs)

    digits = load_digits()
    data = Data((digits.train[0][:96], digits.train[1][:96]), (digits.val[0][:200], digits.val[1][:200]))
    task = digits_task(lambda config: Watched(0.2), data=lambda config: data)
    configs = [{"epochs": 1, "batch_size": 24, "seed": seed} for seed in range(3)]
    together = trained_together(configs, task, runtime=EXACT)
    assert engines(together) == {"vmap"}
    assert max(sizes) == 64
    for ours, theirs in zip(together, trained_alone(configs, task, runtime=EXACT), strict=True):
        assert_close(ours, theirs)


# Runs that cannot be stacked


class RandomForward(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.flatten(1) + 0.1 * torch.randn(inputs.shape[0], 64))


class AssignsBuffer(nn.Linear):
    def __init__(self) -> None:
        super().__init__(64, 10)
        self.register_buffer("average", torch.zeros(10))
        self.average: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs.flatten(1))
        if self.training:
            self.average = 0.9 * self.average + 0.1 * outputs.detach().mean(dim=0)
        return outputs - self.average


class BranchesOnData(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs.flatten(1))
        return outputs if outputs.sum() > 0 else 2 * outputs


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (digits_task(lambda config: RandomForward(64, 10)), "draws random numbers"),
        (digits_task(lambda config: AssignsBuffer()), "is different in a stack"),
        (digits_task(lambda config: BranchesOnData(64, 10)), "data-dependent"),
        (
            digits_task(
                mlp, metrics=lambda outputs, targets: {"right": torch.tensor((outputs.argmax(1) == targets).tolist())}
            ),
            "",
        ),
    ],
)
def test_runs_that_cannot_be_stacked_train_alone_and_log_the_reason(task: FileTask, reason: str) -> None:
    configs = [{"epochs": 2, "seed": seed} for seed in range(3)]
    events = train_events(configs, task)
    logs = [event.text for event in events if isinstance(event, Log)]
    assert len(logs) == 3
    assert all(reason in text for text in logs)
    result = histories(events)
    for number, config in enumerate(configs):
        alone = trained_together([config], task)[0]
        assert curves(result[str(number)]) == curves(alone)
        assert result[str(number)].started.way == "loop"  # type: ignore[union-attr]


def test_a_custom_loss_is_mapped_over_runs() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, F.one_hot(targets, 10).to(outputs.dtype), reduction="none").mean(dim=1)

    task = digits_task(mlp, loss=loss, metrics=lambda outputs, targets: {"top": outputs.amax(dim=1)})
    configs = [{"epochs": 3, "seed": seed} for seed in range(3)]
    assert_stacked_as_alone(configs, task)


def test_a_loss_that_is_a_view_of_the_outputs_is_not_overwritten() -> None:
    """The next tile and the next step reuse the memory of the outputs."""
    task = digits_task(lambda config: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), loss=lambda o, t: o[:, 0])
    configs = [{"epochs": 2, "batch_size": 50, "seed": seed} for seed in range(4)]
    assert_stacked_as_alone(configs, task)


def test_samples_with_the_ignored_class_are_ignored() -> None:
    """The class -100 is the ignore_index of cross-entropy."""
    data = load_digits()
    targets = data.train[1].clone()
    targets[::3] = -100
    some = Data((data.train[0], targets), data.val)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    task = digits_task(
        lambda config: copy.deepcopy(model), data=lambda config: some, metrics=lambda outputs, targets: {}
    )
    configs = [{"epochs": 1, "batch_size": 50, "seed": seed} for seed in range(3)]
    assert_stacked_as_alone(configs, task)


def test_runs_with_different_data_or_models_equal_single_runs() -> None:
    """A parameter that is declared `per_run` by mistake costs speed, never exactness."""
    digits = load_digits()

    def data(config: dict[str, Any]) -> Data:
        inputs, targets = digits.train
        return Data((inputs[config["seed"] :: 20], targets[config["seed"] :: 20]), digits.val)

    def model(config: dict[str, Any]) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU() if config["p"] else nn.Tanh(), nn.Linear(8, 10))

    task = digits_task(model, data=data)
    configs = [{"epochs": 2, "seed": seed, "p": p} for seed in (0, 1) for p in (0.0, 0.1)] * 2
    for ours, theirs in zip(
        trained_together(configs, task, runtime=EXACT), trained_alone(configs, task, runtime=EXACT), strict=True
    ):
        assert_close(ours, theirs)


# Interruptions


def train_with_interruption(
    runs: list[RunRecord], task: Task, files: Path, after: int, runtime: Runtime
) -> tuple[dict[str, Curves], list[RunRecord]]:
    """Train until a run has done `after` steps; return the curves so far, and the runs as a resumed grid reads them."""
    stop_requests = StopRequests()
    events: list[Event] = []
    stack = make_stack(runs, task="digits", stop=None, runtime=runtime, files=str(files))
    for event in train(stack, task, "cpu", stop_requests):
        events.append(event)
        if isinstance(event, Boundary) and event.step >= after:
            stop_requests.request(run.key for run in runs)
    steps = {event.run: event.step for event in events if isinstance(event, Boundary)}
    engines = {event.run: event.way for event in events if isinstance(event, Started)}
    resumed = [dataclasses.replace(run, boundary=steps[run.key], way=engines[run.key], attempt=2) for run in runs]
    return {key: curves(history) for key, history in histories(events).items()}, resumed


@pytest.mark.parametrize(("model", "count"), [("mlp", 5), ("cnn", 3), ("residual", 3), ("mlp", 1)])
def test_a_resumed_run_equals_an_uninterrupted_run(model: str, count: int, tmp_path: Path) -> None:
    """Bit for bit, in stacks of other widths than before; `vmap` up to rounding, so it is tested in float64."""
    task = digits_task(MODELS[model][1])
    runs = [run_of({**config, "epochs": 8}, str(number)) for number, config in enumerate(MANY[3 : 3 + count])]
    rounded = model == "residual"
    runtime = Runtime(snapshot_every=0.0, precision="float64" if rounded else "float32")
    whole = histories(train(make_stack(runs, task="digits", stop=None, runtime=runtime), task, "cpu"))
    before, resumed = train_with_interruption(runs, task, tmp_path, 8, runtime)
    assert all(8 <= run.boundary < 24 for run in resumed)
    for part in (resumed[:1], resumed[1:]):
        if not part:
            continue
        stack = make_stack(part, task="digits", stop=None, runtime=runtime, files=str(tmp_path))
        for key, history in histories(train(stack, task, "cpu")).items():
            assert history.started.way == whole[key].started.way  # type: ignore[union-attr]
            joined = {metric: before[key].get(metric, {}) | curve for metric, curve in curves(history).items()}
            for metric, curve in curves(whole[key]).items():
                assert joined[metric] == (pytest.approx(curve, rel=1e-10) if rounded else curve)


@pytest.mark.parametrize(
    "optimizer",
    [{"optimizer": "sgd", "momentum": 0.9}, *({"optimizer": name} for name in ("adam", "adamw", "rmsprop", "adagrad"))],
    ids=lambda config: config["optimizer"],
)
def test_a_convolutional_run_resumes_in_the_loop_bit_for_bit(optimizer: dict[str, Any], tmp_path: Path) -> None:
    """Its weights are in `channels_last`, the optimizer state in a checkpoint is not."""
    task, runs = digits_task(MODELS["cnn"][1]), [run_of({**optimizer, "lr": 0.01, "epochs": 3})]
    runtime = Runtime(snapshot_every=0.0, engine="loop")
    [whole] = histories(train(make_stack(runs, task="digits", stop=None, runtime=runtime), task, "cpu")).values()
    _, resumed = train_with_interruption(runs, task, tmp_path, 8, runtime)
    stack = make_stack(resumed, task="digits", stop=None, runtime=runtime, files=str(tmp_path))
    [rest] = histories(train(stack, task, "cpu")).values()
    assert rest.last("val/loss") == whole.last("val/loss")


def test_an_unreadable_checkpoint_fails_only_its_own_run(tmp_path: Path) -> None:
    runs = [run_of({"epochs": 1, "hidden": [4]}, "new"), run_of({"epochs": 1, "hidden": [4]}, "torn")]
    runs[1] = dataclasses.replace(runs[1], boundary=20, way="stacked")
    stack = make_stack(runs, task="digits", stop=None, runtime=Runtime(), files=str(tmp_path))
    ends = [event for event in train(stack, load_task("digits"), "cpu") if isinstance(event, Finished | Failed)]
    assert [(event.run, type(event)) for event in ends] == [("torn", Failed), ("new", Finished)]
    assert " retry torn --from-start" in ends[0].message  # type: ignore[union-attr]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_saved_model_has_the_last_or_the_best_weights(keep: Any, tmp_path: Path) -> None:
    from labbench.train.checkpoints import read_safetensors

    configs = [{"epochs": 6, "seed": seed, "lr": 0.5, "batch_size": 20} for seed in range(2)]
    task = digits_task(mlp)
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    stack = make_stack(runs, task="", stop=None, runtime=Runtime(keep=keep), files=str(tmp_path))
    for key, history in histories(train(stack, task, "cpu")).items():
        weights, info = read_safetensors(tmp_path / key / "model.safetensors", torch.device("cpu"))
        model = mlp({"p": 0.0})
        model.load_state_dict(weights)
        inputs, targets = task.data({}).val
        with torch.no_grad():
            loss = F.cross_entropy(model.eval()(inputs), targets).item()
        losses = history.curves["val/loss"]
        step = min(losses, key=losses.__getitem__) if keep == "best" else max(losses)
        assert info["step"] == step
        assert loss == pytest.approx(losses[step], rel=1e-5)
