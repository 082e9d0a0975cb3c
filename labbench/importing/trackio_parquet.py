"""Parquet files of Trackio, which it writes beside its databases to upload them: `PROJECT.parquet` and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labbench.errors import InputError

_FACTS = frozenset({"id", "run_id", "run_name", "timestamp", "created_at", "step", "log_id", "space_id"})


def is_project(path: Path) -> bool:
    """Return True for a file with the configurations of a project's runs beside it, which Trackio always writes."""
    return _part(path, "_configs").is_file()


def run_names(path: Path) -> dict[str, str]:
    """Return name by id of the runs of a project, in the order of their first rows.

    Raises:
        InputError: If the file is not a Parquet file of Trackio, or pyarrow is not installed.
    """
    names: dict[str, str] = {}
    for row in _read_rows(path, None):
        names.setdefault(_run_id(row), str(row.get("run_name")))
    return names


def metric_rows(path: Path, run_id: str) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Yield step, timestamp and values of each log call of a run.

    Raises:
        InputError: If the file cannot be read.
    """
    for row in _read_rows(path, run_id):
        yield row.get("step"), row.get("timestamp"), _values(row)


def system_rows(path: Path, run_id: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield timestamp and system metrics of a run.

    Raises:
        InputError: If the file cannot be read.
    """
    for row in _read_rows(_part(path, "_system"), run_id):
        yield row.get("timestamp"), _values(row)


def read_config(path: Path, run_id: str) -> dict[str, Any]:
    """Return the configuration of a run.

    Raises:
        InputError: If the file cannot be read.
    """
    return {key: value for row in _read_rows(_part(path, "_configs"), run_id) for key, value in _values(row).items()}


def _part(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.stem}{ending}.parquet")


def _read_rows(path: Path, run_id: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a run, or of all; none if the file does not exist. Raises InputError."""
    try:
        import pyarrow  # a large package that only this function needs
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            if "run_name" not in file.schema_arrow.names:
                raise InputError(f"{path}: not a Parquet file of Trackio: it has no column `run_name`")
            names = {"run_id", "run_name"} & {*file.schema_arrow.names}
            columns = [*names] if run_id is None else None
            for batch in file.iter_batches(columns=columns):
                yield from (row for row in batch.to_pylist() if run_id is None or _run_id(row) == run_id)
    except FileNotFoundError:
        return
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from error


def _run_id(row: Mapping[str, Any]) -> str:
    """Return what tells runs apart; versions before 0.30 have only the name."""
    return str(row.get("run_id") or row.get("run_name"))


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _FACTS and value is not None}
