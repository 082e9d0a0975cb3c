"""Expansion of grid files: warnings about the code of the task, such as modules that its code version leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from labbench.runner.expanded_grid import load_grid

TASK = """
import random, sys
from pathlib import Path
import numpy as np
import torch
sys.path.append(str(Path(__file__).parents[1]))
import beside, {outside}

class Task:
    params = {{}}

    def data(self, config):
        generators = np.random.default_rng(), random.Random(), np.random.default_rng(3), random.Random(4)
        random.seed()
        random.seed(1)
        torch.seed()
        return generators[0].seed()

    def model(self, config):
        return None
"""


def warnings_of(folder: Path, outside: str) -> list[str]:
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    (folder / "tasks/task.py").write_text(TASK.format(outside=outside))
    (folder / "tasks/beside.py").write_text("")
    (folder / f"{outside}.py").write_text("")
    (folder / "grid.toml").write_text('task = "tasks/task.py:Task"')
    return load_grid(folder / "grid.toml").warnings


def test_a_module_outside_of_the_tasks_folder_is_reported(tmp_path: Path) -> None:
    (module,) = [text for text in warnings_of(tmp_path, "common_module") if "imports" in text]
    assert module.startswith(
        f"{tmp_path / 'common_module.py'}, which the task imports, is not part of its code version"
    )


def test_random_numbers_without_a_seed_are_reported_with_their_line(tmp_path: Path) -> None:
    calls = [text.partition(" has no seed")[0] for text in warnings_of(tmp_path, "other_module") if "no seed" in text]
    assert sorted(calls) == [
        "task.py:13: np.random.default_rng()",
        "task.py:13: random.Random()",
        "task.py:14: random.seed()",
        "task.py:16: torch.seed()",
    ]
