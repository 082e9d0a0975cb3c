"""A parameter given as an option of `labbench run` is answered with `--set`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--epochs", "3"], "--set epochs=3"),
        (["--lr=0.1"], "--set lr=0.1"),
        (["--batch-size", "32"], "--set batch_size=32"),
        (["--hidden", "[64, 64]"], "--set 'hidden=[64, 64]'"),
        (["--width", "5"], "--set width=5"),  # a parameter of the user's task, which the grid names
        (["--lr"], "--set lr=VALUE"),
    ],
)
def test_an_option_that_is_a_parameter_is_answered_with_set(
    labbench: Callable[..., Result], tmp_path: Path, words: list[str], hint: str
) -> None:
    (tmp_path / "grid.toml").write_text("task = 'my_task.py:Task'\n[grid]\nwidth = [4, 5]\n")
    for order in (["grid.toml", *words], [*words, "grid.toml"]):
        result = labbench("run", *order)
        assert result.exit_code == 2
        assert result.stderr.endswith(f"to set the parameter for every run: {hint}\n")


def test_another_unknown_option_is_answered_as_before(labbench: Callable[..., Result]) -> None:
    result = labbench("run", "grid.toml", "--wrokers", "2")
    assert result.exit_code == 2
    assert "--workers" in result.stderr
    assert "--set" not in result.stderr
