"""A grid.toml: read, checked, expanded to configs, and turned into runs with names and identities.

grid = read_grid(path)                              # the file, its shape checked
expansion = expand(grid, params)                    # the configs, checked against the task's parameters
runs = new_runs(grid, expansion.configs, params)    # all of them: names tell what differs within the grid
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from labbench.grid.code import Code
from labbench.grid.expansion import MAX_RUNS, Expansion, count_runs, expand
from labbench.grid.identity import grid_code, identity, task_identity, with_file_digests
from labbench.grid.names import make_names
from labbench.grid.read import Grid, read_grid
from labbench.params.files import content_digest
from labbench.params.param import Params
from labbench.records import Config, NewRun

__all__ = [
    "MAX_RUNS",
    "Code",
    "Expansion",
    "Grid",
    "count_runs",
    "expand",
    "grid_code",
    "identity",
    "new_runs",
    "read_grid",
    "task_identity",
]


def new_runs(
    grid: Grid, configs: Sequence[Config], params: Params, *, files: Path | None = None, code: Code | None = None
) -> list[NewRun]:
    """The runs of a grid, to be queued. Give all of its configs: a name says what differs among them.

    `files` is the folder of the database's files, for what runs of it kept; `code` what computes the runs, by default
    as it is now. Raises InputError where a file that decides the results cannot be read.
    """
    names = make_names(configs, params, axes=grid.axis_keys, implied=grid.implied_keys, same=grid.name)
    code = code or grid_code(grid)
    task = task_identity(grid, code)
    once = cache(content_digest)  # a file of all runs is read once
    runs = []
    for name, config in zip(names, configs, strict=True):
        content = with_file_digests(grid.task, config, params, once, files)
        of_task = partial(identity, config=content, params=params, stop=grid.stop)
        runs.append(NewRun(name, config, of_task(task), of_task("")))
    return runs
