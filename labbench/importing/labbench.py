"""Runs of another labbench database, with their files."""

from __future__ import annotations

import shutil
from pathlib import Path

from labbench.errors import InputError
from labbench.files import files_folder
from labbench.store.copying import Merged
from labbench.store.keeper import Keeper
from labbench.store.reader import Reader


def import_labbench(database: Path, other: Path) -> Merged:
    """Bring in the runs of `other` that the database lacks or that have gone on there; `other` stays as it is.

    Raises InputError where `other` is no labbench database, or the same one.
    """
    Reader(other).close()  # what is none shall not make a database
    with Keeper(database) as keeper:
        if other.resolve() == keeper.path:
            raise InputError(f"{other}: this is the database itself")
        merged = keeper.merge(other)
        for key, our_key in {**merged.new, **merged.newer}.items():
            _copy_files(files_folder(other.resolve()) / key, files_folder(keeper.path) / our_key)
    return merged


def _copy_files(source: Path, target: Path) -> None:
    """Copy a run's folder; a key that somebody else wrote must not lead out of the folder of files."""
    if source.name.isalnum() and source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
