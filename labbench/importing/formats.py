"""Formats of other programs, recognised by the names of their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from pathlib import Path

from labbench.errors import InputError
from labbench.importing.file_types.foreign_database import open_foreign
from labbench.importing.source_run import FoundRun

_PATTERNS = {
    "tensorboard": ["*tfevents*"],
    "huggingface": ["trainer_state.json"],
    "lightning": ["metrics.csv"],
    "wandb": ["*.wandb"],
    "mlflow": ["mlflow.db", "meta.yaml"],
    "pack": ["*.labbench"],
}
"""File names of each format, which is also the name of its module, except for packs; the first match counts."""

_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl"}
"""Formats of single files by their names' endings."""

_TABLES = {
    "labbench": ("runs", "key", "experiment_id", "config"),
    "mlflow": ("runs", "run_uuid", "experiment_id"),
    "trackio": ("metrics", "run_name", "step", "metrics"),
}
"""Table and columns by which a database of each format is known."""

_MAX_FILES = 100_000


def format_of(path: Path) -> str | None:
    """Return the format of a file, "auto" for anything else that exists, None if nothing is there."""
    if not path.is_file():
        return "auto" if path.exists() else None
    if format_of_name(path.name) == "pack":
        return "pack"
    return _SUFFIXES.get(path.suffix) or _format_of_database(path) or "auto"


def _format_of_database(path: Path) -> str | None:
    try:
        with open_foreign(path) as database:
            return next((name for name, columns in _TABLES.items() if database.has_columns(*columns)), None)
    except InputError:  # no database
        return None


def recognise(path: Path) -> list[str]:
    """Return the formats of the files at or beneath a path, in the order of `_PATTERNS`."""
    names = {name for _, name in zip(range(_MAX_FILES), _file_names(path), strict=False)}
    recognised = {format_of_name(name) for name in names}
    return [source for source in _PATTERNS if source in recognised]


def format_of_name(name: str) -> str | None:
    """Return the format of a file by its name; event files that labbench exports end in .labbench, but are no packs."""
    return next((source for source, patterns in _PATTERNS.items() if any(map(partial(fnmatch, name), patterns))), None)


def _file_names(path: Path) -> Iterator[str]:
    if path.is_file():
        yield path.name
    for _, _, files in os.walk(path):
        yield from files


def reader_of(source: str) -> Callable[[Path], Iterator[FoundRun]]:
    """Return the function that finds the runs of a format."""
    find_runs: Callable[[Path], Iterator[FoundRun]] = import_module(f"labbench.importing.{source}").find_runs
    return find_runs
