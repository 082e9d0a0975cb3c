"""A task's own scheduler: the learning rates of a plain torch loop, also after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim import lr_scheduler as schedulers

from helpers.training import histories, raise_failure, run_of, train_interrupted, without_times
from labbench.errors import InputError
from labbench.records import Event, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.optional_parts import OptionalParts
from labbench.train.tasks.task import FileTask, make_data, make_model

EXACT = Runtime(precision="float64")
CONFIGS = [{"lr": 0.05, "seed": seed, "epochs": 4, "batch_size": 10, "optimizer": "adam"} for seed in (0, 1)]
STEPS = 5
"""Optimizer steps of an epoch."""


def plateau(optimizer: Optimizer, config: Any) -> Any:
    return schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5)


def monitored(optimizer: Optimizer, config: Any) -> Any:
    scheduler = schedulers.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=0, threshold=0.5)
    return {"scheduler": scheduler, "monitor": "val/accuracy"}


def restarts(optimizer: Optimizer, config: Any) -> Any:
    return schedulers.CosineAnnealingWarmRestarts(optimizer, T_0=2)


def milestones(optimizer: Optimizer, config: Any) -> Any:
    return schedulers.MultiStepLR(optimizer, [1, 3])


def warmed_up(optimizer: Optimizer, config: Any) -> Any:
    parts = [schedulers.LinearLR(optimizer, 0.1, total_iters=3), schedulers.ExponentialLR(optimizer, 0.9)]
    return {"scheduler": schedulers.SequentialLR(optimizer, parts, [3]), "interval": "step"}


def one_cycle_of_rates(optimizer: Optimizer, config: Any) -> Any:
    steps = STEPS * config["epochs"]
    scheduler = schedulers.OneCycleLR(optimizer, config["lr"], total_steps=steps, cycle_momentum=False)
    return {"scheduler": scheduler, "interval": "step"}


def one_cycle(optimizer: Optimizer, config: Any) -> Any:
    scheduler = schedulers.OneCycleLR(optimizer, config["lr"], total_steps=STEPS * config["epochs"])
    return {"scheduler": scheduler, "interval": "step"}


def make_task(scheduler: Callable[..., Any], **parts: Any) -> FileTask:
    torch.manual_seed(0)
    x = torch.randn(100, 4)
    y = (x[:, 0] > 0.5).long()
    data = Data((x[:50], y[:50]), (x[50:], y[50:]))
    task = FileTask({}, lambda _: data, lambda _: nn.Sequential(nn.Linear(4, 2)), cross_entropy, accuracy)
    return replace(task, optional=OptionalParts(scheduler=scheduler, **parts))


def train_events(task: FileTask, runtime: Runtime = EXACT, **settings: Any) -> list[Event]:
    runs = [run_of({**config, **settings}, str(number)) for number, config in enumerate(CONFIGS)]
    return raise_failure(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu"))


def train_plainly(task: FileTask, config: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the training losses and the last learning rate of each epoch of a torch loop."""
    data, model = make_data(task, config).to(torch.device("cpu"), torch.float64), make_model(task, config).double()
    optimizer, losses, rates = Adam(model.parameters(), config["lr"]), [], []
    result = task.optional.scheduler(optimizer, config)  # type: ignore[misc]
    options = result if isinstance(result, dict) else {"scheduler": result}
    scheduler, by_step = options["scheduler"], options.get("interval") == "step"
    for epoch in range(1, config["epochs"] + 1):
        for batch in data.batches([config["seed"]], epoch, config["batch_size"]):
            inputs, targets = data.gather(batch[0])
            loss = cross_entropy(model(inputs), targets).mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate = optimizer.param_groups[0]["lr"]
            if by_step:
                scheduler.step()
        rates.append(rate)
        if isinstance(scheduler, schedulers.ReduceLROnPlateau):
            with torch.no_grad():
                outputs, targets = model(data.val[0]), data.val[1]  # type: ignore[index]
                accurate = (outputs.argmax(1) == targets).double().mean().item()
                scheduler.step(accurate if "monitor" in options else cross_entropy(outputs, targets).mean().item())
        elif not by_step:
            scheduler.step()
    return losses, rates


