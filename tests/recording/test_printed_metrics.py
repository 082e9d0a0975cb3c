"""Metrics in printed lines: the common forms are read, and other numbers are not."""

from __future__ import annotations

import pytest

from labbench.errors import InputError
from labbench.recording.printed_metrics import PrintedMetrics, read_line


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("epoch 3 loss 0.41 val_acc=0.9", {"epoch": 3, "loss": 0.41, "val_acc": 0.9}),
        ("Epoch 1/10 - loss: 0.5 - accuracy: 0.25 - time: 3s", {"epoch": 1, "loss": 0.5, "accuracy": 0.25}),
        ("Epoch [2/5], Step [100/600], Loss: 0.3012", {"epoch": 2, "step": 100, "Loss": 0.3012}),
        ("Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.134", {"epoch": 1, "Loss": 2.134}),
        ("Test set: Average loss: 0.05, Accuracy: 9823/10000 (98%)", {"loss": 0.05, "Accuracy": 0.9823}),
        ("step 250: train loss 2.5, val loss 2.75", {"step": 250, "train/loss": 2.5, "val/loss": 2.75}),
        ("iter 7: loss 4.5, time 12.3ms, mfu 0.5%", {"step": 7, "loss": 4.5}),
        ("  5%|1   | 5/100 [00:01<00:20, 4.9it/s, loss=0.5]", {"step": 5, "loss": 0.5}),
        ("{'loss': 0.5}", {}),
        ("loss: nan, grad_norm: 1e+03", {"loss": pytest.approx(float("nan"), nan_ok=True), "grad_norm": 1000.0}),
        ("Python 3.11 on port: 8080", {}),
        ("Loading 500 images, version=2.1", {}),
        ("2026-11-30 12:00:00 INFO epoch 4 started", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_lines(line: str, values: dict[str, float]) -> None:
    assert read_line(line) == values


def test_steps_rise_over_epochs_and_lines_of_an_epoch_take_the_last_step() -> None:
    reader = PrintedMetrics()
    lines = [f"epoch {epoch} step {step} loss 1.0" for epoch in range(2) for step in (0, 10, 20)]
    lines.insert(3, "epoch 0 val_loss 2.0")
    steps = [step for step, _ in reader.feed("\n".join(lines) + "\n")]
    assert steps == [0, 10, 20, 20, 21, 31, 41]
    assert [step for step, _ in PrintedMetrics().feed("loss 1\nloss 2\nepoch 7 loss 3\nloss")] == [0, 1, 7]


def test_a_line_in_pieces_is_read_once() -> None:
    reader = PrintedMetrics()
    assert [*reader.feed("epoch 1 lo"), *reader.feed("ss 0.5\repoch 1 loss "), *reader.feed("0.25\n")] == [
        (1, {"epoch": 1, "loss": 0.5}),
        (1, {"epoch": 1, "loss": 0.25}),
    ]


def test_patterns_with_named_groups() -> None:
    reader = PrintedMetrics(r"it=(?P<step>\d+) NLL (?P<nll>\S+)")
    assert list(reader.feed("it=5 NLL 0.5\nloss 3\nit=6 NLL x\n")) == [(5, {"nll": 0.5})]
    assert list(PrintedMetrics(r"(?P<name>\w+)~(?P<value>\d+)").feed("a~1 b~2\n")) == [(0, {"a": 1.0, "b": 2.0})]
    for pattern in ("(", "loss"):
        with pytest.raises(InputError, match="--metrics"):
            PrintedMetrics(pattern)


WANDB = """wandb: Tracking run with wandb version 0.31.0
wandb: Run data is saved locally in /home/user/wandb/offline-run-20261130_224008-1s7mw82u
epoch 1 val_loss 0.5
wandb: Run summary:
wandb: \x1b[1mval_loss\x1b[0m 0.5
wandb:   val/acc 0.9
"""

KERAS = """Epoch 1/2
\x1b[1m 1/32\x1b[0m ━━ \x1b[1m5s\x1b[0m 170ms/step - accuracy: 0.1 - loss: 0.9
32/32 ━━━━ 1s 2ms/step - accuracy: 0.2 - loss: 0.8
32/32 ━━━━ 1s 3ms/step - accuracy: 0.2 - loss: 0.8 - val_accuracy: 0.3
Epoch 2/2
32/32 ━━━━ 1s 2ms/step - accuracy: 0.4 - loss: 0.6
32/32 ━━━━ 1s 3ms/step - accuracy: 0.4 - loss: 0.6 - val_accuracy: 0.5
 1/10 ━━━━ 0s 9ms/step - accuracy: 0.7 - loss: 0.4
10/10 ━━━━ 0s 2ms/step - accuracy: 0.8 - loss: 0.3
"""

KERAS_LINES = """Epoch 1/2
32/32 - 1s - 35ms/step - accuracy: 0.2 - loss: 0.8 - val_loss: 0.9
Epoch 2/2
32/32 - 0s - 3ms/step - accuracy: 0.4 - loss: 0.6 - val_loss: 0.7
32/32 - 0s - 2ms/step - accuracy: 0.8 - loss: 0.3
"""

LIGHTNING = """epoch 3 val_loss 0.5
──────────────────────────────────────
       Test metric         DataLoader 0
──────────────────────────────────────
        test_acc         0.9800000190734863
        val_loss         0.4
──────────────────────────────────────
epoch 4 val_loss 0.3
"""

RICH_LIGHTNING = """epoch 3 val_loss 0.5
┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━┓
┃  Test metric   ┃   DataLoader 0   ┃
┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━┩
│    test_acc    │       0.98       │
│    test_loss   │       0.25       │
└────────────────┴──────────────────┘
"""

TRANSFORMERS = """step 10 train_loss 0.5
***** train metrics *****
  epoch                    =        3.0
  train_loss               =     0.4375
***** eval metrics *****
  eval_accuracy            =        0.8
step 20 train_loss 0.25
"""


@pytest.mark.parametrize(
    ("output", "series"),
    [
        (WANDB, {"val_loss": {1: 0.5}}),
        (KERAS, {"accuracy": [0.1, 0.2, 0.2, 0.4, 0.4], "loss": [0.9, 0.8, 0.8, 0.6, 0.6], "val_accuracy": [0.3, 0.5]}),
        (KERAS_LINES, {"accuracy": [0.2, 0.4], "loss": [0.8, 0.6], "val_loss": [0.9, 0.7]}),
        (LIGHTNING, {"val_loss": {3: 0.5, 4: 0.3}, "test_acc": {3: pytest.approx(0.98)}}),
        (RICH_LIGHTNING, {"val_loss": {3: 0.5}, "test_acc": {3: 0.98}, "test_loss": {3: 0.25}}),
        (TRANSFORMERS, {"train_loss": {10: 0.5, 20: 0.25}, "eval_accuracy": {10: 0.8}}),
        ("labbench: wandb.init: the loss 3.0 is a message\nloss 1.0\n", {"loss": {0: 1.0}}),
    ],
    ids=["wandb", "keras", "keras lines", "lightning", "rich", "transformers", "labbench"],
)
def test_summaries_of_other_tools_add_no_point_to_a_metric(output: str, series: dict[str, object]) -> None:
    points: dict[str, dict[int, float]] = {}
    values: dict[str, list[float]] = {}
    for step, metrics in PrintedMetrics().feed(output):
        for name, value in metrics.items():
            points.setdefault(name, {})[step] = value
            values.setdefault(name, []).append(value)
    points.pop("epoch", None)
    assert points.keys() == series.keys()
    assert series == {name: values[name] if isinstance(series[name], list) else points[name] for name in series}
