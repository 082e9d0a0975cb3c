"""Paths of the database and of the files of runs (`<database>.files/KEY/`), and safe ways to write a file anywhere."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from labbench.errors import InputError
from labbench.records import require_key

MODEL = "model.safetensors"
PORTRAIT = "portrait.npz"
SNAPSHOTS = "snapshot-*.safetensors"
UNFINISHED = ".labbench-"
"""How the name of a file that `write_atomically` has not finished begins."""


def default_database() -> Path:
    """Return the database of whoever names none: LABBENCH_DB, else `runs.db` in the current folder."""
    return Path(os.environ.get("LABBENCH_DB") or "runs.db")


def database_command(database: Path) -> str:
    """Return the start of a shell command on `database`: `labbench`, with `--db` unless it is the default."""
    return "labbench" if database == default_database() else f"labbench --db {shlex.quote(str(database))}"


def files_folder(database: Path) -> Path:
    """The folder of a database's files; it is made when there is something to put there."""
    return database.with_name(database.name + ".files")


def run_folder(files: Path, run: str) -> Path:
    """Return the folder of a run's files.

    Raises:
        InputError: If `run` is no key, or its folder is a symbolic link that leads out of `files`.
    """
    folder = files / require_key(run)
    if folder.is_symlink() and not folder.resolve().is_relative_to(files.resolve()):
        raise InputError(f"{folder} is a link out of {files}: put a run's files themselves there")
    return folder


def snapshot_file(files: Path, run: str, step: int) -> Path:
    """The state of a run after so many steps."""
    return run_folder(files, run) / f"snapshot-{step}.safetensors"


def discard_snapshots(files: Path, run: str, *, keep: frozenset[int] = frozenset()) -> None:
    """Delete a run's snapshots except those at the steps in `keep`, files that a killed process has not finished, and
    the run's folder when nothing else is left there.
    """
    kept = {snapshot_file(files, run, step) for step in keep}
    for pattern in (SNAPSHOTS, f"{UNFINISHED}*"):
        for file in run_folder(files, run).glob(pattern):
            if file not in kept:
                file.unlink()
    for folder in (run_folder(files, run), files):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def discard_portrait(files: Path, run: str) -> None:
    """Delete that of an earlier attempt, if there is one: the run begins anew."""
    (run_folder(files, run) / PORTRAIT).unlink(missing_ok=True)


def require_not_database(target: Path) -> None:
    """Raises InputError for a file that may not be written over: an SQLite database, whoever's it is."""
    if not target.is_file():
        return
    with target.open("rb") as file:
        if file.read(16) == b"SQLite format 3\0":
            raise InputError(f"{target} is a database, and it would be written over: name another file")


@contextmanager
def write_atomically(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a new binary file that takes the place of `path` once the block ends without an error.

    It is created exclusively, under a random name in the same folder, so nothing planted there is written to. A library
    that wants a path may write to `file.name`. The permissions are those of the file that is replaced, otherwise `mode`
    less the umask. A symbolic link at `path` is replaced, never written through. Only a device or a pipe, such as
    /dev/stdout, is written to directly.

    Raises:
        OSError: If the file cannot be written; `path` is then as it was.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    draft = path.with_name(f"{UNFINISHED}{os.urandom(8).hex()}")
    try:
        with open_without_links(draft, "xb", permissions=mode) as file:
            try:
                permissions = _permissions(path, default=os.fstat(file.fileno()).st_mode)
                yield file
                file.close()
                draft.chmod(permissions)  # a library may have put a file of its own there
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except OSError as error:
        if error.filename not in (draft, str(draft)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # nobody knows the draft's name


def open_without_links(path: Path, mode: str, *, permissions: int = 0o666, buffering: int = -1) -> IO[bytes]:
    """Open a file whose name others can predict, in a binary `mode`. Raises OSError if it is a symbolic link."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, permissions)  # a pipe is refused, not waited for

    return open(path, mode, buffering, opener=opener)  # Path.open takes no opener


def _permissions(path: Path, *, default: int) -> int:
    """Return the permission bits of the regular file at `path`; those of `default` if there is none."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = default
    return (mode if stat.S_ISREG(mode) else default) & 0o777
