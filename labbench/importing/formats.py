"""Formats of other programs, recognised by the names of their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

from labbench.importing.source_run import FoundRun

_PATTERNS = {
    "tensorboard": ["*tfevents*"],
    "huggingface": ["trainer_state.json"],
    "lightning": ["metrics.csv"],
    "wandb": ["*.wandb"],
    "mlflow": ["mlflow.db", "meta.yaml"],
    "pack": ["*.labbench"],
}
"""File names of each format, which is also the name of its module, except for packs."""

_MAX_FILES = 100_000


def recognise(path: Path) -> list[str]:
    """Return the formats of the files at or beneath a path, in the order of `_PATTERNS`."""
    names = {name for _, name in zip(range(_MAX_FILES), _file_names(path), strict=False)}
    return [
        source
        for source, patterns in _PATTERNS.items()
        if any(fnmatch(name, pattern) for name in names for pattern in patterns)
    ]


def _file_names(path: Path) -> Iterator[str]:
    if path.is_file():
        yield path.name
    for _, _, files in os.walk(path):
        yield from files


def reader_of(source: str) -> Callable[[Path], Iterator[FoundRun]]:
    """Return the function that finds the runs of a format."""
    find_runs: Callable[[Path], Iterator[FoundRun]] = import_module(f"labbench.importing.{source}").find_runs
    return find_runs
