"""Paths of the database and of the files of runs (`<database>.files/KEY/`), and safe ways to write a file."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from labbench.errors import InputError

MODEL = "model.safetensors"
PORTRAIT = "portrait.npz"
CHECKPOINT_PATTERN = "snapshot-*.safetensors"
JOBS_FOLDER = "slurm-jobs"
"""Name of the folder of jobs in the folder of a database's files."""
UNFINISHED = ".labbench-"
"""Prefix of the temporary files of `write_atomically`."""
_DRAFT_BYTES = 8
"""Random bytes in the name of a temporary file, in hexadecimal."""
_DRAFT_SECONDS = 60.0
"""Minimum age of a temporary file that is removed if it has no lock; its process locks it right after creating it."""
_FILES_SUFFIX = ".files"


def default_database() -> Path:
    """Return the default path of the database: LABBENCH_DB, else `runs.db` in the current folder."""
    return expand_home(os.environ.get("LABBENCH_DB") or "runs.db")


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return the path with a leading `~` or `~USER` expanded as a shell does; an unknown user's stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises for an unknown user)


def database_command(database: Path) -> str:
    """Return the start of a shell command on `database`: `labbench`, with `--db` unless it is the default.

    Every command that a message suggests starts with it.
    """
    import shlex  # only needed for messages

    is_default = database.absolute() == default_database().absolute()
    return "labbench" if is_default else f"labbench --db {shlex.quote(str(database))}"


def files_folder(database: Path) -> Path:
    """Return the folder of a database's files, an absolute path beside the file that `database` may link to.

    It is created with the first file in it.
    """
    target = Path(os.path.realpath(database))  # Path.resolve raises for a circular link
    return target.with_name(target.name + _FILES_SUFFIX)


def database_of_files(files: Path) -> Path:
    """Return the database whose folder of files is `files`."""
    return files.with_name(files.name.removesuffix(_FILES_SUFFIX))


def run_folder(files: Path, run: str) -> Path:
    """Return the folder of a run's files.

    Raises:
        InputError: If `run` is not a valid key, or its folder is a symbolic link that points outside `files`.
    """
    from labbench.records import require_key  # 14 ms that `labbench --help` does not need

    folder = files / require_key(run)
    if folder.is_symlink() and not folder.resolve().is_relative_to(files.resolve()):
        raise InputError(
            f"{folder} is a symbolic link that points outside {files}; move the run's files into the folder"
        )
    return folder


def checkpoint_file(files: Path, run: str, step: int) -> Path:
    """Return the path of the run's checkpoint after `step` optimizer steps.

    Raises:
        InputError: As `run_folder`.
    """
    return run_folder(files, run) / f"snapshot-{step}.safetensors"


def checkpoint_files(files: Path, run: str) -> list[Path]:
    """Return the paths of a run's checkpoints.

    Raises:
        InputError: As `run_folder`.
    """
    return list(run_folder(files, run).glob(CHECKPOINT_PATTERN))


def discard_checkpoints(files: Path, run: str, *, keep: frozenset[int] = frozenset()) -> None:
    """Delete a run's checkpoints except at the steps in `keep`.

    Also deletes temporary files that a killed process left behind, and the run's folder if nothing else is in it.

    Raises:
        InputError: As `run_folder`.
    """
    retained = {checkpoint_file(files, run, step) for step in keep}
    for pattern in (CHECKPOINT_PATTERN, f"{UNFINISHED}*"):
        for file in run_folder(files, run).glob(pattern):
            if file not in retained:
                file.unlink(missing_ok=True)
    for folder in (run_folder(files, run), files):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def discard_older_checkpoints(files: Path, run: str, step: int) -> None:
    """Delete a run's checkpoints before `step`, once the database says that it resumes from there.

    Raises:
        InputError: As `run_folder`.
    """
    for file in run_folder(files, run).glob(CHECKPOINT_PATTERN):
        number = file.stem.rpartition("-")[2]
        if number.isdecimal() and int(number) < step:
            file.unlink(missing_ok=True)


