"""Import of packs; a pack comes from someone else, so its contents are checked before anything is written."""

from __future__ import annotations

import lzma
import shutil
import stat
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from labbench.errors import InputError
from labbench.executors.scratch import ScratchFolder
from labbench.files import files_folder
from labbench.importing.labbench_db import import_labbench
from labbench.records import is_key
from labbench.sharing.pack import DATABASE, FILES
from labbench.store.maintenance.merge import MergeResult
from labbench.text import format_size

_MAX_FILES = 100_000
_DAMAGE = (BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""Errors of `zipfile` for a damaged, encrypted or unsupported file."""


def import_pack(database: Path, pack: Path, *, max_bytes: int) -> MergeResult:
    """Import the runs of a pack that are missing or older in the database, with their files.

    Args:
        max_bytes: Maximum size of the contents, uncompressed.

    Raises:
        InputError: If the file is not a pack, is damaged, too large, or names files that a pack cannot have. Nothing is
            written then.
        StoreError: If the database cannot be written.
    """
    with ScratchFolder() as scratch:
        copy = scratch / DATABASE
        try:
            with ZipFile(pack) as archive:
                _extract(archive, _checked_entries(archive.infolist(), pack, max_bytes), copy)
        except _DAMAGE as error:
            raise InputError(f"{pack}: not a complete pack of runs: {error}; ask for it again") from error
        return import_labbench(database, copy)


def _extract(archive: ZipFile, entries: Mapping[str, ZipInfo], copy: Path) -> None:
    """Write the database to `copy`, and the files of its runs to its folder of files."""
    for name, entry in entries.items():
        target = copy if name == DATABASE else files_folder(copy) / Path(name).relative_to(FILES)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("xb") as file:  # no more than the size that was checked
            shutil.copyfileobj(source, file, 1 << 20)


def _checked_entries(entries: Sequence[ZipInfo], pack: Path, max_bytes: int) -> dict[str, ZipInfo]:
    """Return the files of a pack by name.

    Raises InputError if a pack cannot have one of them, or they are too large together.
    """
    files = {}
    paths: set[str] = set()
    for entry in entries:
        problem = _problem_of(entry)
        path = unicodedata.normalize("NFC", entry.filename).casefold()  # equal on some file systems
        if problem is None and path in paths:
            problem = "is a name that occurs twice"
        if problem is not None:
            raise InputError(f"{pack}: refused, nothing was imported: {entry.filename[:200]!r} {problem}")
        files[entry.filename] = entry
        paths.add(path)
    for path in paths:
        if any(str(parent) in paths for parent in Path(path).parents):
            raise InputError(f"{pack}: refused, nothing was imported: {path[:200]!r} is in a folder that is a file")
    if DATABASE not in files:
        raise InputError(f"{pack}: this zip file is not a pack of runs: it has no {DATABASE}")
    size = sum(entry.file_size for entry in entries)
    if size > max_bytes or len(files) > _MAX_FILES:
        raise InputError(
            f"{pack}: refused, nothing was imported: {len(files)} files of {format_size(size)}, and at most "
            f"{_MAX_FILES} of {format_size(max_bytes)} are accepted; --max-size raises the limit"
        )
    return files


def _problem_of(entry: ZipInfo) -> str | None:
    """Return the reason why a pack cannot have an entry; None: it can."""
    name = entry.orig_filename  # with what `zipfile` cuts off after a zero byte
    parts = name.split("/")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or entry.is_dir():
        return "is a link, a folder or a device, not a regular file"
    if entry.flag_bits & 1:
        return "is encrypted"
    if name.startswith("/") or "\\" in name or ":" in parts[0]:
        return "is an absolute path"
    if any(part in ("", ".", "..") for part in parts) or not name.isprintable():
        return "is not a plain path inside the pack"
    if name != DATABASE and not (len(parts) > 2 and parts[0] == FILES and is_key(parts[1])):
        return "is not a file of a run"
    return None
