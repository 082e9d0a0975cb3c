"""Task files that this user has trained with `labbench run`, by path and content.

A database names the file of a run's task, and a database may come from anyone. A file that only a database names is
executed only if it is listed in `tasks.json` in the user's state folder, `{"/path/task.py": ["SHA-256", ...]}`.
Damaged entries of that list count as missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from contextlib import suppress
from pathlib import Path

from labbench.files import open_without_links, write_atomically
from labbench.system.user_folders import state_path

LEDGER = "tasks.json"
MOST_VERSIONS = 100
"""Contents per file that are remembered; the newest ones stay."""


def trust_task(task: str) -> None:
    """Record the present content of a task's file (`/path/file.py:Class`) as trusted.

    A built-in task has no file, so nothing is recorded. A state folder that cannot be written does not prevent
    training: the file is then not recorded.
    """
    file = _file_of(task)
    if file is None:
        return
    with suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        ledger = state_path(LEDGER)
        ledger.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open_without_links(ledger.with_suffix(".lock"), "ab", permissions=0o600) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two trainings may start at the same time
            trusted, digest = _read(ledger), _digest(file)
            versions = trusted.get(str(file), [])
            if digest not in versions:
                trusted[str(file)] = [*versions, digest][-MOST_VERSIONS:]
                with write_atomically(ledger, mode=0o600) as output:
                    output.write(json.dumps(trusted, indent=1).encode())


def is_trusted(task: str) -> bool:
    """Return True if this user has trained with the task's file at the same path, with the same content."""
    file = _file_of(task)
    try:
        versions = _read(state_path(LEDGER)).get(str(file), [])
        return file is not None and bool(versions) and _digest(file) in versions
    except (OSError, RuntimeError):
        return False


def _file_of(task: str) -> Path | None:
    """Return the resolved path of a task's file; None if `task` names no file."""
    file, _, _ = task.rpartition(":")
    try:
        return Path(file).resolve() if file else None
    except (OSError, RuntimeError, ValueError):  # circular links, a zero byte
        return None


def _read(ledger: Path) -> dict[str, list[str]]:
    try:
        entries = json.loads(ledger.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {
        path: [digest for digest in digests if isinstance(digest, str)]
        for path, digests in entries.items()
        if isinstance(digests, list)
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
