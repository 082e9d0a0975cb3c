"""Runs that fail, as a user of `labbench run`, `run --dry-run` and `show` sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

TASK = """
import torch
from torch import nn
from labbench import Data


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.fcc(x)


class MyTask:
    params = {}

    def data(self, config):
        inputs, classes = torch.zeros(20, 2), torch.arange(20) % 2
        return Data((inputs, classes), (inputs, classes))

    def model(self, config):
        return Net()
"""

ERROR = "AttributeError: 'Net' object has no attribute 'fcc' (my_task.py:13)"


@pytest.fixture
def failing(tmp_path: Path, labbench: Callable[..., Result]) -> Callable[..., Result]:
    """Return the command line in a folder with a grid whose runs all fail."""
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "grid.toml").write_text('task = "my_task.py:MyTask"\n[params]\nepochs = 1\n[grid]\nlr = [0.1, 0.2]\n')
    return labbench


def test_a_preview_of_runs_that_would_fail_says_so_with_the_error(failing: Callable[..., Result]) -> None:
    result = failing("run", "grid.toml", "--dry-run", "--workers", "0")
    assert result.exit_code == 1
    assert f"of the sampled stacks, 2 runs would fail: {ERROR}" in result.stderr
    assert "trained alone" not in result.stderr


def test_the_error_is_printed_once_and_show_has_the_users_lines_alone(failing: Callable[..., Result]) -> None:
    result = failing("run", "grid.toml", "--workers", "0")
    assert result.exit_code == 1
    assert result.stderr.count("no attribute 'fcc'") == 1
    assert "trained alone" not in result.stderr
    shown = failing("show", "lr=0.1").stdout
    frames = [line.strip() for line in shown.splitlines() if line.lstrip().startswith("File ")]
    assert len(frames) == 1
    assert "my_task.py" in frames[0]
    assert f"failed: {ERROR}" in shown
    assert "calls in libraries" in shown
    assert failing("show", "lr=0.1", "--all").stdout.count("labbench/train/") > 3
