"""Files named by a config, and digests of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from labbench.errors import InputError
from labbench.files import MODEL, expand_home, run_folder

RUN_PREFIX = "run:"
"""Prefix of a run's key in `init_from`, which names either a file or the model of a run."""
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


def resolve_data_path(path: str) -> Path:
    """Return the absolute path of the user's data, a file or a folder.

    Raises:
        InputError: `path` is empty or does not exist.
    """
    if not path:
        raise InputError('`path` is missing: set path = "table.csv", "arrays.npz" or a folder of images')
    absolute = expand_home(path).resolve()
    if not absolute.exists():
        raise InputError(f"no such file or folder: {absolute} (paths are relative to the grid file)")
    return absolute


def resolve_checkpoint(word: str, files: Path | None) -> Path:
    """Return the file of weights that `init_from` names: a path, or the model of `run:KEY`.

    `files` is the folder of the database's files, which holds the models.

    Raises:
        InputError: There is no such file, or the run kept no model.
    """
    key = word.removeprefix(RUN_PREFIX)
    if key != word:
        model = None if files is None else run_folder(files, key) / MODEL
        if model is None or not model.is_file():
            remedy = 'train it with [runtime] keep = "last", "best" or "resume" (and --rerun, if it is done)'
            raise InputError(f'init_from = "{word}": that run kept no model: {remedy}')
        return model
    file = expand_home(word).resolve()
    if file.suffix not in WEIGHT_SUFFIXES:
        raise InputError(
            f'init_from = "{word}": give a file of weights ({", ".join(WEIGHT_SUFFIXES)}), or {RUN_PREFIX}KEY'
        )
    if not file.is_file():
        raise InputError(f'init_from = "{word}": no such file: {file} (paths are relative to the grid file)')
    return file


def content_digest(path: Path) -> str:
    """Return the SHA-256, hexadecimal, of a file or folder.

    For a folder, the names and contents of all files count, except hidden ones.

    The suffix of a file's name counts too, since it decides how the file is read.

    Raises:
        InputError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for name, file in files_in(path):
        try:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}") from None
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def files_in(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and path of a file, or of each file in a folder.

    Names do not depend on the location of `path`.
    """
    if path.is_file():
        yield path.suffix, path
        return
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), file