@pytest.mark.parametrize("engine", ["loop", "auto", "vmap"])
@pytest.mark.parametrize(
    "scheduler",
    [plateau, monitored, restarts, milestones, warmed_up, one_cycle_of_rates, one_cycle],
    ids=lambda f: f.__name__,
)
def test_a_scheduler_trains_as_a_plain_torch_loop_also_if_interrupted(
    scheduler: Any, engine: Any, tmp_path: Path
) -> None:
    task, runtime = make_task(scheduler), replace(EXACT, engine=engine)
    used = "loop" if scheduler is one_cycle else {"auto": "stacked"}.get(engine, engine)
    trained = histories(train_events(task, runtime))
    interrupted = train_interrupted(task, CONFIGS, tmp_path, runtime)
    for number, config in enumerate(CONFIGS):
        losses, rates = train_plainly(task, config)
        history = trained[str(number)]
        assert history.started is not None
        assert history.started.way == used
        assert list(history.curves["train/loss"].values()) == pytest.approx(losses, rel=1e-9)
        assert list(history.curves["train/lr"].values()) == pytest.approx(rates, rel=1e-12)
        assert len(set(rates)) > 1
        for name, curve in without_times(history).items():
            assert interrupted[number][name] == pytest.approx(curve, rel=1e-10), name


def test_runs_whose_scheduler_changes_the_momentum_train_one_by_one_and_say_why() -> None:
    events = train_events(make_task(one_cycle))
    notes = [event.text for event in events if hasattr(event, "text")]
    assert any("trained alone, because the task's scheduler changes `momentum`" in note for note in notes)


def test_runs_of_a_stack_have_schedulers_of_their_own() -> None:
    """Each reduces its learning rate when its own loss no longer falls, and by its own lr."""
    lr = [0.0, 0.05]
    runs = [run_of({**CONFIGS[0], "lr": rate}, str(number)) for number, rate in enumerate(lr)]
    task = make_task(lambda o, c: schedulers.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.0))
    by_run = histories(train(make_stack(runs, task="", stop=None, runtime=EXACT), task, "cpu"))
    assert {history.started.way for history in by_run.values() if history.started} == {"stacked"}
    assert list(by_run["1"].curves["train/lr"].values()) == [0.05] * 4  # its loss falls


class Lion(Optimizer):
    """An optimizer with a state of numbers besides tensors (Chen et al., 2023, without weight decay)."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["calls"] = state.get("calls", 0) + 1
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                parameter.sub_((0.9 * mean + 0.1 * parameter.grad).sign() * group["lr"] / state["calls"])
                mean.lerp_(parameter.grad, 0.01)


def test_an_own_optimizer_with_any_state_resumes(tmp_path: Path) -> None:
    task = make_task(restarts, optimizer=lambda params, config: Lion(params, config["lr"]))
    trained = histories(train_events(task))
    interrupted = train_interrupted(task, CONFIGS, tmp_path, EXACT)
    assert interrupted == [without_times(trained[str(number)]) for number in range(len(CONFIGS))]


@pytest.mark.parametrize(
    ("scheduler", "settings", "complaint"),
    [
        (lambda optimizer, config: 0.1, {}, "must return a torch LRScheduler"),
        (lambda o, c: {"scheduler": restarts(o, c), "frequency": 2}, {}, "must return a torch LRScheduler"),
        (lambda o, c: {"scheduler": plateau(o, c), "interval": "step"}, {}, "has the interval 'step'"),
        (
            lambda o, c: {"scheduler": plateau(o, c), "monitor": "val/f1"},
            {},
            "monitors 'val/f1', which is not measured",
        ),
        (restarts, {"schedule": "cosine"}, 'schedule = "cosine" and the task\'s own scheduler exclude each other'),
        (restarts, {"warmup": 3}, "warmup = 3 and the task's own scheduler exclude each other"),
    ],
)
def test_an_unusable_scheduler_is_refused(scheduler: Any, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        train_events(make_task(scheduler), **settings)


def test_a_scheduler_whose_state_no_checkpoint_can_hold_is_refused_at_the_start() -> None:
    def scheduler(optimizer: Optimizer, config: Any) -> Any:
        result = restarts(optimizer, config)
        result.callback = lambda: None
        return result

    with pytest.raises(InputError, match="so that a checkpoint can store it"):
        train_events(make_task(scheduler))
