"""Import of the folders that Lightning's CSVLogger writes: `metrics.csv` with `hparams.yaml` beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from labbench.importing.file_types.yaml_file import read_yaml_mapping
from labbench.importing.source_run import FoundRun, RunFolder, SourceRun, no_runs_error
from labbench.importing.table_file import TableOptions, find_runs_in_csv

_METRICS_FILE, _PARAMETERS_FILE = "metrics.csv", "hparams.yaml"


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs beneath a folder: each folder with `metrics.csv`, such as `lightning_logs/version_0`.

    Raises:
        InputError: If there is none.
    """
    if path.is_file():
        yield FoundRun(path.name, partial(_read_run, RunFolder(path.parent, path.parent)), [path])
        return
    folders = []
    for parent, subfolders, names in os.walk(path):
        subfolders.sort(key=_version)
        if _METRICS_FILE in names:
            folders.append(RunFolder(path, Path(parent)))
    if not folders:
        raise no_runs_error(path, _METRICS_FILE)
    for folder in folders:
        files = [folder.path / _METRICS_FILE, folder.path / _PARAMETERS_FILE]
        yield FoundRun(folder.label, partial(_read_run, folder), files)


def _version(folder: str) -> tuple[str, int]:
    """Sort `version_10` after `version_9`."""
    name, _, number = folder.rpartition("_")
    return (name, int(number)) if number.isdecimal() else (folder, -1)


def _read_run(folder: RunFolder) -> SourceRun:
    """Read a run. Raises InputError if a file cannot be read."""
    [found] = find_runs_in_csv(folder.path / _METRICS_FILE, TableOptions(step="step", is_live=True), folder.label)
    run = found.read()
    mark = run.id.rsplit(" ", 1)[1]
    return replace(
        run,
        id=folder.id(mark),
        name=folder.label,
        experiment=folder.experiment,
        config=read_yaml_mapping(folder.path / _PARAMETERS_FILE),
        earlier_id=folder.earlier_id(mark),
        other_ids=folder.other_ids(mark),
    )
