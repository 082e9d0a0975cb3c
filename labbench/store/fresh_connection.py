"""Read connection that always sees the latest commit and detects commits cheaply.

While no process writes, the file is opened as immutable: without locks and without files beside it. SQLite then does
not notice changes, so this module checks the file before and after each read, and repeats a read during which the file
changed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from labbench.errors import StoreError
from labbench.store.connection import (
    DAMAGE_ERRORS,
    accept_damaged_texts,
    file_state,
    is_live,
    limit_read,
    open_for_reading,
    resolve_path,
    side_files,
    translate_sqlite_errors,
)
from labbench.store.queries.run_sql import IS_LOST

Result = TypeVar("Result")

_MAX_TRIES = 10


class FreshConnection:
    """Read connection that several threads may share; one call runs at a time."""

    def __init__(self, path: Path) -> None:
        self.path = resolve_path(path)  # SQLite puts its side files beside what a link points to
        self._side_files = side_files(self.path)
        self._lock = threading.RLock()
        self._openings = 0
        self._counted_version = -1
        self._has_running_runs = False
        self._open()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def read(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """Return the result of `function` on one snapshot of the database.

        `function` may be called repeatedly.

        Raises:
            StoreError: If the database cannot be read, or changes during every attempt.
        """
        with self._lock, translate_sqlite_errors(self.path):
            for _ in range(_MAX_TRIES):
                self._refresh()
                limit_read(self._connection, self.path)
                try:
                    result = self._read_snapshot(function)
                except DAMAGE_ERRORS as error:
                    if "decode" in str(error):
                        accept_damaged_texts(self._connection)
                    elif not self._is_outdated():
                        raise
                else:
                    if not self._is_outdated():
                        return result
        raise StoreError(
            f"{self.path}: the file changed during {_MAX_TRIES} attempts to read it; "
            "another program writes to it without locks"
        )

    def version(self) -> int:
        """Return a number that changes with each commit of another connection and each newly lost run.

        Raises:
            StoreError: If the database cannot be read.
        """
        with self._lock, translate_sqlite_errors(self.path):
            self._refresh()
            commits = 0  # an immutable file is opened again after each
            if self._live:
                limit_read(self._connection, self.path)
                [commits] = self._connection.execute("PRAGMA data_version").fetchone()
            # the pragma's 32-bit counter restarts with each connection
            version = (self._openings << 32) + commits
            return int((version << 32) + self._count_lost(version))

    def _count_lost(self, version: int) -> int:
        """Return the number of lost runs of a version of the database; without running runs, nothing is queried."""
        if version != self._counted_version:
            limit_read(self._connection, self.path)
            query = "SELECT EXISTS(SELECT 1 FROM runs WHERE status = 'running')"
            [self._has_running_runs] = self._connection.execute(query).fetchone()
            self._counted_version = version
        if not self._has_running_runs:
            return 0
        limit_read(self._connection, self.path)
        [lost] = self._connection.execute(f"SELECT count(*) FROM runs WHERE {IS_LOST}").fetchone()
        return int(lost)

    def _open(self) -> None:
        self._live = is_live(self.path)
        self._stamp = file_state(self.path)
        self._connection = open_for_reading(self.path, live=self._live)
        self._openings += 1

    def _refresh(self) -> None:
        if self._is_outdated():
            self._connection.close()
            self._open()

    def _is_outdated(self) -> bool:
        """Return True if the connection cannot see the current content of the file."""
        stamp = file_state(self.path)
        if self._live:
            return stamp[0] != self._stamp[0]  # the file was replaced
        return stamp != self._stamp or any(map(os.path.exists, self._side_files))

    def _read_snapshot(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        self._connection.execute("BEGIN")
        try:
            return function(self._connection)
        finally:
            if self._connection.in_transaction:  # a damaged page may have ended it
                self._connection.execute("COMMIT")
