"""Learning rates equal those of torch.optim.lr_scheduler."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.optim import SGD, Optimizer, lr_scheduler

from helpers.training import train_run
from labbench.params.param import TRAINING, with_defaults
from labbench.train.engine.schedules import Schedule

STEPS_PER_EPOCH, EPOCHS = 7, 6
TOTAL = STEPS_PER_EPOCH * EPOCHS
Make = Callable[[Optimizer], lr_scheduler.LRScheduler]


def after_warmup(steps: int, make: Make) -> Make:
    def both(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
        return lr_scheduler.SequentialLR(optimizer, [warmup, make(optimizer)], milestones=[steps])

    return both


TORCH_SCHEDULERS: list[tuple[dict[str, Any], Make]] = [
    ({}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ({"warmup": 5}, after_warmup(5, lambda o: lr_scheduler.ConstantLR(o, factor=1.0))),
    (
        {"schedule": "step", "step_epochs": 2, "gamma": 0.3},
        lambda o: lr_scheduler.StepLR(o, 2 * STEPS_PER_EPOCH, gamma=0.3),
    ),
    ({"schedule": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL)),
    ({"schedule": "cosine", "warmup": 9}, after_warmup(9, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL - 9))),
    ({"schedule": "onecycle"}, lambda o: lr_scheduler.OneCycleLR(o, 0.2, TOTAL, cycle_momentum=False)),
]


@pytest.mark.parametrize(
    ("config", "make"), TORCH_SCHEDULERS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_rates_equal_those_of_torch(config: dict[str, Any], make: Make) -> None:
    full = with_defaults({"lr": 0.2, "epochs": EPOCHS, **config}, TRAINING)
    schedule = Schedule([full, full], STEPS_PER_EPOCH)
    optimizer = SGD([torch.zeros(1, requires_grad=True)], 0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR itself uses a deprecated argument
        scheduler = make(optimizer)
        for step in range(TOTAL):
            assert schedule.rates_at(step) == pytest.approx([optimizer.param_groups[0]["lr"]] * 2, rel=1e-12, abs=1e-18)
            optimizer.step()
            scheduler.step()


def test_a_training_shorter_than_its_warmup_only_warms_up() -> None:
    full = with_defaults({"lr": 1.0, "epochs": 1, "warmup": 99, "schedule": "cosine"}, TRAINING)
    assert [Schedule([full], 4).rates_at(step)[0] for step in range(4)] == pytest.approx([0.01, 0.02, 0.03, 0.04])


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_shortest_cycles_have_finite_rates(epochs: int) -> None:
    full = with_defaults({"lr": 1.0, "epochs": epochs, "schedule": "onecycle"}, TRAINING)
    rates = [Schedule([full], 1).rates_at(step)[0] for step in range(epochs)]
    assert all(0 < rate <= 1 for rate in rates)


def test_a_schedule_changes_the_training_after_its_first_decay() -> None:
    plain = train_run({"hidden": [8], "epochs": 2}).curves["train/loss"]
    falling = train_run({"hidden": [8], "epochs": 2, "schedule": "step", "step_epochs": 1}).curves["train/loss"]
    assert [plain[step] == falling[step] for step in (0, 20, 21)] == [True, True, False]
