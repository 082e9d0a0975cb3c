"""Train grids of PyTorch experiments, record every number in one SQLite file, understand the runs.

The public names load on first use: `import labbench` imports the standard library alone, `labbench.Param` needs no
torch, `labbench.Data` does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from labbench._version import __version__

if sys.platform == "win32":  # no file locks, process groups and signals of POSIX
    raise ImportError("labbench runs on Linux and macOS; on Windows, install it in WSL (Windows Subsystem for Linux)")

if TYPE_CHECKING:
    from pathlib import Path

    from labbench.errors import LabbenchError
    from labbench.params.param import Param
    from labbench.store.reader import Reader
    from labbench.tracking.images import Image
    from labbench.tracking.run import Run
    from labbench.tracking.start import start
    from labbench.train.data.dataset import Data
    from labbench.train.data.image_folder import read_image
    from labbench.train.data.loading import Datasets
    from labbench.train.load_model import load_model
    from labbench.train.tasks.task import Task
    from labbench.wandb.labbench_functions import finish, init, log

__all__ = [
    "Data",
    "Datasets",
    "Image",
    "LabbenchError",
    "Param",
    "Run",
    "Task",
    "__version__",
    "finish",
    "init",
    "load_model",
    "log",
    "open",
    "read_image",
    "start",
]

_MODULES = {
    "Data": "train.data.dataset",
    "Datasets": "train.data.loading",
    "Image": "tracking.images",
    "LabbenchError": "errors",
    "Param": "params.param",
    "Run": "tracking.run",
    "Task": "train.tasks.task",
    "finish": "wandb.labbench_functions",
    "init": "wandb.labbench_functions",
    "load_model": "train.load_model",
    "log": "wandb.labbench_functions",
    "read_image": "train.data.image_folder",
    "start": "tracking.start",
}
"""Module, below `labbench`, of each public name that is imported on first use."""


def open(path: str | Path | None = None) -> Reader:
    """Open a database for reading: `labbench.open("runs.db").runs("optimizer=adam lr<=0.01")`.

    Without a path it is the default database: LABBENCH_DB, else `runs.db` in the current folder.

    Raises InputError if `path` is not a labbench database.
    """
    from labbench.files import default_database
    from labbench.store.reader import Reader  # imported here: training and logging do not read

    return Reader(default_database() if path is None else path)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'labbench' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"labbench.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
