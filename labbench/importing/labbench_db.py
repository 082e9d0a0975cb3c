"""Runs of another labbench database, with their files."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import IO

from labbench.errors import InputError
from labbench.files import files_folder, open_without_links, run_folder, write_atomically
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.maintenance.merge import MergeResult
from labbench.store.reader import Reader


def import_labbench(database: Path, other: Path) -> MergeResult:
    """Bring in the runs of `other` that the database lacks or that have gone on there; `other` stays as it is.

    Raises InputError where `other` is no labbench database, or the same one.
    """
    Reader(other).close()  # what is none shall not make a database
    with MaintenanceWriter(database) as keeper:
        if other.resolve() == keeper.path:
            raise InputError(f"{other}: this is the database itself")
        merged = keeper.merge(other)
        theirs, ours = files_folder(other.resolve()), files_folder(keeper.path)
        if theirs.is_symlink():
            return replace(merged, skipped=[theirs])
        skipped: list[Path] = []
        for key, our_key in {**merged.new, **merged.newer}.items():
            skipped += copy_regular_files(theirs / key, run_folder(ours, our_key))
    return replace(merged, skipped=skipped)


def copy_regular_files(source: Path, target: Path) -> list[Path]:
    """Copy the regular files of a folder and its subfolders; return what is left out.

    Somebody else made the folder: links may lead to any file or in circles, devices and pipes may never end. None of
    them is opened.
    """
    skipped: list[Path] = []
    places = [source] if os.path.lexists(source) else []
    while places:
        place = places.pop()
        try:
            mode = place.lstat().st_mode
            if stat.S_ISDIR(mode):
                places += sorted(place.iterdir(), reverse=True)
                continue
            file = _open_regular(place, mode)
        except OSError:
            skipped.append(place)
            continue
        copy = target / place.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with file, write_atomically(copy) as output:
            shutil.copyfileobj(file, output)
    return skipped


def _open_regular(path: Path, mode: int) -> IO[bytes]:
    """Open a file for reading that had this mode when it was looked at. Raises OSError unless it is a regular file."""
    if stat.S_ISREG(mode):
        file = open_without_links(path, "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise OSError(f"{path} is no regular file")
