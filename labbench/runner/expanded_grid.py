"""Grid files, expanded to runs: reading, validation, the parameters of the task, and warnings about its code."""

from __future__ import annotations

import ast
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labbench.errors import InputError, did_you_mean
from labbench.files import files_folder
from labbench.filters.parser import Filter, matches_config, parse, require_config_keys
from labbench.grid import Code, Grid, expand, grid_code, new_runs, path_warnings, read_grid
from labbench.grid.code import parse_python, read_bytes
from labbench.params.builtin import BUILTIN, EPOCH_METRICS, takes_weights
from labbench.params.param import TRAINING, Params, all_params, own_key_notes
from labbench.params.paths import RUN_PREFIX
from labbench.records import Engine, NewRun
from labbench.store.reader import Reader
from labbench.text import format_count

UNSEEDED_CLASSES = ("default_rng", "RandomState", "SeedSequence", "Random", "SystemRandom")
"""Functions and classes that take a seed from the system if they are called without arguments."""
MODULES_WITH_SEED = ("random", "torch")
"""Modules whose function `seed` takes a seed from the system if it is called without arguments."""


@dataclass(frozen=True, slots=True)
class ExpandedGrid:
    """Grid file, validated and expanded to runs, independent of the database."""

    grid: Grid
    runs: list[NewRun]
    warnings: list[str]
    params: Params
    """Parameters of the task and the training loop."""
    code: Code
    """Code that computes the runs."""
    removed: int = 0
    """Number of configurations that `[[require]]` has removed."""
    is_whole: bool = True
    """True if the runs are all runs of the file: neither overrides nor a filter nor a limit was given."""

    @property
    def notes(self) -> list[str]:
        """Notes on task parameters that have the same names as parameters of the training loop."""
        return [] if self.grid.command or self.grid.task in BUILTIN else own_key_notes(self.params)

    def with_engine(self, engine: Engine) -> ExpandedGrid:
        """Return the grid with another `[runtime] engine`; its runs are the same."""
        return replace(self, grid=replace(self.grid, runtime=replace(self.grid.runtime, engine=engine)))


def load_grid(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    only: str = "",
    limit: int | None = None,
    yes: bool = False,
    db: Path | None = None,
) -> ExpandedGrid:
    """Read, validate and expand a grid file.

    Args:
        path: Path of the grid file.
        overrides: `key=value` settings that replace the file's.
        only: Filter on the configs of the runs; empty keeps all.
        limit: Keep only the first runs.
        yes: Expand grids of any size without confirmation.
        db: Database with the runs that `init_from` names.

    Raises:
        InputError: If the grid, its task, the filter or `init_from` is invalid, or no run matches the filter.
    """
    condition = parse(only)
    grid = read_grid(path, overrides=overrides)
    params = task_params(grid)
    require_stop_metric(grid)
    expansion = expand(grid, params, yes=yes)
    configs = resolve_init_from(expansion.configs, params, db)
    code = grid_code(grid)
    runs = new_runs(grid, configs, params, files=None if db is None else files_folder(db), code=code)
    if condition is not None:
        require_config_keys(condition, only, expansion.configs[0].keys())
        runs = _matching_runs(runs, condition, path)
    warnings = [*expansion.warnings, *path_warnings(grid, configs, params)]
    if code.files and not grid.command:
        warnings += task_warnings(grid, code)
    is_whole = not overrides and condition is None and limit is None
    return ExpandedGrid(grid, runs[:limit], warnings, params, code, expansion.removed, is_whole)


def _matching_runs(runs: list[NewRun], condition: Filter, path: Path) -> list[NewRun]:
    """Return the runs whose configs match a filter. Raises InputError if there are none."""
    matching = [run for run in runs if matches_config(condition, run.config)]
    if not matching:
        raise InputError(
            f"--only matches none of the {len(runs)} runs of {path}; to list them, use --dry-run without --only"
        )
    return matching


