"""Paths in grid files are relative to the grid file's folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Labbench = Callable[..., Result]

GRID = """
task = "own"
[params]
epochs = 1
hidden = [4]
[grid]
path = ["table.csv", "other.csv"]
"""
TABLE = "x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40))


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Return a grid file in a folder beside its data, which is not the current folder."""
    folder = tmp_path / "experiment"
    folder.mkdir()
    for name in ("table.csv", "other.csv"):
        (folder / name).write_text(TABLE.replace("x", name))
    path = folder / "grid.toml"
    path.write_text(GRID)
    return path


def test_data_are_found_beside_the_grid_file_from_every_folder(labbench: Labbench, grid: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("not this one")
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 0, result.stderr
    assert "warning" not in result.stderr
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        rows = connection.execute("SELECT name, json_extract(config, '$.path') FROM runs ORDER BY id").fetchall()
    assert rows == [(name, str(grid.parent / name)) for name in ("table.csv", "other.csv")]


def test_data_in_the_current_folder_only_are_used_with_a_warning(
    labbench: Labbench, grid: Path, tmp_path: Path
) -> None:
    (grid.parent / "table.csv").rename(tmp_path / "table.csv")
    result = labbench("run", grid, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    assert "grid.toml:7:9: path: there is no table.csv in the grid file's folder" in result.stderr
    assert str(tmp_path / "table.csv") in result.stdout


def test_missing_data_and_weights_are_named_with_their_folder(labbench: Labbench, grid: Path) -> None:
    (grid.parent / "table.csv").unlink()
    result = labbench("run", grid, "--dry-run")
    assert result.exit_code == 2
    assert f"{grid.parent / 'table.csv'} (paths are relative to the grid file)" in result.stderr
    grid.write_text('task = "digits"\n[params]\ninit_from = "weights.pt"')
    assert str(grid.parent / "weights.pt") in labbench("run", grid, "--dry-run").stderr
