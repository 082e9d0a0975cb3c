"""Import of runs from another labbench database, with their files."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import IO

from labbench.errors import InputError
from labbench.files import files_folder, open_without_links, run_folder, write_atomically
from labbench.store.maintenance.keeper import open_for_import
from labbench.store.maintenance.merge import MergeResult
from labbench.store.reader import Reader


def import_labbench(database: Path, other: Path) -> MergeResult:
    """Import the runs of `other` that are missing or older in the database; `other` is not changed.

    Raises:
        InputError: If `other` is not a labbench database, or is the database itself.
        StoreError: If the database cannot be written.
    """
    Reader(other).close()  # before the database is created: an invalid `other` must not create one
    with open_for_import(database) as writer:
        if other.resolve() == writer.path:
            raise InputError(f"{other}: a database cannot be imported into itself; pass another file")
        merged = writer.merge(other)
        theirs, ours = files_folder(other), files_folder(writer.path)
        if theirs.is_symlink():
            return replace(merged, skipped=[theirs])
        skipped: list[Path] = []
        for key, our_key in {**merged.new, **merged.newer}.items():
            skipped += copy_regular_files(theirs / key, run_folder(ours, our_key))
        for key, our_key in merged.same.items():  # an earlier import may have ended before it copied the files
            copy_regular_files(theirs / key, run_folder(ours, our_key), only_missing=True)
    return replace(merged, skipped=skipped)


def copy_regular_files(source: Path, target: Path, *, only_missing: bool = False) -> list[Path]:
    """Copy the regular files of a folder and its subfolders; return the paths of everything else.

    The folder comes from someone else, so nothing else is opened: a link may point anywhere, and reading a device or a
    pipe may block forever. With `only_missing`, files that `target` has are left unchanged.

    Raises:
        OSError: If a file cannot be written.
    """
    skipped: list[Path] = []
    pending = [source] if os.path.lexists(source) else []
    while pending:
        path = pending.pop()
        try:
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                pending += sorted(path.iterdir(), reverse=True)
                continue
            file = _open_regular(path, mode)
        except OSError:
            skipped.append(path)
            continue
        copy = target / path.relative_to(source)
        with file:
            if only_missing and os.path.lexists(copy):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(copy) as output:
                shutil.copyfileobj(file, output)
    return skipped


def _open_regular(path: Path, mode: int) -> IO[bytes]:
    """Open a file for reading, given its mode from lstat.

    Raises OSError unless it is a regular file.
    """
    if stat.S_ISREG(mode):
        file = open_without_links(path, "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise OSError(f"{path} is not a regular file")