def resolve_init_from(configs: list[dict[str, Any]], params: Params, db: Path | None) -> list[dict[str, Any]]:
    """Replace the word in `init_from = "run:WORD"` with the run's key.

    Raises:
        InputError: If the database does not exist.
        RunNotFound: If no run matches a word.
    """
    named = {config["init_from"] for config in configs if takes_weights(params) and config["init_from"] is not None}
    words = {word for word in named if word.startswith(RUN_PREFIX)}
    if not words:
        return configs
    if db is None or not db.exists():
        missing = "no database is given" if db is None else f"the database {db} does not exist"
        raise InputError(f"init_from = {min(words)!r} names a run, but {missing}")
    with Reader(db) as reader:
        keys = {word: RUN_PREFIX + reader.find(word.removeprefix(RUN_PREFIX)).key for word in words}
    return [{**config, "init_from": keys.get(config["init_from"], config["init_from"])} for config in configs]


def task_params(grid: Grid) -> Params:
    """Return the parameters of the grid's task and the training loop.

    Returns an empty mapping for a command, which accepts any parameter.

    Raises:
        InputError: If the task cannot be loaded, or PyTorch is not installed.
    """
    if grid.command:
        return {}
    if grid.task in BUILTIN:
        return {**TRAINING, **BUILTIN[grid.task]}
    require_torch()
    from labbench.train.tasks.task import load_task  # a user's file, which imports torch

    with _import_limit(grid.resources.timeout):
        return all_params(load_task(grid.task).params)


@contextmanager
def _import_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError after this time in the block, which imports a task.

    Does nothing without a limit, or outside the main thread.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"the import takes longer than {seconds:g} s ([resources] timeout)")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def require_stop_metric(grid: Grid) -> None:
    """Raise InputError if `[stop]` names a metric that is never measured.

    Only built-in tasks are checked; the metrics of a user's task are known only in training.
    """
    if grid.stop is None or grid.task not in BUILTIN or grid.task == "own":
        return
    if grid.stop.metric not in EPOCH_METRICS:
        hint = did_you_mean(grid.stop.metric, EPOCH_METRICS) or f"; use one of {', '.join(EPOCH_METRICS)}"
        message = f"`{grid.stop.metric}` is not measured at the end of an epoch{hint}"
        raise grid.source.error(message, ("stop", "metric"))


def require_torch() -> None:
    """Raise InputError if PyTorch is not installed."""
    if find_spec("torch") is None:
        raise InputError(
            'training needs PyTorch, which is not installed: pip install -e ".[train]" in labbench\'s checkout'
        )


def task_warnings(grid: Grid, code: Code) -> list[str]:
    """Return warnings about the code of a task that has been imported.

    Raises:
        InputError: A file of the task cannot be read.
    """
    file = Path(grid.task.rpartition(":")[0])
    files = [file.parent / name for name in code.files]
    return [*_untracked_modules(grid.task, files), *(text for each in files for text in _unseeded_calls(each))]


def _untracked_modules(task: str, files: list[Path]) -> Iterator[str]:
    from labbench.train.tasks.import_context import imported_files  # imports torch

    tracked = {each.resolve() for each in files}
    others = sorted(path for path in imported_files(task) if path.resolve() not in tracked)
    if others:
        more = f" and {format_count(len(others) - 1, 'other module')}" if len(others) > 1 else ""
        yield (
            f"{others[0]}{more}, which the task imports, {'are' if more else 'is'} not part of its code version: after "
            "a change there, train again with --rerun (modules in the folder of the task are tracked)"
        )


def _unseeded_calls(file: Path) -> Iterator[str]:
    tree = parse_python(read_bytes(file))
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and not node.args and not node.keywords and _takes_seed(node.func):
            yield (
                f"{file.name}:{node.lineno}: {ast.unparse(node)} has no seed, so that its numbers differ between "
                "starts and processes: pass a seed, or draw from np.random, random or torch, which labbench seeds"
            )


def _takes_seed(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(attr="seed", value=ast.Name(id=module) | ast.Attribute(attr=module)):
            return module in MODULES_WITH_SEED
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in UNSEEDED_CLASSES
    return False
