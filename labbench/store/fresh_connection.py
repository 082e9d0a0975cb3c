"""A connection for reading that always sees the latest commit, and knows cheaply whether there was one.

While nobody writes, the file is read as immutable: no locks, no files beside it, and no look at whether it changes.
So that is looked at here, before a read and after it: what was read while the file changed is read again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from labbench.errors import StoreError
from labbench.store.connection import has_side_files, is_live, open_for_reading, resolve_path, translate_sqlite_errors

Result = TypeVar("Result")

_MAX_TRIES = 10


class FreshConnection:
    """For any number of threads, which take turns."""

    def __init__(self, path: Path) -> None:
        self.path = resolve_path(path)  # SQLite puts its side files beside what a link points to
        self._lock = threading.RLock()
        self._openings = 0
        self._open()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def read(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """What a function finds in the database, which does not change while it looks. It may be called again."""
        with self._lock, translate_sqlite_errors(self.path):
            for _ in range(_MAX_TRIES):
                self._refresh()
                try:
                    result = self._snapshot(function)
                except sqlite3.DatabaseError:
                    if not self._outdated():
                        raise
                else:
                    if not self._outdated():
                        return result
        raise StoreError(f"{self.path}: the file is changed all the time by a program that takes no locks")

    def version(self) -> int:
        """Another number when another connection has committed, or when a run has lost its process."""
        with self._lock, translate_sqlite_errors(self.path):
            self._refresh()
            [commits] = self._connection.execute("PRAGMA data_version").fetchone()
            query = "SELECT count(*) FROM runs WHERE status = 'running' AND is_lost(heartbeat, host, pid)"
            [lost] = self._connection.execute(query).fetchone()
        # the pragma counts anew with every connection and has 32 bits
        return int(((self._openings << 32) + commits << 32) + lost)

    def _open(self) -> None:
        self._live = is_live(self.path)
        self._stamp = self._stamp_now()
        self._connection = open_for_reading(self.path, live=self._live)
        self._openings += 1

    def _refresh(self) -> None:
        if self._outdated():
            self._connection.close()
            self._open()

    def _outdated(self) -> bool:
        """Whether this connection cannot see what the file now holds."""
        now = self._stamp_now()
        if self._live:
            return now[0] != self._stamp[0]  # another file in its place
        return now != self._stamp or has_side_files(self.path)

    def _stamp_now(self) -> tuple[int, int, int]:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return 0, 0, 0  # opening it says so better
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _snapshot(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        self._connection.execute("BEGIN")
        try:
            return function(self._connection)
        finally:
            self._connection.execute("COMMIT")
