"""Files that a run produced or used, recorded by path, size and hash, and copied on request."""

from __future__ import annotations

import os
import time
from pathlib import Path

from labbench.errors import InputError
from labbench.files import write_atomically
from labbench.store.scripts.script_run import Artifact
from labbench.tracking.messages import warn


def record_file(path: Path, folder: Path, *, copy: bool) -> Artifact:
    """Record the current content of a file.

    With `copy`, the file is also copied into `folder`, the run's folder, and the recorded path is relative to it. If
    the copy fails, a warning is printed and the original path is recorded.

    Raises:
        InputError: If the file cannot be read.
    """
    import hashlib  # takes 3 ms, only needed for artifacts

    name = _artifact_name(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"run.artifact: {path} cannot be read: {reason}") from error
    is_copied = copy and _copy_file(path, folder / name)
    return Artifact(name, name if is_copied else str(path.absolute()), size, digest, time.time())


def _artifact_name(path: Path) -> str:
    """Return a unique name: the path relative to the current folder or, for a file elsewhere, to the root."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (the name of a link, not of its target)
    here = Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else "/".join(absolute.parts[1:])


def _copy_file(path: Path, copy: Path) -> bool:
    import shutil  # takes 4 ms, only needed for copies

    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, write_atomically(copy) as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        warn(f"{path} could not be copied to {copy}: {error.strerror}; only its path is recorded")
        return False
    return True
