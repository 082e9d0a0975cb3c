"""Files that a run produced or used, recorded by path, size and hash, and copied on request."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from labbench.errors import InputError
from labbench.files import files_folder, run_folder, write_atomically
from labbench.messages import warn
from labbench.records import Artifact
from labbench.store.connection import path_with_suffix
from labbench.system.clock import now


def record_files(path: Path, database: Path, key: str, *, copy: bool, name: str | None = None) -> list[Artifact]:
    """Record the current content of a file, or of each file in a folder, as artifacts of the run `key`.

    With `copy`, the files are also copied into the run's folder. A file of a folder that cannot be read and a folder
    without files cause a warning.

    Args:
        name: Name of the artifact, or of the folder; default: the path relative to the current folder.

    Raises:
        InputError: If `path` is not a folder and cannot be read, or the name has no valid part.
    """
    folder = run_folder(files_folder(database), key)
    new_name = None if name is None else relative_name(name)
    if not path.is_dir():
        return [_record_file(path, folder, new_name or _artifact_name(path), copy=copy)]
    artifacts = []
    for file in list(_files_in(path, database)):  # complete before the first copy is written
        try:
            file_name = f"{new_name}/{file.relative_to(path).as_posix()}" if new_name else _artifact_name(file)
            artifacts.append(_record_file(file, folder, file_name, copy=copy))
        except InputError as error:
            warn(str(error))
    if not artifacts:
        warn(f"run.artifact: no files in the folder {path}; nothing is recorded")
    return artifacts


def _files_in(folder: Path, database: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, except files of the database.

    A link to a file counts as a file; links to folders, which may be circular, are not followed.
    """
    side_files = {path_with_suffix(database, suffix) for suffix in ("", "-wal", "-shm", "-journal", ".files")}

    def report(error: OSError) -> None:
        warn(f"run.artifact: {error.filename} cannot be read: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if Path(parent, name).resolve() not in side_files)
        for file in (Path(parent, name) for name in sorted(files)):
            if file.is_file() and file.resolve() not in side_files:
                yield file


def _record_file(path: Path, folder: Path, name: str, *, copy: bool) -> Artifact:
    """Record the current content of a file.

    With `copy`, the file is also copied into `folder`, the run's folder, and the recorded path is relative to it. If
    the copy fails, a warning is printed and the original path is recorded.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise InputError(f"run.artifact: {path} is no file or folder")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"run.artifact: {path} cannot be read: {reason}") from error
    artifact = Artifact(name, str(path.absolute()), size, digest, now())
    return copy_file(artifact, folder) if copy else artifact


def copy_file(artifact: Artifact, folder: Path) -> Artifact:
    """Copy the file of an artifact into `folder`, the run's folder, and return the artifact with the copy's path.

    If the copy fails, a warning is printed, and the artifact keeps its path.
    """
    is_copied = _copy_file(Path(artifact.path), folder / artifact.name)
    return replace(artifact, path=artifact.name) if is_copied else artifact


def relative_name(name: str) -> str:
    """Return a name as a relative path below the run's folder. Raises InputError if nothing is left of it."""
    parts = [part for part in name.replace("\0", "").split("/") if part not in ("", ".", "..")]
    if not parts:
        raise InputError(f"run.artifact: {name!r} is not a name of a file")
    return "/".join(parts)


def _artifact_name(path: Path) -> str:
    """Return a unique name: the path relative to the current folder or, for a file elsewhere, to the root."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (the name of a link, not of its target)
    here = Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else "/".join(absolute.parts[1:])


def _copy_file(path: Path, copy: Path) -> bool:
    try:
        import shutil  # takes 4 ms, only needed for copies

        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, write_atomically(copy) as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        warn(f"{path} could not be copied to {copy}: {error.strerror}; only its path is recorded")
        return False
    return True
