"""Files that a config names, by what is in them: a run's result depends on the content, wherever that lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from labbench.errors import InputError
from labbench.files import MODEL, run_folder

RUN_PREFIX = "run:"
"""What a run's key stands behind, where a checkpoint may be a file or what a run kept."""
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


def resolve_data_path(path: str) -> Path:
    """Where a person's own data lie. Raises InputError where nothing does."""
    if not path:
        raise InputError('say where the data are: path = "table.csv", "arrays.npz" or a folder of images')
    place = Path(path).expanduser().resolve()
    if not place.exists():
        raise InputError(f"there is nothing at {place} (a path counts from the folder where labbench is started)")
    return place


def resolve_checkpoint(word: str, files: Path | None) -> Path:
    """The file of weights that `init_from` names: its path, or `run:KEY`, whose model lies in the database's `files`.

    Raises InputError where there is none.
    """
    key = word.removeprefix(RUN_PREFIX)
    if key != word:
        kept = None if files is None else run_folder(files, key) / MODEL
        if kept is None or not kept.is_file():
            keep = 'train it with [runtime] keep = "last" or "best" (and --rerun, if it is done)'
            raise InputError(f'init_from = "{word}": that run kept no model: {keep}')
        return kept
    file = Path(word).expanduser().resolve()
    if file.suffix not in WEIGHT_SUFFIXES:
        raise InputError(
            f'init_from = "{word}": give a file of weights ({", ".join(WEIGHT_SUFFIXES)}), or {RUN_PREFIX}KEY'
        )
    if not file.is_file():
        raise InputError(
            f"init_from: there is no file {file} (a path counts from the folder where labbench is started)"
        )
    return file


def content_digest(place: Path) -> str:
    """SHA-256, hexadecimal, of a file, or of the names and contents in a folder; hidden files do not count.

    The ending of a file's name says how to read it, so it counts too. Raises InputError for what cannot be read.
    """
    whole = hashlib.sha256()
    for name, file in files_in(place):
        try:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}") from None
        whole.update(f"{name}\0{content}\n".encode())
    return whole.hexdigest()


def files_in(place: Path) -> Iterator[tuple[str, Path]]:
    """The files of a place, each with a name that does not depend on where the place is."""
    if place.is_file():
        yield place.suffix, place
        return
    for file in sorted(place.rglob("*")):
        name = file.relative_to(place)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), file
