"""Files that a run made or used: recorded by path, size and hash, copied only if asked."""

from __future__ import annotations

import os
import time
from pathlib import Path

from labbench.errors import InputError
from labbench.files import write_atomically
from labbench.store.scripts.script_run import Artifact
from labbench.tracking.messages import warn


def record_file(path: Path, folder: Path, *, copy: bool) -> Artifact:
    """A file as it is now. `folder` is the run's own: a copy goes there, and its path is then relative to it.

    Raises InputError where there is no such file; a copy that cannot be written is told, and left out.
    """
    import hashlib  # 3 ms, which start() need not pay

    name = _artifact_name(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"run.artifact: {path} cannot be read: {reason}") from error
    kept = copy and _copy_file(path, folder / name)
    return Artifact(name, name if kept else str(path.absolute()), size, digest, time.time())


def _artifact_name(path: Path) -> str:
    """One for each file: its path from the current folder, or from the root for one elsewhere."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 (a link's own name, not where it leads)
    here = Path.cwd()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else "/".join(whole.parts[1:])


def _copy_file(path: Path, copy: Path) -> bool:
    import shutil  # 4 ms, as above

    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, write_atomically(copy) as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        warn(f"{copy}: {path} could not be copied there: {error.strerror}; where it lies is recorded")
        return False
    return True
