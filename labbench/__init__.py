"""labbench: train grids of PyTorch experiments, record every number in one SQLite file, understand the runs.

Importing this package costs the standard library alone: torch, Textual and numpy are loaded where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from labbench.store.reader import Reader

__version__ = "0.1.0"


def open(path: str | Path = "runs.db") -> Reader:
    """Read a database: `labbench.open("runs.db").runs("optimizer=adam lr<=0.01")`."""
    from labbench.store.reader import Reader  # who only tracks or trains does not read

    return Reader(path)
