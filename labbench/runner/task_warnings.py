"""Warnings about a task's code: modules outside of its code version, and random numbers that no seed determines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from labbench.grid import Code, Grid
from labbench.grid.code import parse_python, read_bytes
from labbench.text import format_count

UNSEEDED_CLASSES = ("default_rng", "RandomState", "SeedSequence", "Random", "SystemRandom")
"""Functions and classes that take a seed from the system if they are called without arguments."""
MODULES_WITH_SEED = ("random", "torch")
"""Modules whose function `seed` takes a seed from the system if it is called without arguments."""


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

    known = {each.resolve() for each in files}
    others = sorted(path for path in imported_files(task) if path.resolve() not in known)
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
