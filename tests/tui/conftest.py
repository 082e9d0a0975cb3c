"""Fixture of most tests of the TUI: the database of a grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.tui_samples import grid_of_runs


@pytest.fixture
def database(tmp_path: Path) -> Path:
    grid_of_runs(tmp_path / "runs.db")
    return tmp_path / "runs.db"
