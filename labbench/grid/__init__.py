"""Grid files: reading, checks, expansion to configs, and runs with names and identities.

grid = read_grid(path)                              # the file, with the structure of its tables checked
expansion = expand(grid, params)                    # its configs, checked against the task's parameters
runs = new_runs(grid, expansion.configs, params)    # its runs, named by the keys that differ within the grid
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from labbench.grid.code import Code
from labbench.grid.expansion import MAX_RUNS, Expansion, count_runs, expand
from labbench.grid.file_paths import named_files, path_warnings, with_absolute_paths
from labbench.grid.identity import grid_code, identity, task_identity, with_file_digests
from labbench.grid.names import make_names
from labbench.grid.read import Grid, read_grid
from labbench.params.param import Params
from labbench.params.paths import content_digest
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
    "named_files",
    "new_runs",
    "path_warnings",
    "read_grid",
    "task_identity",
]


def new_runs(
    grid: Grid, configs: Sequence[Config], params: Params, *, files: Path | None = None, code: Code | None = None
) -> list[NewRun]:
    """Return the runs of a grid, to be queued.

    `configs` must be all configs of the grid, since a run's name has the keys that differ among them. `files` is the
    folder of the database's files, which holds the models that runs kept. `code` computes the runs; default: the
    grid's current code.

    Raises:
        InputError: A file on which the results depend cannot be read.
    """
    names = make_names(configs, params, axes=grid.axis_keys, implied=grid.implied_keys, same=grid.name)
    code = code or grid_code(grid)
    task = task_identity(grid, code)
    digest = cache(content_digest)  # a file that several runs share is read only once
    runs = []
    for name, written in zip(names, configs, strict=True):
        config = with_absolute_paths(grid, written, params)
        content = with_file_digests(grid.task, config, params, digest, files)
        identity_with = partial(identity, config=content, params=params, stop=grid.stop)
        runs.append(NewRun(name, config, identity_with(task), setup=identity_with("")))
    return runs
