"""`[search]`: its settings, and errors with their positions."""

from __future__ import annotations

from pathlib import Path

import pytest

from labbench.errors import GridError
from labbench.grid import read_grid
from labbench.grid.search import Search

GRID = """task = "digits"
[grid]
lr = [0.1, 0.01]
[search]
method = "halving"
metric = "val/accuracy"
"""


def read(tmp_path: Path, text: str) -> Search | None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return read_grid(path).search


def test_a_search_has_the_documented_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, GRID) == Search("halving", "val/accuracy", "max")
    assert read(tmp_path, GRID.partition("[search]")[0]) is None


def test_every_setting_of_a_search_is_read(tmp_path: Path) -> None:
    settings = """goal = "min"
budget = 500
time_limit = "1h30m"
eta = 4
min_epochs = 2
seeds = [7, 8]
finalists = 2
seed = 5
batch = 8
keep_pruned = "none"
"""
    search = read(tmp_path, GRID + settings)
    assert search == Search("halving", "val/accuracy", "min", 500, 5400.0, 4.0, 2, (7, 8), 2, 5, 8, "none")


def test_the_metric_defaults_to_the_declared_one(tmp_path: Path) -> None:
    text = GRID.replace('metric = "val/accuracy"\n', "")
    declared = read(tmp_path, text + '[metrics]\n"lr_now" = "none"\n"val/loss" = "min"\n')
    stopped = read(tmp_path, text + '[stop]\nmetric = "val/loss"\npatience = 3\n')
    assert declared == stopped == Search("halving", "val/loss", "min")


@pytest.mark.parametrize(
    ("old", "new", "position", "message"),
    [
        ('metric = "val/accuracy"', "", (4, 2), "needs a `metric`"),
        ('method = "halving"', "", (4, 2), "needs a `method`"),
        ('"halving"', '"asha"', (5, 10), "method must be"),
        ("[search]", "[search]\neta = 1.5", (5, 7), "eta"),
        ("[search]", "[search]\nbudget = 0", (5, 10), "budget"),
        ("[search]", "[search]\nseeds = [1, 1]", (5, 9), "different seeds"),
        ("[search]", '[search]\ntime_limit = "soon"', (5, 14), "time_limit"),
        ("[search]", "[search]\nrungs = 4", (5, 1), "unknown key `rungs`"),
        ('"val/accuracy"', '"epoch"', (6, 10), "no better direction"),
        ('task = "digits"', 'command = ["python", "train.py"]', (5, 10), 'use "random" or "tpe"'),
    ],
)
def test_a_bad_search_is_reported_with_its_position(
    tmp_path: Path, old: str, new: str, position: tuple[int, int], message: str
) -> None:
    with pytest.raises(GridError, match=message) as error:
        read(tmp_path, GRID.replace(old, new, 1))
    assert (error.value.line, error.value.column) == position
    assert "\n" not in str(error.value).partition("\n    ")[0]


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_command_is_searched_without_rungs(tmp_path: Path, method: str) -> None:
    text = GRID.replace('task = "digits"', 'command = ["python", "train.py", "{lr}"]').replace("halving", method)
    assert read(tmp_path, f"{text}budget = 4\n") == Search(method, "val/accuracy", "max", 4)  # type: ignore[arg-type]
    for setting in ("eta = 4", "min_epochs = 1", 'keep_pruned = "none"'):
        with pytest.raises(GridError, match="has no effect on a command") as error:
            read(tmp_path, f"{text}{setting}\n")
        assert (error.value.line, error.value.column) == (7, 1)
    with pytest.raises(GridError, match="needs a `method`: random, tpe\n"):
        read(tmp_path, text.replace(f'method = "{method}"\n', ""))
