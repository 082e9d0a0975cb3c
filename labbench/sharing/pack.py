"""Packs: one file with runs of a database and their files, to send to other people."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from labbench.executors.scratch import ScratchFolder
from labbench.files import MODEL, PORTRAIT, files_folder, open_without_links, run_folder, write_atomically
from labbench.store.reader import Reader
from labbench.store.sharing.packed_database import PackedTexts, write_packed_database

DATABASE = "runs.db"
"""Name of the database in a pack."""
FILES = "files"
"""Folder of a pack with a folder for each run, named by its key."""
SUFFIX = ".labbench"


@dataclass(frozen=True, slots=True)
class PackedFile:
    """File in a pack."""

    name: str
    size: int
    """Bytes, uncompressed."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """Contents of a pack."""

    files: Sequence[PackedFile]
    left_out: Sequence[str]
    """Files of the runs that are not in the pack: links, missing files, and files outside the folder of their run."""


def write_pack(database: Path, keys: Sequence[str], output: Path, texts: PackedTexts) -> PackReport:
    """Write runs with their models, portraits and artifacts to one file.

    Raises:
        InputError: If the database cannot be read, or holds an invalid key.
        StoreError: If reading the database fails later on.
        OSError: If the file cannot be written.
    """
    with ScratchFolder() as scratch, write_atomically(output) as file, ZipFile(file, "w") as archive:
        copy = scratch / DATABASE
        write_packed_database(database, copy, keys, texts)
        packed, left_out = [_add(archive, DATABASE, copy.open("rb"), ZIP_DEFLATED)], []
        with Reader(database) as reader:
            for key in keys:
                folder = run_folder(files_folder(database), key)
                for name in _file_names(reader, key):
                    try:
                        content = _open_within(folder, name)
                    except OSError:
                        if name not in (MODEL, PORTRAIT) or os.path.lexists(folder / name):
                            left_out.append(f"{key}/{name}")
                    else:
                        packed.append(_add(archive, f"{FILES}/{key}/{name}", content, ZIP_STORED))
    return PackReport(packed, left_out)


def _file_names(reader: Reader, key: str) -> Iterator[str]:
    """Yield the paths of a run's files: relative to its folder, or absolute outside of it."""
    yield from dict.fromkeys([MODEL, PORTRAIT, *(artifact.path for artifact in reader.artifacts(key))])


def _open_within(folder: Path, name: str) -> IO[bytes]:
    """Open a regular file of a run. Raises OSError if it is missing, a link, or outside the folder of the run."""
    path = folder / name
    if Path(name).is_absolute() or not path.parent.resolve().is_relative_to(folder.resolve()):
        raise OSError(f"{path} is outside of {folder}")
    file = open_without_links(path, "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(f"{path} is not a regular file")


def _add(archive: ZipFile, name: str, content: IO[bytes], compression: int) -> PackedFile:
    """Add a file, without the time and the owner of its original, and close it."""
    entry = ZipInfo(name)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.compress_type = compression
    with content, archive.open(entry, "w", force_zip64=True) as target:
        shutil.copyfileobj(content, target, 1 << 20)
    return PackedFile(name, entry.file_size)
