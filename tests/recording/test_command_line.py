"""Options of a command become its configuration, and no secret is stored."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from labbench.recording.command_line import read_config, script_name


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("python train.py --lr 0.1 --epochs=5 -b 32", {"lr": 0.1, "epochs": 5, "b": 32}),
        ("python -u train.py --amp --no-shuffle --name a-b", {"amp": True, "no_shuffle": True, "name": "a-b"}),
        ("torchrun --nproc_per_node 2 train.py --weight-decay 1e-4 --x -3", {"weight_decay": 1e-4, "x": -3}),
        ("python -m pkg.train model.width=8 +opt=adam ++a.b=null ~c", {"model.width": 8, "opt": "adam", "a.b": None}),
        ("python train.py --layers 64 64 --data a b --flag", {"layers": [64, 64], "data": "a", "flag": True}),
        ("./train.sh fit --trainer.max_epochs 3 --model.deep=true", {"trainer.max_epochs": 3, "model.deep": True}),
        ("python a.py --large 1234567890123456789 --low=-inf", {"large": 1234567890123456789.0, "low": -math.inf}),
        ("python train.py --api-key abc --hfToken=x --tokens 5", {"api_key": "***", "hfToken": "***", "tokens": 5}),
        ("python train.py --db postgres://me:pw@host/x", {"db": "postgres://me:***@host/x"}),
        ("./program", {}),
    ],
)  # fmt: skip
def test_options_and_assignments_are_read(line: str, config: dict[str, Any]) -> None:
    assert read_config(shlex.split(line)) == config


@pytest.mark.parametrize(
    ("words", "name"),
    [(["python", "-u", "src/train.py", "x.py"], "train"), (["python", "-m", "a.b"], "a.b"), (["/bin/ls"], "ls")],
)
def test_the_experiment_is_the_name_of_the_script(words: list[str], name: str) -> None:
    assert script_name(words) == name
    assert Path(name).name == name
