"""Formats of other programs, recognised by the names of their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Set
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from itertools import islice
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
"""Table and columns that identify a database of each format."""

_MAX_FILES = 100_000
_MAX_FILES_AT_START = 20_000
"""Files that are looked at to tell what a folder holds, which must not take long."""

_FOLDERS_WITHOUT_LOGS = ("node_modules", "site-packages", "venv", "env", "__pycache__")


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
    return _formats_of(set(islice(_file_names(path), _MAX_FILES)))


def _formats_of(names: Set[str]) -> list[str]:
    recognised = {format_of_name(name) for name in names}
    return [source for source in _PATTERNS if source in recognised]


def format_of_name(name: str) -> str | None:
    """Return the format of a file by its name; event files that labbench exports end in .labbench, but are no packs."""
    return next((source for source, patterns in _PATTERNS.items() if any(map(partial(fnmatch, name), patterns))), None)


def find_logs(folder: Path) -> dict[Path, list[str]]:
    """Return the files and folders in a folder that hold runs of other programs, with their formats.

    Hidden folders, virtual environments and the files of databases are skipped.
    """
    logs: dict[Path, list[str]] = {}
    n_left = _MAX_FILES_AT_START
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith(".files") or path.name in _FOLDERS_WITHOUT_LOGS:
            continue
        names = list(islice(_file_names(path), n_left))
        n_left -= len(names)
        if formats := _formats_of(set(names)):
            logs[path] = formats
    return logs


def find_databases(folder: Path) -> list[Path]:
    """Return the labbench databases among the files of a folder whose names end in .db."""
    return [path for path in sorted(folder.glob("*.db")) if path.is_file() and _format_of_database(path) == "labbench"]


def _file_names(path: Path) -> Iterator[str]:
    if path.is_file():
        yield path.name
    for _, _, files in os.walk(path):
        yield from files


def reader_of(source: str) -> Callable[[Path], Iterator[FoundRun]]:
    """Return the function that finds the runs of a format."""
    find_runs: Callable[[Path], Iterator[FoundRun]] = import_module(f"labbench.importing.{source}").find_runs
    return find_runs
