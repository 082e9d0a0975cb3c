"""Temporary folders that outlive a killed process only until the next start of labbench.

A folder is locked while its process lives, also for processes that cannot see each other's ids, as in containers.
"""

from __future__ import annotations

import atexit
import fcntl
import multiprocessing.process
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "labbench-run-"

MIN_AGE_SECONDS = 60.0
"""Minimum age of a folder that is deleted if it has no lock; its process locks it right after creating it."""


class ScratchFolder:
    """Temporary folder, deleted by `close` or, after the process was killed, when another one is created."""

    def __init__(self) -> None:
        remove_abandoned_folders()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self.path, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete the folder."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def keep_sockets_in_scratch_folder() -> None:
    """Let multiprocessing create its sockets in a scratch folder of this process.

    The folder that multiprocessing creates otherwise stays for good after the process is killed.
    """
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]  # there is no public way
    if config.get("tempdir") is None:
        folder = ScratchFolder()
        config["tempdir"] = str(folder.path)
        atexit.register(folder.close)


def remove_abandoned_folders() -> None:
    """Delete this user's scratch folders whose processes have ended."""
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """Delete a folder unless its process lives. Raises OSError if that cannot be found out."""
    stat = folder.lstat()
    if folder.is_symlink() or stat.st_uid != os.geteuid() or time.time() - stat.st_mtime < MIN_AGE_SECONDS:
        return
    lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError if its process holds it
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
