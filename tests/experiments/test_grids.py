"""The experiments included with labbench: each has a question, and each trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from click.testing import Result

from labbench.grid import expand, read_grid
from labbench.params.builtin import BUILTIN, CORRUPTION
from labbench.runner.expanded_grid import task_params

FOLDER = Path(__file__).parents[2] / "experiments"
GRIDS = sorted(path for path in FOLDER.glob("*.toml") if read_grid(path).task)
NAMES = [path.stem for path in GRIDS]


@pytest.mark.parametrize("path", GRIDS, ids=NAMES)
def test_an_experiment_starts_with_its_question(path: Path) -> None:
    heading = "".join(takewhile(lambda line: line.startswith("#"), path.read_text().splitlines()))
    assert "?" in heading
    assert read_grid(path).name == path.stem


@pytest.mark.parametrize("path", GRIDS, ids=NAMES)
def test_an_experiment_expands_without_warnings_and_has_several_seeds(path: Path) -> None:
    grid = read_grid(path)
    expansion = expand(grid, task_params(grid))
    assert not expansion.warnings
    assert grid.search or len({config["seed"] for config in expansion.configs}) > 1
    assert set(grid.metrics) <= {"val/accuracy", "val/loss", "test/accuracy", "gap/accuracy"}


@pytest.mark.parametrize("path", GRIDS, ids=NAMES)
def test_an_experiment_trains(path: Path, labbench: Callable[..., Result]) -> None:
    result = labbench("run", path, "--limit", "2", "--set", "epochs=1", "--workers", "0", "--full")
    assert result.exit_code == 0, result.output
    runs = json.loads(labbench("ls", "--json").stdout)
    assert len(runs) == 2
    assert {run["status"] for run in runs} <= {"finished", "diverged"}
    assert all("train/loss" in run["summary"] for run in runs)


def test_other_networks_data_and_optimizers_of_an_experiment_train(labbench: Callable[..., Result]) -> None:
    for name, expression in (
        ("perceptron", "data=xor model=mlp seed=0"),
        ("layers", "layers~avgpool seed=0"),
        ("activations", "activation=gelu lr=0.01 seed=0"),
        ("rare_words", "optimizer=adagrad rarity=1.4 lr=0.1 seed=0"),
    ):
        words = (
            "run",
            FOLDER / f"{name}.toml",
            "--only",
            expression,
            "--limit",
            "1",
            "--set",
            "epochs=1",
            "--workers",
            "0",
        )
        assert labbench(*words).exit_code == 0, name
    runs = json.loads(labbench("ls", "--json").stdout)
    assert [run["status"] for run in runs] == ["finished"] * 4


@pytest.mark.parametrize("name", ["depth", "layers"])
def test_networks_compared_at_equal_size_have_the_number_of_parameters_in_the_comment(name: str) -> None:
    import torch

    from labbench.train.tasks.task import load_task, make_model

    path = FOLDER / f"{name}.toml"
    grid = read_grid(path)
    key = {"depth": "hidden", "layers": "layers"}[name]
    configs = {str(config[key]): config for config in expand(grid, task_params(grid)).configs}
    counts = [
        sum(torch.numel(p) for p in make_model(load_task("digits"), config).parameters()) for config in configs.values()
    ]
    assert max(counts) < 1.05 * min(counts)
    assert ", ".join(f"{count:,}" for count in counts) in path.read_text()


def test_the_readme_lists_every_experiment_task_and_corruption() -> None:
    text = (FOLDER / "README.md").read_text()
    assert all(f"[{path.stem}]({path.name})" in text for path in GRIDS)
    assert all(f"`{task}`" in text for task in BUILTIN)
    assert all(f"`{name} = " in text for name in CORRUPTION)
