"""Import of the folders that Lightning's CSVLogger writes: `metrics.csv` with `hparams.yaml` beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from labbench.importing.file_types.yaml_file import read_yaml_mapping
from labbench.importing.source_run import FoundRun, SourceRun, no_runs_error
from labbench.importing.table_file import TableOptions, find_runs_in_csv

_METRICS_FILE, _PARAMETERS_FILE = "metrics.csv", "hparams.yaml"


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs beneath a folder: each folder with `metrics.csv`, such as `lightning_logs/version_0`.

    Raises:
        InputError: If there is none.
    """
    if path.is_file():
        yield FoundRun(path.name, partial(_read_run, path.parent, path.parent), [path])
        return
    folders = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort(key=_version)
        if _METRICS_FILE in files:
            folders.append(Path(folder))
    if not folders:
        raise no_runs_error(path, _METRICS_FILE)
    for run in folders:
        label = run.relative_to(path).as_posix()
        label = path.resolve().name if label == "." else label
        yield FoundRun(label, partial(_read_run, path, run), [run / _METRICS_FILE, run / _PARAMETERS_FILE])


def _version(folder: str) -> tuple[str, int]:
    """Sort `version_10` after `version_9`."""
    name, _, number = folder.rpartition("_")
    return (name, int(number)) if number.isdecimal() else (folder, -1)


def _read_run(root: Path, folder: Path) -> SourceRun:
    """Read a run.

    Raises InputError if a file cannot be read.
    """
    label = folder.relative_to(root).as_posix()
    label = root.resolve().name if label == "." else label
    [found] = find_runs_in_csv(folder / _METRICS_FILE, TableOptions(step="step", is_live=True), label)
    run = found.read()
    return replace(
        run,
        id=f"{label} {run.id.rsplit(' ', 1)[1]}",
        name=label,
        experiment=root.resolve().name,
        config=read_yaml_mapping(folder / _PARAMETERS_FILE),
    )