def discard_portrait(files: Path, run: str) -> None:
    """Delete the portrait of an earlier attempt, if any, because the run starts from the beginning.

    Raises:
        InputError: As `run_folder`.
    """
    (run_folder(files, run) / PORTRAIT).unlink(missing_ok=True)


def require_not_database(target: Path) -> None:
    """Protect SQLite databases, of any program, and the files beside them from being overwritten.

    Raises:
        InputError: If `target` is an SQLite database or one of its side files.
    """
    if not target.is_file():
        return
    for suffix in ("-wal", "-shm", "-journal"):
        if target.name.endswith(suffix) and target.with_name(target.name.removesuffix(suffix)).is_file():
            raise InputError(f"{target} belongs to a database and would be overwritten; pass the name of another file")
    with target.open("rb") as file:
        if file.read(16) == b"SQLite format 3\0":
            raise InputError(f"{target} is a database and would be overwritten; pass the name of another file")


def require_ending(target: Path, endings: Collection[str], content: str) -> None:
    """Require that the name of a file to write fits its content; a name without an ending fits.

    Args:
        target: File to write.
        endings: Endings that fit, such as ".csv".
        content: Content of the file and what opens it, for the message.

    Raises:
        InputError: If the name has another ending.
    """
    if target.suffix and target.suffix.lower() not in endings:
        listed = ", ".join(endings)
        raise InputError(f"{target}: nothing was written, because the ending is not one of {listed}: {content}")


@contextmanager
def write_atomically(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a new binary file that replaces `path` once the block ends without an error.

    The new file is created exclusively, under a random name in the same folder, so that nothing planted there is
    written to. A library that needs a path may write to `file.name`. The new file takes the permissions of the file
    that it replaces, otherwise `mode` minus the umask. A symbolic link at `path` is replaced, never followed. Only a
    device or a pipe, such as /dev/stdout, is written to directly. Drafts of killed processes in the folder are removed.

    Raises:
        OSError: If the file cannot be written; `path` is then unchanged.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"the folder {path.parent} does not exist", str(path))
    remove_abandoned_drafts(path.parent)
    draft = path.with_name(f"{UNFINISHED}{os.urandom(_DRAFT_BYTES).hex()}")
    try:
        with open_without_links(draft, "xb", permissions=mode) as file:
            try:
                _lock(file)
                permissions = _permissions(path, default=os.fstat(file.fileno()).st_mode)
                yield file
                file.close()
                draft.chmod(permissions)  # a library may have put a file of its own there
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except OSError as error:
        is_full = error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not is_full and error.filename not in (draft, str(draft)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # the draft's name means nothing to a user


def remove_abandoned_drafts(folder: Path) -> None:
    """Remove the unfinished files that killed processes of this user left in a folder."""
    with suppress(OSError):
        for path in folder.glob(f"{UNFINISHED}*"):
            draft = path.with_name(path.name[: len(UNFINISHED) + 2 * _DRAFT_BYTES])  # SQLite adds `-journal`
            stat_result = path.lstat()
            is_old = time.time() - stat_result.st_mtime > _DRAFT_SECONDS
            is_ours = stat.S_ISREG(stat_result.st_mode) and stat_result.st_uid == os.geteuid()
            if is_old and is_ours and not _is_locked(draft):
                path.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> None:
    """Mark a draft as in use until its process ends, where the file system has locks."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_locked(draft: Path) -> bool:
    """Return True if a process is writing the draft."""
    try:
        with open_without_links(draft, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def open_without_links(path: Path, mode: str, *, permissions: int = 0o666, buffering: int = -1) -> IO[bytes]:
    """Open a file whose name others can predict, in a binary `mode`.

    Raises:
        OSError: If the file is a symbolic link or cannot be opened.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(
            name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, permissions
        )  # a pipe is refused instead of blocking

    return open(path, mode, buffering, opener=opener)  # Path.open takes no opener


def _permissions(path: Path, *, default: int) -> int:
    """Return the permission bits of the regular file at `path`, or of `default` if there is no such file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = default
    return (mode if stat.S_ISREG(mode) else default) & 0o777
