"""labbench: train grids of PyTorch experiments, record every number in one SQLite file, understand the runs.

Importing this package costs the standard library alone: torch, Textual and numpy are loaded where they are used, and
what tracks a script with the first `labbench.start`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labbench._version import __version__ as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from labbench.store.reader import Reader
    from labbench.tracking.run import Run
    from labbench.tracking.start import start
    from labbench.tracking.wandb_compat import finish, init, log
    from labbench.train.load_model import load_model


__all__ = ["Run", "finish", "init", "load_model", "log", "open", "start"]

_HOMES = {
    "Run": "tracking.run",
    "start": "tracking.start",
    "init": "tracking.wandb_compat",
    "log": "tracking.wandb_compat",
    "finish": "tracking.wandb_compat",
    "load_model": "train.load_model",
}


def open(path: str | Path = "runs.db") -> Reader:
    """Read a database: `labbench.open("runs.db").runs("optimizer=adam lr<=0.01")`."""
    from labbench.store.reader import Reader  # who only tracks or trains does not read

    return Reader(path)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'labbench' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"labbench.{_HOMES[name]}"), name)
    return value
