"""A grid.toml: read, checked, expanded to configs, and turned into runs with names and identities.

grid = read_grid(path)                              # the file, its shape checked
expansion = expand(grid, params)                    # the configs, checked against the task's parameters
runs = new_runs(grid, expansion.configs, params)    # all of them: names tell what differs within the grid
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from labbench.contents import digest
from labbench.grid.expansion import LIMIT, Expansion, count_runs, expand
from labbench.grid.file import Grid, read_grid
from labbench.grid.identity import by_content, identity, task_identity
from labbench.grid.names import make_names
from labbench.params import Params
from labbench.records import Config, NewRun

__all__ = ["LIMIT", "Expansion", "Grid", "count_runs", "expand", "identity", "new_runs", "read_grid", "task_identity"]


def new_runs(grid: Grid, configs: Sequence[Config], params: Params, *, files: Path | None = None) -> list[NewRun]:
    """The runs of a grid, to be queued. Give all of its configs: a name says what differs among them.

    `files` is the folder of the database's files, for what runs of it kept. Raises InputError where a file that
    decides the results cannot be read.
    """
    names = make_names(configs, params, axes=grid.axis_keys, implied=grid.implied_keys, same=grid.name)
    task = task_identity(grid)
    once = cache(digest)  # a file of all runs is read once
    told = [by_content(grid.task, config, params, once, files) for config in configs]
    identities = [identity(task, config, params, grid.stop) for config in told]
    return [NewRun(*run) for run in zip(names, configs, identities, strict=True)]
