"""Formats of other programs, recognised by the names of their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path

from labbench.errors import InputError
from labbench.export.table_files import unescape_formula
from labbench.importing import csv_file, summary_table, table_file, wandb_tables
from labbench.importing.file_types.csv_rows import open_csv
from labbench.importing.file_types.foreign_database import open_foreign
from labbench.importing.source_run import FoundRun
from labbench.importing.table_file import TableOptions
from labbench.importing.trackio_parquet import is_project

_PATTERNS = {
    "tensorboard": ["*tfevents*"],
    "huggingface": ["trainer_state.json"],
    "lightning": ["metrics.csv"],
    "wandb": ["*.wandb"],
    "mlflow": ["mlflow.db"],
    "trackio": [],
    "pack": ["*.labbench"],
}
"""File names of each format, which is also the name of its module, except for packs; the first match counts."""

NAMES = (
    "event files (*tfevents*), trainer_state.json, metrics.csv, *.wandb, MLflow's and Trackio's databases, mlruns/ or "
    "*.labbench"
)
"""Files that are recognised, in words."""

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
    """Return the formats of the files at or beneath a path, in the order of `_PATTERNS`.

    Hidden folders, virtual environments and the files of databases are not searched.

    Raises:
        InputError: If the path is a Parquet file of another program than Trackio, such as an export of labbench.
    """
    formats = _formats_of(islice(_files(path), _MAX_FILES))
    if not formats and path.is_file() and path.suffix in (".parquet", ".pq"):
        raise InputError(
            f"{path}: Parquet tables are not imported, except for Trackio's; export CSV or JSON lines (the "
            "command `export -o runs.jsonl`), or the runs with all they have (the command `pack`)"
        )
    return formats


def _formats_of(files: Iterable[Path]) -> list[str]:
    recognised = {_format_of_file(file) for file in files}
    return [source for source in _PATTERNS if source in recognised]


def _format_of_file(file: Path) -> str | None:
    """Return the format that a file belongs to, by its name or, if many programs use the name, by its content."""
    if (source := format_of_name(file.name)) is not None:
        return source
    if file.suffix == ".db":
        source = _format_of_database(file)
        return source if source in _PATTERNS else None
    if file.name == "meta.yaml" and ((file.parent / "metrics").is_dir() or (file.parent / "params").is_dir()):
        return "mlflow"
    return "trackio" if file.suffix == ".parquet" and is_project(file) else None


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
        if path.is_dir() and not _may_hold_logs(path.name):
            continue
        files = list(islice(_files(path), n_left))
        n_left -= len(files)
        if formats := _formats_of(files):
            logs[path] = formats
    return logs


def find_databases(folder: Path) -> list[Path]:
    """Return the labbench databases among the files of a folder whose names end in .db."""
    return [path for path in sorted(folder.glob("*.db")) if path.is_file() and _format_of_database(path) == "labbench"]


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or the files beneath a folder."""
    if path.is_file():
        yield path
    for parent, subfolders, names in os.walk(path):
        is_environment = "pyvenv.cfg" in names
        subfolders[:] = [] if is_environment else [name for name in sorted(subfolders) if _may_hold_logs(name)]
        yield from (Path(parent, name) for name in names if not is_environment)


def _may_hold_logs(folder: str) -> bool:
    return not folder.startswith(".") and not folder.endswith(".files") and folder not in _FOLDERS_WITHOUT_LOGS


def find_runs_in_csv(path: Path, options: TableOptions) -> Iterator[FoundRun]:
    """Yield the runs of a CSV file with one row per point, per step or per run.

    Raises:
        InputError: If the file cannot be read or a named column is missing.
    """
    with open_csv(path) as table:
        headings = [unescape_formula(heading) for heading in table.headings]
    if csv_file.is_long(headings):
        return csv_file.find_runs(path)
    if summary_table.is_summary_table(headings):
        return summary_table.find_runs(path)
    if wandb_tables.is_wandb_table(headings):
        return wandb_tables.find_runs(path, options.config)
    return table_file.find_runs_in_csv(path, options)


def reader_of(source: str) -> Callable[[Path], Iterator[FoundRun]]:
    """Return the function that finds the runs of a format."""
    find_runs: Callable[[Path], Iterator[FoundRun]] = import_module(f"labbench.importing.{source}").find_runs
    return find_runs
